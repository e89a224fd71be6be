"""A peer that does not read its control messages: what waits for it is bounded, it is sent away, and it is counted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from serving import NAME, SHOWN, serving, until

from softlan._core import Connection, Endpoint, Mac, TransportSettings
from softlan.control.channel import ControlChannel
from softlan.control.codes import Code
from softlan.control.messages import Disconnect, Hello, PeerLeft, Role, Stats, encode
from softlan.control.stream import encode_frame
from softlan.relay.server import Relay, RelayConfig

ANN = Mac("02:00:5e:10:00:01")


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    async with serving(RelayConfig(listen="127.0.0.1:0")) as made:
        yield made


@contextlib.asynccontextmanager
async def silent_peer(relay: Relay) -> AsyncIterator[Connection]:
    """A peer that says hello and reads nothing from then on."""
    endpoint = Endpoint.client("127.0.0.1:0", TransportSettings(keep_alive=0.5))
    try:
        connection = await endpoint.connect(relay.local_address, NAME, [SHOWN.leaf], timeout=10)
        await connection.open_control()
        hello = Hello(protocol=1, role=Role.CLIENT, room="SLOW", mac=ANN, datagram_budget=1200)
        await connection.write_control(encode_frame(encode(hello)))
        yield connection
    finally:
        await endpoint.close(0, "")
        endpoint.stop()


async def admitted(relay: Relay) -> ControlChannel:
    await until(lambda: bool(relay._peers))
    (peer,) = relay._peers.values()
    return peer.channel


@pytest.mark.parametrize("size", [20, 16000])
async def test_who_does_not_read_is_sent_away(relay: Relay, size: int) -> None:
    async with silent_peer(relay) as connection:
        channel = await admitted(relay)
        most = 0
        for _ in range(20000):
            channel.post(Disconnect(code=Code.GOODBYE, reason="x" * size))
            most = max(most, channel._unsent_bytes)
            if channel.overflowed:
                break
        assert channel.overflowed
        assert most <= 1 << 18
        channel.post(PeerLeft(peer_id=1, reason=Code.GOODBYE))
        closed = await asyncio.wait_for(connection.closed(), 10)
        assert closed.code == Code.SLOW_READER.number
        await until(lambda: not relay._peers)
        assert relay.snapshot()["turned_away"] == {"slow-reader": 1}


async def test_statistics_alone_send_nobody_away(relay: Relay) -> None:
    async with silent_peer(relay):
        channel = await admitted(relay)
        for _ in range(5000):
            channel.post(Stats(counters={"frames_received": 1}, interval_s=1))
        assert not channel.overflowed
        assert channel._unsent.qsize() <= 10
