"""Two ends of one connection on loopback."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from softlan._core import Connection, Endpoint, TransportSettings
from softlan.relay.certificates import make_dev_certificate

__all__ = ["two_ends"]

NAME = "lanparty-relay.local"


@contextlib.asynccontextmanager
async def two_ends() -> AsyncIterator[tuple[Connection, Connection]]:
    """The end that connected, and the one that accepted it."""
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
