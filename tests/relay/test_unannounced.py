"""Connections that say nothing: they have their time and number, are counted, keep nobody out, and are told when the relay ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest
from serving import NAME, SHOWN, serving, until

from softlan._core import Connection, Endpoint, Mac, TransportSettings
from softlan.control.codes import Code
from softlan.control.messages import Hello, Role, encode
from softlan.control.stream import encode_frame
from softlan.relay.gate import GateLimits
from softlan.relay.server import Relay, RelayConfig

PLACES = 3
TIME_S = 1.5


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    gate = GateLimits(unannounced=PLACES)
    async with serving(RelayConfig(listen="0.0.0.0:0", admission_timeout_s=TIME_S, gate=gate)) as made:
        yield made


@contextlib.asynccontextmanager
async def calling(relay: Relay, source: str) -> AsyncIterator[Callable[[], Connection]]:
    """A machine at `source`; what it gives makes one connection after the other."""
    endpoint = Endpoint.client(f"{source}:0", TransportSettings(keep_alive=0.5))
    address = f"127.0.0.1:{relay.local_address.rpartition(':')[2]}"

    async def connect() -> Connection:
        return await endpoint.connect(address, NAME, [SHOWN.leaf], timeout=10)

    try:
        yield connect
    finally:
        await endpoint.close(0, "")
        endpoint.stop()


def away(relay: Relay) -> dict[str, int]:
    return dict(relay.snapshot()["turned_away"])


async def test_who_says_nothing_is_sent_away_in_time_and_counted(relay: Relay) -> None:
    async with calling(relay, "127.0.0.1") as connect:
        silent = [await connect() for _ in range(PLACES)]
        await until(lambda: relay.snapshot()["unannounced"] == PLACES)
        one_too_many = await connect()
        assert (await asyncio.wait_for(one_too_many.closed(), 10)).code == Code.TOO_MANY_CONNECTIONS.number
        for connection in silent:
            assert (await asyncio.wait_for(connection.closed(), 10)).code == Code.HELLO_TIMEOUT.number
        await until(lambda: relay.snapshot()["unannounced"] == 0)
        assert away(relay) == {"hello-timeout": PLACES, "too-many-connections": 1}


async def test_silent_connections_of_one_address_keep_nobody_else_out(relay: Relay) -> None:
    async with calling(relay, "127.0.0.1") as connect, calling(relay, "127.0.0.2") as connect_elsewhere:
        silent = [await connect() for _ in range(PLACES)]
        await until(lambda: relay.snapshot()["unannounced"] == PLACES)
        newcomer = await connect_elsewhere()
        assert (await asyncio.wait_for(silent[0].closed(), 10)).code == Code.TOO_MANY_CONNECTIONS.number
        await newcomer.open_control()
        mac = Mac("02:00:5e:10:00:01")
        hello = Hello(protocol=1, role=Role.CLIENT, room="FULL", mac=mac, datagram_budget=1200)
        await newcomer.write_control(encode_frame(encode(hello)))
        await until(lambda: relay.peer_count == 1)
        assert away(relay)["too-many-connections"] == 1


async def test_who_has_not_said_hello_when_the_relay_ends_is_to_come_back(relay: Relay) -> None:
    """A goodbye would be for good; whoever comes while the relay ends is to try again."""
    async with calling(relay, "127.0.0.1") as connect:
        early = await connect()
        await until(lambda: relay.snapshot()["unannounced"] == 1)
        relay._closing = True
        late = await connect()
        for task in list(relay._tasks):
            task.cancel()
        for connection in (early, late):
            closed = await asyncio.wait_for(connection.closed(), 10)
            assert (closed.kind, closed.code) == ("peer", Code.SHUTTING_DOWN.number)
        relay._closing = False
