"""A room for programs: join, send and receive Ethernet frames, without a network adapter and so without any rights.

    async with Session.join("softlan://party.example.org/ROOM1?pin=...") as session:
        await session.send(frame)
        async for frame in session.frames():
            ...

It is a client like any other: one MAC, its own frames only, and it comes back by itself when the connection is lost.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from softlan._core import Bridge, Connection, CoreError, FrameLog, Mac, MemoryDevice
from softlan.client.identity import SECRET_SIZE, Identity
from softlan.client.session import RelaySession, SessionConfig
from softlan.config import Congestion, parse_host_port, parse_room, parse_server_name, parse_virtual_mac
from softlan.control.keys import parse_key
from softlan.control.messages import PeerFacts, PeerJoined, PeerLeft, Role, Welcome
from softlan.errors import ConfigError, SoftlanError
from softlan.invite import parse_invite
from softlan.trust import (
    load_trusted_certificates,
    parse_pin,
    read_trusted_certificates,
    system_trusted_certificates,
)

__all__ = ["Peer", "Session"]

logger = logging.getLogger(__name__)

_MAX_NAME = 32
"""Characters; the control protocol has 64 for it and softlan's own version."""

_BATCH = 256
"""Frames; a device gives no more at once (BATCH in rust/python/src/devices/memory.rs)."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Somebody else in the room: a player with a MAC, or the gateway of a LAN, without one."""

    peer_id: int
    role: Role
    mac: Mac | None


