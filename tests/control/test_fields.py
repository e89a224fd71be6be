"""What single fields may hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softlan._core import Mac
from softlan.control.fields import FieldFault, Role, check_role_and_mac, normalise_room_code

ROOM_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"


@given(st.text(ROOM_CHARACTERS + ROOM_CHARACTERS.lower(), min_size=1, max_size=32))
def test_room_codes_fold_once(text):
    folded = normalise_room_code(text)
    assert folded == text.upper()
    assert normalise_room_code(folded) == folded


@given(st.text(max_size=40))
def test_a_room_code_that_passes_holds_only_what_it_may(text):
    try:
        folded = normalise_room_code(text)
    except FieldFault:
        return
    assert 1 <= len(folded) <= 32
    assert set(folded) <= set(ROOM_CHARACTERS)


def test_role_and_mac_go_together():
    check_role_and_mac(Role.GATEWAY, None)
    check_role_and_mac(Role.CLIENT, Mac("02:00:00:00:00:01"))
    for role, mac in [
        (Role.CLIENT, None),
        (Role.GATEWAY, Mac("02:00:00:00:00:01")),
        (Role.CLIENT, Mac("03:00:00:00:00:01")),
        (Role.CLIENT, Mac("00:00:00:00:00:00")),
    ]:
        with pytest.raises(FieldFault) as caught:
            check_role_and_mac(role, mac)
        assert caught.value.field == "mac"
