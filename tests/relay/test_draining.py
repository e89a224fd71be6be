"""A relay that drains: who is in a room may lose the connection and is let in again and waited for, nobody else gets in."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from serving import NAME, SHOWN, serving, until

from softlan._core import Endpoint, Mac, TransportSettings
from softlan.client import Session
from softlan.client.session import RelaySession
from softlan.config import HostPort
from softlan.control.codes import Code
from softlan.control.messages import Hello, Role, encode
from softlan.control.stream import encode_frame
from softlan.errors import RejectedError
from softlan.relay import server
from softlan.relay.server import Relay, RelayConfig

SUCCESSOR = HostPort("other.example.org", 443)


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    async with serving(RelayConfig(listen="127.0.0.1:0", successor=SUCCESSOR, back_in_s=9)) as made:
        yield made


@pytest.fixture
def may_come_back(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Sessions that lost their connection wait for this before they try again."""
    let, join_now = asyncio.Event(), RelaySession._join

    async def join_later(session: RelaySession, *beside: Any) -> Any:
        if session.joins:
            await let.wait()
        return await join_now(session, *beside)

    monkeypatch.setattr(RelaySession, "_join", join_later)
    return let


def join(relay: Relay, **more: Any) -> Session:
    return Session.join(relay=relay.local_address, room="A", certificate=SHOWN.leaf, server_name=NAME, **more)


def lose(*sessions: Session) -> None:
    for session in sessions:
        assert session._inner is not None
        assert session._inner.connection is not None
        session._inner.connection.close(Code.CONNECTION_LOST.number, "")


def is_back(session: Session) -> Callable[[], bool]:
    return lambda: session._inner is not None and session._inner.joins == 2 and session.connected


@contextlib.asynccontextmanager
async def draining(relay: Relay) -> AsyncIterator[asyncio.Task[None]]:
    """It takes for ever, unless all leave."""
    task = asyncio.create_task(relay.drain(86400))
    await asyncio.sleep(0)
    try:
        yield task
    finally:
        task.cancel()


@contextlib.asynccontextmanager
async def draining_with_two(relay: Relay) -> AsyncIterator[tuple[Session, Session, asyncio.Task[None]]]:
    async with join(relay) as ann, join(relay) as ben, draining(relay) as ending:
        yield ann, ben, ending


async def refused(relay: Relay, **more: Any) -> RejectedError:
    with pytest.raises(RejectedError) as caught:
        async with join(relay, **more):
            pass
    return caught.value


async def test_who_loses_the_connection_is_let_in_again_and_nobody_else(
    relay: Relay, may_come_back: asyncio.Event, caplog: pytest.LogCaptureFixture
) -> None:
    async with draining_with_two(relay) as (ann, _, ending):
        await until(lambda: caplog.text.count("the session ends in") == 2)
        lose(ann)
        await until(lambda: relay.peer_count == 1)
        newcomer = await refused(relay)
        assert newcomer.code is Code.SHUTTING_DOWN
        assert (newcomer.relay, newcomer.back_in_s) == (str(SUCCESSOR), 9)
        # A MAC is no secret: who says it without what the peer alone knows is not that peer.
        assert (await refused(relay, mac=ann.mac)).code is Code.SHUTTING_DOWN
        may_come_back.set()
        await until(is_back(ann))
        # It is told once more: it may be another process.
        await until(lambda: caplog.text.count("the session ends in") == 3)
        assert not ending.done()


async def test_a_hiccup_that_all_lose_their_connections_by_does_not_end_it(
    relay: Relay, may_come_back: asyncio.Event
) -> None:
    async with draining_with_two(relay) as (ann, ben, ending):
        lose(ann, ben)
        await until(lambda: relay.peer_count == 0)
        await asyncio.sleep(0.1)
        assert not ending.done()
        may_come_back.set()
        await until(is_back(ann))
        await until(is_back(ben))
        assert not ending.done()
        await ann.leave()
        await ben.leave()
        # Now all have left, and nobody is waited for.
        await asyncio.wait_for(ending, 10)


@pytest.mark.usefixtures("may_come_back")
async def test_who_does_not_come_back_is_not_waited_for_for_ever(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_COMES_BACK_S", 0.2)
    async with draining_with_two(relay) as (ann, ben, ending):
        lose(ann)
        await until(lambda: relay.peer_count == 1)
        await ben.leave()
        await asyncio.wait_for(ending, 10)


async def test_who_cannot_be_known_again_is_not_waited_for(relay: Relay) -> None:
    endpoint = Endpoint.client("127.0.0.1:0", TransportSettings(keep_alive=0.5))
    connection = await endpoint.connect(relay.local_address, NAME, [SHOWN.leaf], timeout=10)
    await connection.open_control()
    mac = Mac("02:00:5e:10:00:01")
    hello = Hello(protocol=1, role=Role.CLIENT, room="A", mac=mac, datagram_budget=1200)
    await connection.write_control(encode_frame(encode(hello)))
    await until(lambda: relay.peer_count == 1)
    async with draining(relay) as ending:
        connection.close(Code.CONNECTION_LOST.number, "")
        await asyncio.wait_for(ending, 10)
    endpoint.stop()