class Session:
    """A place in a room. Made by `join`, used as an asynchronous context manager, on one event loop."""

    def __init__(self, config: SessionConfig, *, queue: int) -> None:
        """Take the arguments of `join`, read."""
        assert config.mac is not None
        self.mac: Mac = config.mac
        """This session's own MAC: the source address of every frame it may send."""
        self.room: str = config.room
        self._config = config
        self._device = MemoryDevice(capacity=queue)
        self._ahead: deque[bytes] = deque()  # taken out of the device, and not yet given to a reader
        self._peers: dict[int, Peer] = {}
        self._inner: RelaySession | None = None
        self._bridge: Bridge | None = None
        self._running: asyncio.Task[None] | None = None
        self._entered = asyncio.Event()
        self._failure: SoftlanError | None = None

    @classmethod
    def join(
        cls,
        invite: str | None = None,
        *,
        relay: str | None = None,
        room: str | None = None,
        pins: Sequence[str] = (),
        key: str | None = None,
        certificate: str | os.PathLike[str] | bytes | None = None,
        server_name: str | None = None,
        mac: Mac | str | None = None,
        name: str | None = None,
        queue: int = 1024,
        congestion: Congestion = "calm",
    ) -> Session:
        """Describe the room to join; `async with` joins it and, in the end, leaves it.

        `invite` is the line a player is given, softlan://...; what is given besides counts more than what it says, as with
        `softlan join`. `relay` is `host:port`. `pins` are pins of the relay's public key, any of which will do. `key` is the room's key
        or an invite's. `certificate` is the relay's, or its authority's: a file (DER or PEM), or what is in one, as bytes; with
        neither pin nor certificate the system's authorities are trusted. `server_name` is the name the certificate is for, the
        invite's or the relay's host if not given. `mac` is a random one if not given. `name` is what the relay's operator sees this
        program called, up to 32 characters. `queue` is how many frames wait each way; frames that come while it is full are dropped,
        and counted in `lost`.

        Raises:
            ConfigError: an argument is missing, cannot be what it is, or excludes another, or the certificate cannot be read.

        Entering raises what joining raises: RelayUnreachableError, TrustError, RejectedError; and ConfigError where nothing is trusted, or
        TLS cannot use the certificate or name.

        """
        if invite is not None:
            said = parse_invite(invite)
            for note in said.notes:
                logger.warning("%s", note)
            relay, room = relay or str(said.relay), room or said.room
            server_name = server_name or said.relay.name
            pins = pins or (said.pins if certificate is None else ())
            key = key or said.key
        if relay is None or room is None:
            missing = "relay" if relay is None else "room"
            raise ConfigError(
                f"{missing}: not given", hint='give an invite, "softlan://...", or relay and room'
            )
        if pins and certificate is not None:
            raise ConfigError("a pin and a certificate exclude each other", hint="a pin needs no certificate")
        if isinstance(pins, str):
            raise ConfigError("pins: a list of pins, not one", hint="write pins=[pin]")
        where = parse_host_port(relay)
        own = Mac.random_local() if mac is None else parse_virtual_mac(str(mac))
        if name is not None and (not name.isprintable() or len(name) > _MAX_NAME):
            raise ConfigError(f"name: up to {_MAX_NAME} printable characters")
        if not 1 <= queue <= 1 << 20:
            raise ConfigError(f"queue: {queue} is not from 1 to {1 << 20} frames")
        code = parse_room(room)
        server = parse_server_name(server_name) if server_name else where.name
        config = SessionConfig(
            relay=where,
            server_name=server,
            trusted=list if pins else _trust(certificate),
            pinned=certificate is not None or bool(pins),
            pins=tuple(map(parse_pin, pins)),
            key=None if key is None else parse_key(key),
            room=code,
            role=Role.CLIENT,
            mac=own,
            resume=Identity(own, secrets.token_bytes(SECRET_SIZE)).resume_key(server, code),
            congestion=congestion,
            name=name,
        )
        return cls(config, queue=queue)

    # Being in the room ------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Session:
        """Join the room; see `join` for what is raised."""
        if self._running is not None:
            raise RuntimeError("a session can be entered once; make another with Session.join")
        self._inner = RelaySession(self._config, _Handler(self))
        self._running = asyncio.create_task(self._run(self._inner))
        entered = asyncio.ensure_future(self._entered.wait())
        try:
            await asyncio.wait((entered, self._running), return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            await self.leave()
            raise
        finally:
            entered.cancel()
        if not self._entered.is_set():
            await self.leave()
            raise self._failure or SoftlanError("the session ended before the room was entered")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave."""
        await self.leave()

    async def leave(self) -> None:
        """Say goodbye and end; `frames` ends too. Leaving twice does no harm."""
        running = self._running
        if running is None or self._inner is None:
            return
        self._inner.stop()
        await asyncio.wait((running,))
        if not running.cancelled() and (fault := running.exception()) is not None:
            raise fault

    async def _run(self, inner: RelaySession) -> None:
        try:
            await inner.run()
        except SoftlanError as error:
            self._failure = error
        finally:
            self._device.close()
            if self._bridge is not None:
                self._bridge.close()
            self._peers.clear()

    # What there is to see ---------------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether there is a connection to the relay now. What is sent while there is none is dropped and counted, as on any LAN."""
        return self._inner is not None and self._inner.connection is not None

    @property
    def peer_id(self) -> int | None:
        """The id this session has in the room; None before it is entered. It may be another after a reconnect."""
        welcome = self._welcome
        return None if welcome is None else welcome.peer_id

    @property
    def mtu(self) -> int:
        """The room's IP MTU in bytes: the largest payload behind the 14 bytes of Ethernet header that travels in one piece."""
        welcome = self._welcome
        if welcome is None:
            raise RuntimeError("the room has not been entered yet")
        return welcome.tap_mtu

    @property
    def _welcome(self) -> Welcome | None:
        return None if self._inner is None else self._inner.welcome

    @property
    def peers(self) -> tuple[Peer, ...]:
        """The others in the room now, by peer id."""
        return tuple(peer for _, peer in sorted(self._peers.items()))

    @property
    def lost(self) -> int:
        """Frames that came while `queue` frames were waiting to be read, and so were dropped."""
        return self.counters().get("drop_port_full", 0)

    def counters(self) -> dict[str, int]:
        """Give the tunnel counters (docs/architecture.md), over all connections; none before the room is entered."""
        return {} if self._bridge is None else self._bridge.counters()

    # Frames -----------------------------------------------------------------------------------------------------------

    async def send(self, frame: bytes) -> None:
        """Send one Ethernet frame, without FCS; waits while `queue` frames wait already.

        Raises:
            ValueError: fewer than 14 bytes, or more than 9216.
            SoftlanError: the session has ended; the reason, if there was one.

        """
        if self._bridge is None:
            raise RuntimeError("frames can be sent inside `async with` only")
        try:
            if not self._device.offer(frame):
                await self._device.send(frame)
        except CoreError as error:
            raise self._failure or SoftlanError("the session has ended") from error

    async def batches(self) -> AsyncIterator[list[bytes]]:
        """Give the frames that came since the last batch, one at least, 256 at most; see `frames`."""
        while await self._are_there_frames():
            yield [self._ahead.popleft() for _ in range(min(len(self._ahead), _BATCH))]

    async def frames(self) -> AsyncIterator[bytes]:
        """Give each frame as it comes, until the session is left. Of several readers, or one that begins anew, each gets a part.

        Raises:
            SoftlanError: the session has ended for good, and why (the relay said no to coming back).

        """
        while self._ahead or await self._are_there_frames():
            yield self._ahead.popleft()

    async def _are_there_frames(self) -> bool:
        """Wait until frames are `_ahead`; there are none at the end. Raises SoftlanError: why it is the end."""
        if not self._ahead:
            self._ahead.extend(await self._device.receive())
        if not self._ahead and self._failure is not None:
            raise self._failure
        return bool(self._ahead)


class _Handler:
    """What the inner session tells, on its way to a `Session`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def joined(self, connection: Connection, welcome: Welcome) -> None:
        """Carry frames over this connection."""
        session = self._session
        assert session._inner is not None
        if session._bridge is None:
            session._bridge = Bridge.start(
                session._inner.endpoint, session._device, FrameLog(), loopback=session.mac
            )
        session._bridge.attach(connection, welcome.peer_id, storm_limit=welcome.storm_limit)
        session._peers = {peer.peer_id: _peer(peer) for peer in welcome.room.peers}
        session._entered.set()

    def lost(self) -> None:
        """Carry none."""
        if self._session._bridge is not None:
            self._session._bridge.detach()
        self._session._peers.clear()

    def peer_joined(self, peer: PeerJoined) -> None:
        """Take note of one more."""
        self._session._peers[peer.peer_id] = _peer(peer)

    def peer_left(self, peer: PeerLeft) -> None:
        """Take note of one less."""
        self._session._peers.pop(peer.peer_id, None)

    def counters(self) -> dict[str, int]:
        """The tunnel counters."""
        return self._session.counters()


def _peer(told: PeerFacts | PeerJoined) -> Peer:
    return Peer(told.peer_id, told.role, told.mac)


def _trust(certificate: str | os.PathLike[str] | bytes | None) -> Callable[[], list[bytes]]:
    if certificate is None:
        return system_trusted_certificates
    if isinstance(certificate, bytes):
        found = read_trusted_certificates(certificate, "the certificate given")
        return lambda: found
    read = functools.partial(load_trusted_certificates, Path(certificate))
    read()  # so that a wrong file is named before anything else happens
    return read
