"""Proofs of room keys, and invites: against the figures of docs/protocol.md, and against whatever hypothesis thinks of."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softlan._core import Mac
from softlan.control import keys
from softlan.control.fields import FieldFault, Role
from softlan.control.keys import Claim, Invite, InviteFacts, Passphrase, issue, parse_key, read_token
from softlan.errors import ConfigError

PROTOCOL = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
EXPORTED, INVITE_KEY = bytes(range(32)), bytes(range(32, 64))
ANN, BEN = Mac("02:00:5e:10:00:01"), Mac("02:00:5e:10:00:02")
CLAIM = Claim(exported=EXPORTED, room="PARTY1", role=Role.CLIENT, mac=ANN)
SOON = 1_790_000_000


@functools.cache
def secret_of(passphrase: str, room: str) -> bytes:
    return Passphrase(passphrase).secret(room)


def documented(name: str) -> list[str]:
    return re.findall(rf"\b{name} +([0-9a-zA-Z_-]{{64,}})", PROTOCOL)


def test_the_figures_of_the_protocol() -> None:
    secrets, proofs, (token,) = documented("secret"), documented("proof"), documented("token")
    stretched = secret_of("correct horse", "PARTY1")
    assert [stretched.hex(), keys.invite_secret(INVITE_KEY, token).hex()] == secrets
    assert [
        CLAIM.prove(stretched),
        dataclasses.replace(CLAIM, role=Role.GATEWAY, mac=None).prove(stretched),
    ] == proofs
    assert read_token(token) == InviteFacts(id="A" * 16, room="PARTY1", role=Role.CLIENT, expires=SOON)


def test_a_proof_is_for_one_connection_room_role_and_mac() -> None:
    secret = secret_of("correct horse", "PARTY1")
    proof = CLAIM.prove(secret)
    assert CLAIM.fits(proof, secret)
    assert not CLAIM.fits(proof, secret_of("correct hors", "PARTY1"))
    assert not dataclasses.replace(CLAIM, exported=INVITE_KEY).fits(proof, secret)
    assert not dataclasses.replace(CLAIM, room="PARTY2").fits(proof, secret)
    assert not dataclasses.replace(CLAIM, mac=BEN).fits(proof, secret)
    assert not dataclasses.replace(CLAIM, role=Role.GATEWAY, mac=None).fits(proof, secret)


def test_the_room_is_in_the_salt() -> None:
    assert secret_of("correct horse", "PARTY1") != secret_of("correct horse", "PARTY2")


def test_a_passphrase_is_one_however_it_is_typed() -> None:
    assert parse_key(" na\u0131\u0308ve\n") == parse_key("na\u0131\u0308ve")
    assert parse_key("cafe\u0301") == parse_key("caf\u00e9") == Passphrase("caf\u00e9")


@pytest.mark.parametrize(
    "text", ["", "   ", "x" * 257, "a\nb", "slk1.", "slk1.abc", "slk1.abc.def", "slk1.a b." + "A" * 43]
)
def test_what_is_no_key(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_key(text)
    assert text.strip() == "" or text not in str(caught.value)


@pytest.mark.parametrize("role", Role)
def test_an_issued_invite_reads_back(role: Role) -> None:
    invite = parse_key(issue(INVITE_KEY, "party1", role, expires=SOON, once=True))
    assert isinstance(invite, Invite)
    facts = read_token(invite.token)
    assert (facts.room, facts.role, facts.expires, facts.once) == ("PARTY1", role, SOON, True)
    assert invite.secret("PARTY1") == keys.invite_secret(INVITE_KEY, invite.token)
    assert invite.secret("PARTY1") != keys.invite_secret(EXPORTED, invite.token)


def test_the_longest_invite_fits_a_hello() -> None:
    invite = parse_key(issue(INVITE_KEY, "R" * 32, Role.GATEWAY, expires=2**53, once=True))
    assert invite.token is not None
    assert len(invite.token) <= keys.MAX_TOKEN


def test_no_two_invites_are_the_same() -> None:
    assert len({issue(INVITE_KEY, "PARTY1", expires=SOON) for _ in range(100)}) == 100


@given(st.text(max_size=keys.MAX_TOKEN + 4))
def test_a_token_says_something_or_is_refused(token: str) -> None:
    with contextlib.suppress(FieldFault):
        read_token(token)


@given(st.text())
def test_a_key_parses_or_is_refused(text: str) -> None:
    try:
        key = parse_key(text)
    except ConfigError:
        return
    assert parse_key(key.text if isinstance(key, Passphrase) else text) == key


@given(
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=32, max_size=32),
    st.integers(0, 255),
    st.integers(0, 31),
)
def test_one_bit_of_the_exported_bytes_is_enough(secret: bytes, exported: bytes, flip: int, at: int) -> None:
    other = bytes(b ^ flip if i == at else b for i, b in enumerate(exported))
    proof = dataclasses.replace(CLAIM, exported=exported).prove(secret)
    assert dataclasses.replace(CLAIM, exported=other).fits(proof, secret) == (flip == 0)
