"""What two ends of a connection know and nobody else does, and whom the joining side believes; over loopback."""

from __future__ import annotations

import pytest
from ends import two_ends

from softlan._core import CoreError


async def test_both_ends_export_the_same_and_other_connections_do_not() -> None:
    async with two_ends() as (near, far), two_ends() as (other, _):
        exported = near.export_keying_material(b"EXPERIMENTAL test", b"ROOM", 32)
        assert len(exported) == 32
        assert far.export_keying_material(b"EXPERIMENTAL test", b"ROOM", 32) == exported
        assert far.export_keying_material(b"EXPERIMENTAL test", b"ROOM2", 32) != exported
        assert far.export_keying_material(b"EXPERIMENTAL other", b"ROOM", 32) != exported
        assert other.export_keying_material(b"EXPERIMENTAL test", b"ROOM", 32) != exported


@pytest.mark.parametrize("length", [0, 8161, 1 << 40])
async def test_lengths_tls_cannot_give_are_refused(length: int) -> None:
    async with two_ends() as (near, _):
        with pytest.raises(CoreError) as caught:
            near.export_keying_material(b"EXPERIMENTAL test", b"", length)
        assert caught.value.args[0] == "invalid-setting"
