"""What two ends of a connection know and nobody else does, and whom the joining side believes; over loopback."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

from softlan._core import Connection, CoreError, Endpoint, TransportSettings
from softlan.relay.certificates import make_dev_certificate

NAME = "lanparty-relay.local"


@contextlib.asynccontextmanager
async def two_ends() -> AsyncIterator[tuple[Connection, Connection]]:
    shown = make_dev_certificate(NAME)
    server = Endpoint.server("127.0.0.1:0", list(shown.chain), shown.key, TransportSettings())
    client = Endpoint.client("127.0.0.1:0", TransportSettings())
    try:
        near = await client.connect(server.local_address, NAME, [shown.leaf], timeout=10)
        far = await server.accept()
        assert far is not None
        yield near, far
    finally:
        for end in (client, server):
            await end.close(0, "")
            end.stop()


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
