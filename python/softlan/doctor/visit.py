"""Goes where a player goes, with softlan's own connection: believes the relay or not, enters the room, sends frames through it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from softlan._core import Connection, CoreError, Endpoint, Mac, TransportSettings
from softlan.client.identity import SECRET_SIZE, Identity
from softlan.client.library import Session
from softlan.client.session import RelaySession, SessionConfig, explain_failure
from softlan.control.codes import Code
from softlan.control.fields import FieldFault
from softlan.control.keys import Invite, read_token
from softlan.control.messages import PeerJoined, PeerLeft, Role, Welcome
from softlan.errors import SoftlanError

__all__ = ["Echo", "Trusted", "Visit", "echo", "enter", "is_for_once", "second_visitor", "try_trust"]

_CONNECT_S = 5.0
_BUDGET_S = 1.5
"""How long QUIC may look for the path's MTU."""

_LOCAL_EXPERIMENT = b"\x88\xb5"
"""An EtherType that no station acts on (IEEE 802, local experimental)."""

_SMALL = 100
_SPACING_S = 0.03
_LINGER_S = 1.0


@dataclass(frozen=True, slots=True)
class Trusted:
    """The relay was believed: the largest datagram payload the path carries, in bytes, and the round trip."""

    budget: int
    rtt_s: float


@dataclass(frozen=True, slots=True)
class Visit:
    """A place in the room: what the relay said in its welcome, and for clients the session to send frames over."""

    welcome: Welcome
    budget: int | None
    session: Session | None


@dataclass(frozen=True, slots=True)
class Echo:
    """Frames sent through the room and those that came out, small ones and ones of the room's MTU (`size` bytes with header)."""

    size: int
    small_sent: int
    small: tuple[float, ...]
    full_sent: int
    full: tuple[float, ...]


async def try_trust(config: SessionConfig, address: str) -> Trusted:
    """Connect to `IP:PORT` as a client would, and go.

    Raises:
        RelayUnreachableError, TrustError, ConfigError: in the words the client has for it.
        SoftlanError: no UDP socket is to be had.

    """
    settings = TransportSettings(max_udp_payload=config.max_udp_payload)
    try:
        endpoint = Endpoint.client("[::]:0", settings)
    except CoreError as error:
        raise SoftlanError(f"cannot open a UDP socket: {error.args[1]}") from error
    try:
        connection = await endpoint.connect(
            address, config.server_name, config.trusted(), pins=list(config.pins), timeout=_CONNECT_S
        )
        budget = await connection.settled_datagram_budget(timeout=_BUDGET_S)
        return Trusted(budget, connection.rtt)
    except CoreError as error:
        raise explain_failure(error, config.relay, _CONNECT_S, pinned=config.pinned) from error
    finally:
        await endpoint.close(Code.GOODBYE.number, "", timeout=0.3)
        endpoint.stop()


@contextlib.asynccontextmanager
async def enter(config: SessionConfig) -> AsyncIterator[Visit]:
    """Be in the room for as long as the block lasts. Raises what joining raises."""
    if config.role is Role.CLIENT:
        async with Session(config, queue=256) as session:
            inner = session._inner
            assert inner is not None
            assert inner.welcome is not None
            budget = None if inner.connection is None else inner.connection.max_datagram_size
            yield Visit(inner.welcome, budget, session)
        return
    bystander = _Bystander()
    inner = RelaySession(config, bystander)
    running = asyncio.create_task(inner.run())
    entered = asyncio.ensure_future(inner.entered.wait())
    try:
        await asyncio.wait((running, entered), return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        assert inner.welcome is not None
        yield Visit(inner.welcome, bystander.budget, None)
    finally:
        entered.cancel()
        inner.stop()
        await asyncio.wait((running,))


def is_for_once(session: SessionConfig) -> bool:
    """Look whether the key is an invite for a single use. Only the relay decides by it; here it keeps a visit from using it up."""
    if not isinstance(session.key, Invite):
        return False
    try:
        return read_token(session.key.token).once
    except FieldFault:
        return False


def second_visitor(config: SessionConfig) -> SessionConfig:
    """Describe a visitor beside the first, with a MAC and a secret of its own."""
    mac = Mac.random_local()
    resume = Identity(mac, secrets.token_bytes(SECRET_SIZE)).resume_key(config.server_name, config.room)
    return dataclasses.replace(config, role=Role.CLIENT, mac=mac, resume=resume)


async def echo(sender: Session, receiver: Session, *, count: int) -> Echo:
    """Send `count` frames of each size from one visitor to the other: out by this machine's line and back by it."""
    size = 14 + sender.mtu
    sent: dict[int, float] = {}
    came: dict[int, float] = {}

    async def listen() -> None:
        async for frame in receiver.frames():
            number = int.from_bytes(frame[14:18], "big")
            if frame[6:14] == bytes(sender.mac) + _LOCAL_EXPERIMENT and number in sent:
                came.setdefault(number, time.perf_counter() - sent[number])
                if len(came) == 2 * count:
                    return

    listening = asyncio.create_task(listen())
    head = bytes(receiver.mac) + bytes(sender.mac) + _LOCAL_EXPERIMENT
    try:
        for number in range(2 * count):
            sent[number] = time.perf_counter()
            frame = head + number.to_bytes(4, "big")
            await sender.send(frame.ljust(size if number % 2 else _SMALL, b"\0"))
            await asyncio.sleep(_SPACING_S)
        await asyncio.wait((listening,), timeout=_LINGER_S)
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    trips = [tuple(trip for number, trip in came.items() if number % 2 == odd) for odd in (0, 1)]
    return Echo(size, count, trips[0], count, trips[1])


class _Bystander:
    """A gateway that brings nothing along."""

    def __init__(self) -> None:
        self.budget: int | None = None

    def joined(self, connection: Connection, welcome: Welcome) -> None:
        """Take note of what the path carries."""
        del welcome
        self.budget = connection.max_datagram_size

    def lost(self) -> None:
        """Do nothing."""

    def peer_joined(self, peer: PeerJoined) -> None:
        """Do nothing."""

    def peer_left(self, peer: PeerLeft) -> None:
        """Do nothing."""

    def counters(self) -> dict[str, int]:
        """Count nothing."""
        return {}
