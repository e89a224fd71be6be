"""The relay at work: accepts connections, has them admitted, tells peers of each other, and keeps the books.

Decisions are `rooms.py`'s; frames move in `softlan._core`. Everything here runs on one asyncio loop, so that what it does
between two awaits needs no lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import msgspec

from softlan._core import (
    Connection,
    CoreError,
    Endpoint,
    FrameLog,
    PluggedPeer,
    Room,
    TransportSettings,
)
from softlan.config import Congestion, HostPort
from softlan.control.channel import ControlChannel
from softlan.control.codes import Code, Retry
from softlan.control.messages import (
    Disconnect,
    GoingDown,
    Hello,
    Reject,
    Stats,
    decode_from_peer,
    decode_hello,
    reject_for,
)
from softlan.control.stream import LENGTH_SIZE
from softlan.errors import ConfigError, RemoteProtocolError, SoftlanError
from softlan.observe.counters import Change, Reading, known_counters
from softlan.observe.events import Event
from softlan.observe.frames import follow_frame_log
from softlan.observe.logs import log_event, tell_plain_socket
from softlan.relay.certificates import ServerCertificate, watch_expiry
from softlan.relay.gate import Gate, GateLimits
from softlan.relay.ledger import Ledger, Numbers
from softlan.relay.notices import put_into_words
from softlan.relay.rooms import Admission, Member, Place, Rejection, RoomPolicy, Rooms
from softlan.relay.rules import OPEN_RULES, Rules
from softlan.relay.state import RelayState
from softlan.texts import several

__all__ = ["Relay", "RelayConfig"]

logger = logging.getLogger(__name__)

_GOING = "the relay is stopping or restarting"

_FAREWELL_S = 0.6
"""How long peers have to take the relay's last message, which says when and where to come back; well within the grace of `parts`."""

_COMES_BACK_S = 30.0
"""How long a relay that drains waits for whoever lost the connection: ten times as long as a peer's attempt to come back takes."""

_REJECT_LINGER_S = 1.0
"""How long a rejected peer has to take its reject before the connection is closed."""

_HEALTHY_WITHIN_S = 1.0
"""How soon a data plane that is well does an errand, however busy it is."""

GATEWAY_STORM = 4
"""A LAN says more than a player: hundreds of machines look for names and addresses."""

ROOM_STORM = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayConfig:
    """How a relay behaves. `listen` is `IP:PORT`; limits are in bits per second, None is no limit.

    `limit_storm` is in broadcasts and multicasts per second of each client; a gateway may have `GATEWAY_STORM` times as many, all of
    a room together `ROOM_STORM` times; when that is used up each peer still has a twentieth of its own number.
    `back_in_s` and `successor` are told to peers in the end: when this relay is back, and which takes its place meanwhile.
    """

    listen: str
    policy: RoomPolicy = field(default_factory=RoomPolicy)
    idle_timeout_s: float = 2.5
    congestion: Congestion = "calm"
    max_udp_payload: int = 1472
    admission_timeout_s: float = 5.0
    limit_total: int | None = None
    limit_broadcast: int | None = None
    limit_unknown: int | None = None
    limit_storm: int | None = None
    malformed_limit: int = 64
    filters_off: tuple[str, ...] = ()
    frame_log: str = "off"
    frame_log_sample: int = 100
    stats_interval_s: float = 10.0
    summary_interval_s: float = 60.0
    back_in_s: float | None = None
    successor: HostPort | None = None
    gate: GateLimits = field(default_factory=GateLimits)


@dataclass(slots=True)
class _Peer:
    """One admitted connection."""

    member: Member[int]
    channel: ControlChannel
    plugged: PluggedPeer
    since: float
    leave_code: Code | None = None
    retired: bool = False
    reported: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Switch:
    """What moves the frames of a room that somebody is in, and what it finds wrong at present."""

    core: Room
    troubles: dict[tuple[str, tuple[int, ...]], str] = field(default_factory=dict)
    watch: asyncio.Task[None] | None = None


class Relay:
    """A running relay, from `start` to `close`."""

    def __init__(
        self,
        config: RelayConfig,
        endpoint: Endpoint,
        certificate: ServerCertificate,
        rules: Rules = OPEN_RULES,
        state: RelayState | None = None,
    ) -> None:
        self.config = config
        self.certificate = certificate
        """What new connections are shown."""
        self.gate = Gate(config.gate, rules, state)
        self._endpoint = endpoint
        self._rooms: Rooms[int] = Rooms(config.policy)
        self._switches: dict[str, _Switch] = {}
        self._peers: dict[int, _Peer] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._frame_log = FrameLog(config.frame_log, sample=config.frame_log_sample)
        self._ledger = Ledger(config.policy.allowed_rooms or ())
        self._closing = False
        self._going = False
        self._down_at = 0.0
        self._awaited: dict[Place, float] = {}
        """Who lost the connection while the relay drains, and until when it is waited for."""
        self._somebody_left = asyncio.Event()

    @classmethod
    def start(
        cls,
        config: RelayConfig,
        certificate: ServerCertificate,
        rules: Rules = OPEN_RULES,
        state: RelayState | None = None,
    ) -> Relay:
        """Bind the socket and begin to answer.

        Raises:
            ConfigError: the address cannot be had, or a setting is out of range.

        """
        try:
            transport = TransportSettings(
                idle_timeout=config.idle_timeout_s,
                max_udp_payload=config.max_udp_payload,
                congestion=config.congestion,
            )
            endpoint = Endpoint.server(config.listen, list(certificate.chain), certificate.key, transport)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        except CoreError as error:
            raise SoftlanError(
                f"cannot listen on {config.listen}/udp: {error.args[1]}",
                hint=_listen_hint(str(error.args[1])),
            ) from error
        return cls(config, endpoint, certificate, rules, state)

    @property
    def frame_log(self) -> FrameLog:
        """The log of all rooms' frames."""
        return self._frame_log

    @property
    def local_address(self) -> str:
        """The bound `IP:PORT`."""
        return self._endpoint.local_address

    def replace_certificate(self, certificate: ServerCertificate) -> None:
        """Show another certificate to new connections; the present ones stay.

        Raises:
            ConfigError: chain and key cannot be used; the former certificate stays.

        """
        try:
            self._endpoint.replace_certificate(list(certificate.chain), certificate.key)
        except CoreError as error:
            raise ConfigError(str(error.args[1])) from error
        self.certificate = certificate

    def replace_rules(self, rules: Rules) -> None:
        """Hold hellos to other rules from now on; peers that are in stay in."""
        self.gate.replace_rules(rules)
        self._spawn(self.gate.prepare())

    async def serve(self) -> None:
        """Accept and serve peers until `close`."""
        tell_plain_socket(logger, self._endpoint.plain_because)
        self._spawn(self._keep_books())
        self._spawn(self.gate.prepare())
        self._spawn(watch_expiry(lambda: self.certificate))
        if self.config.frame_log != "off":
            self._spawn(follow_frame_log(logger, self._frame_log, has_rooms=True))
        while (connection := await self._endpoint.accept()) is not None:
            self._receive(connection)

    @property
    def peer_count(self) -> int:
        """The number of peers in all rooms."""
        return self._rooms.peer_count

    @property
    def room_count(self) -> int:
        """The number of rooms that somebody is in."""
        return len(self._rooms)

    async def answers(self, timeout_s: float) -> bool:
        """Say whether the data plane does its work."""
        return await self._endpoint.answers(timeout=timeout_s)

    async def drain(self, seconds: float) -> None:
        """Let nobody new in, tell every peer that the relay goes down in `seconds`, and wait that long or until all have left.

        Who is in a room now and loses the connection is let in again, and waited for a while when nobody else is left.
        """
        self._going = True
        self._down_at = time.monotonic() + seconds
        self._rooms.keep_places()
        for peer in self._peers.values():
            peer.channel.post(self._going_down(seconds))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._until_all_have_left()

    def _going_down(self, in_s: float) -> GoingDown:
        return GoingDown(reason=_GOING, in_s=round(in_s, 3), relay=self._successor)

    async def _until_all_have_left(self) -> None:
        while True:
            patience = None
            if not self._peers:
                patience = max(self._awaited.values(), default=0.0) - time.monotonic()
                if patience <= 0:
                    return
            self._somebody_left.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._somebody_left.wait()

    async def close(self) -> None:
        """Tell every peer, close every connection and give up the socket."""
        if self._closing:
            return
        self._closing = True
        farewell = Disconnect(
            code=Code.SHUTTING_DOWN,
            reason=_GOING,
            back_in_s=self.config.back_in_s,
            relay=self._successor,
        )
        for peer in self._peers.values():
            peer.channel.post(farewell)
        await asyncio.gather(*(peer.channel.finish(timeout_s=_FAREWELL_S) for peer in self._peers.values()))
        await self._endpoint.close(Code.SHUTTING_DOWN.number, farewell.reason)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._endpoint.stop()

    @property
    def _successor(self) -> str | None:
        """What peers are told of the relay that takes this one's place."""
        return None if self.config.successor is None else str(self.config.successor)

    def snapshot(self) -> dict[str, Any]:
        """What `softlan status` shows: rooms, peers and their counters."""
        rooms = []
        for room in self._rooms:
            peers = [self._peers[c] for c in room.members if c in self._peers]
            switch = self._switches.get(room.code)
            rooms.append(
                {
                    "code": room.code,
                    "tap_mtu": room.tap_mtu,
                    "gateway": room.gateway is not None,
                    "troubles": [] if switch is None else list(switch.troubles.values()),
                    "peers": [self._peer_snapshot(peer) for peer in peers],
                }
            )
        return {
            "listen": self.local_address,
            "peer_count": self._rooms.peer_count,
            "rooms": rooms,
            "handshakes": self._endpoint.handshakes(),
            **self.gate.snapshot(),
        }

    def numbers(self) -> Numbers:
        """What metrics tell: counters by room that never go back, and how many are there now."""
        numbers = self._ledger.open(self.gate.turned_away, self._endpoint.handshakes())
        numbers.certificate_not_after = self.certificate.not_after.timestamp()
        for room in self._rooms:
            numbers.rooms[self._ledger.name(room.code)].rooms += 1
        for peer in self._peers.values():
            told = numbers.rooms[self._ledger.name(peer.member.room)]
            told.roles[peer.member.role.value] += 1
            told.rtts_s.append(peer.channel.connection.rtt)
            if not peer.retired:  # whose counters are in the ledger already
                told.counters.update(peer.plugged.counters())
        return numbers

    async def healthy(self) -> bool:
        """Whether it takes new peers, and its data plane does its work."""
        return not (self._closing or self._going) and await self.answers(_HEALTHY_WITHIN_S)

    def _peer_snapshot(self, peer: _Peer) -> dict[str, Any]:
        member, connection = peer.member, peer.channel.connection
        return {
            "peer_id": member.peer_id,
            "role": member.role.value,
            "mac": None if member.mac is None else str(member.mac),
            "address": connection.remote_address,
            "came_from": connection.proven_address,
            "software": member.software,
            "rtt_ms": round(connection.rtt * 1000, 3),
            "datagram_budget": connection.max_datagram_size,
            "connected_s": round(time.monotonic() - peer.since, 3),
            "counters": peer.plugged.counters(),
            "reported": peer.reported,
        }

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log_event(logger, Event.FAULT, f"a task of the relay failed: {error}", exc_info=error)

    # One peer, from handshake to goodbye ------------------------------------------------------------------------------

    def _receive(self, connection: Connection) -> None:
        """Serve a new connection, unless there are too many."""
        if self._closing:
            connection.close(Code.SHUTTING_DOWN.number, _GOING)
            return
        address = connection.proven_address
        line = self.gate.enter(address)
        if line is None:
            self._send_off(connection)
            return
        sent_away = self.gate.await_hello(line, connection)
        if sent_away is not connection:
            self._spawn(self._serve_peer(connection, line))
        else:
            self.gate.leave(line)
        if sent_away is not None:
            self._send_off(sent_away)

    def _send_off(self, connection: Connection) -> None:
        """Close a connection that is one too many."""
        address = connection.proven_address
        code = Code.TOO_MANY_CONNECTIONS
        self.gate.turned_away[code] += 1
        log_event(
            logger,
            Event.CONNECTION_FAILED,
            f"{address} was sent away: {code.meaning}",
            address=address,
            code=code,
        )
        connection.close(code.number, code.meaning)

    async def _serve_peer(self, connection: Connection, line: str) -> None:
        channel = ControlChannel(connection)
        channel.start()
        peer: _Peer | None = None
        try:
            peer = await self._admit(connection, channel, line)
            if peer is not None:
                await self._listen_to(peer)
        except Exception as error:  # one peer's trouble must never become another's
            log_event(logger, Event.FAULT, f"serving {connection.proven_address}: {error}", exc_info=error)
            connection.close(Code.INTERNAL_ERROR.number, Code.INTERNAL_ERROR.meaning)
        finally:
            if peer is not None:
                self._take_leave(peer, peer.leave_code or Code.CONNECTION_LOST)
            self.gate.turn_away(connection)
            await channel.finish(timeout_s=0.1)
            # Whoever came in the relay's last moment comes back; a goodbye would be for good.
            code = Code.SHUTTING_DOWN if self._closing else Code.GOODBYE
            connection.close(code.number, _GOING if self._closing else "")
            self.gate.leave(line)

    async def _admit(self, connection: Connection, channel: ControlChannel, line: str) -> _Peer | None:
        """Wait for the hello and judge it; None when the peer was sent away."""
        address = connection.proven_address
        try:
            async with asyncio.timeout(self.config.admission_timeout_s):
                await connection.accept_control()
                body = await channel.receive()
            if body is None:
                log_event(
                    logger, Event.CONNECTION_FAILED, f"{address} left before its hello", address=address
                )
                return None
            hello = decode_hello(body)
            refusal = await self.gate.judge(
                hello,
                connection,
                lambda: self._rooms.refusal(hello, **self._bounds(hello)) is None,
                comes_back=self._rooms.comes_back(hello),
            )
        except TimeoutError:
            reason = f"no hello within {self.config.admission_timeout_s:g} s"
            await self._reject(channel, Reject(code=Code.HELLO_TIMEOUT, reason=reason))
            return None
        except RemoteProtocolError as error:
            await self._reject(channel, reject_for(error))
            return None
        except CoreError as error:
            log_event(
                logger,
                Event.CONNECTION_FAILED,
                f"{address} left before its hello: {error.args[1]}",
                address=address,
            )
            return None
        finally:
            self.gate.heard_hello(line, connection)
        if refusal is not None:
            await self._reject(channel, refusal, hello)
            return None
        if connection.max_datagram_size is None:
            reason = "this peer does not take QUIC datagrams (RFC 9221), in which frames travel"
            await self._reject(channel, Reject(code=Code.PROTOCOL_ERROR, reason=reason))
            return None
        if self._closing or (self._going and not self._rooms.has_kept_place(hello)):
            going = Reject(
                code=Code.SHUTTING_DOWN,
                reason=_GOING,
                back_in_s=self.config.back_in_s,
                relay=self._successor,
            )
            await self._reject(channel, going)
            return None
        if connection.ended:
            # Its peer is gone, or tries anew: it must not take the place of that.
            log_event(
                logger, Event.CONNECTION_FAILED, f"{address} left before it was let in", address=address
            )
            return None
        match self._rooms.admit(hello, connection.id, **self._bounds(hello)):
            case Rejection(message):
                await self._reject(channel, message, hello)
                return None
            case admission:
                try:
                    peer = self._welcome(admission, hello, channel)
                    self.gate.let_in(hello)
                    return peer
                except BaseException:
                    # Without this its place would be taken for good.
                    if (half_in := self._peers.get(connection.id)) is not None:
                        self._take_leave(half_in, Code.INTERNAL_ERROR)
                    else:
                        self._vacate(connection.id, Code.INTERNAL_ERROR)
                    raise

    def _bounds(self, hello: Hello) -> dict[str, Any]:
        """What holds for a hello's room beside what `rooms.py` knows itself."""
        switch = self._switches.get(hello.room)
        mac_is_on_lan = switch is not None and hello.mac is not None and switch.core.is_on_lan(hello.mac)
        return {"max_peers": self.gate.rules.of(hello.room).max_peers, "mac_is_on_lan": mac_is_on_lan}

    async def _reject(self, channel: ControlChannel, message: Reject, hello: Hello | None = None) -> None:
        connection = channel.connection
        # Before the peer hears of it, so that it may come with the same invite and something else changed.
        self.gate.turn_away(connection)
        self.gate.turned_away[message.code] += 1
        log_event(
            logger,
            Event.HELLO_REJECTED,
            f"rejected {connection.proven_address}: {message.reason}",
            address=connection.proven_address,
            code=message.code,
            field=message.field,
            room=None if hello is None else hello.room,
            mac=None if hello is None else hello.mac,
        )
        channel.post(message)
        await channel.finish(timeout_s=_REJECT_LINGER_S)
        connection.close(message.code.number, message.reason)

    def _welcome(self, admission: Admission[int], hello: Hello, channel: ControlChannel) -> _Peer:
        """Plug an admitted peer in and tell everybody. No awaits: peers hear of changes in the order they happen."""
        connection = channel.connection
        if admission.replaces is not None:
            self._replace(admission)
        if admission.room_is_new:
            self._open_room(admission.room)
            log_event(
                logger,
                Event.ROOM_OPENED,
                f"room {admission.room} opened with MTU {admission.tap_mtu}",
                room=admission.room,
                tap_mtu=admission.tap_mtu,
            )
        member = self._rooms.member(connection.id)
        assert member is not None
        config = self.config
        limits = {
            "limit_total": config.limit_total,
            "limit_broadcast": config.limit_broadcast,
            "limit_unknown": config.limit_unknown,
            **self.gate.rules.of(admission.room).limits,
        }
        # A gateway speaks for a whole LAN, whose owner runs it; the limits are for players.
        storm_limit = _times(config.limit_storm, 1 if hello.mac else GATEWAY_STORM)
        plugged = self._switches[admission.room].core.plug(
            connection,
            admission.peer_id,
            mac=hello.mac,
            takes_fragments=hello.fragments,
            limit_storm=storm_limit,
            **(limits if hello.mac else {}),
            malformed_limit=config.malformed_limit,
            malformed_code=Code.MALFORMED_DATAGRAMS.number,
            malformed_reason=Code.MALFORMED_DATAGRAMS.meaning,
        )
        peer = _Peer(member, channel, plugged, time.monotonic())
        self._peers[connection.id] = peer
        self._ledger.admitted += 1
        self._ledger.name(admission.room)
        channel.post(msgspec.structs.replace(admission.welcome, storm_limit=storm_limit))
        self._awaited.pop(member.place, None)
        if self._going:
            channel.post(self._going_down(max(0.0, self._down_at - time.monotonic())))
        for other in admission.notify:
            self._peers[other].channel.post(admission.peer_joined)
        log_event(
            logger,
            Event.PEER_JOINED,
            f"{member.role.value} {member.peer_id} joined room {member.room} from {connection.proven_address}",
            room=member.room,
            peer_id=member.peer_id,
            role=member.role,
            mac=member.mac,
            address=connection.proven_address,
            budget=hello.datagram_budget,
            software=hello.software,
        )
        return peer

    def _replace(self, admission: Admission[int]) -> None:
        """End the former connection of a peer that came back; the rooms have let go of it already."""
        assert admission.replaces is not None
        former = self._peers.pop(admission.replaces)
        self._unplug(former)
        former.leave_code = Code.REPLACED
        former.channel.connection.close(Code.REPLACED.number, Code.REPLACED.meaning)
        if admission.peer_left is not None:
            for other in admission.notify:
                self._peers[other].channel.post(admission.peer_left)
        log_event(
            logger,
            Event.PEER_REPLACED,
            f"{former.member.role.value} {former.member.peer_id} of room {admission.room} came back on a new connection",
            room=admission.room,
            peer_id=former.member.peer_id,
        )

    async def _listen_to(self, peer: _Peer) -> None:
        """Read what an admitted peer says until it leaves; settles why it left."""
        channel = peer.channel
        talk = self.gate.talk()
        try:
            while (body := await channel.receive()) is not None:
                if not talk.allows(LENGTH_SIZE + len(body), time.monotonic()):
                    raise RemoteProtocolError(Code.CONTROL_FLOOD.meaning, code=Code.CONTROL_FLOOD)
                match decode_from_peer(body):
                    case Stats(counters=counters):
                        peer.reported = known_counters(counters)
                        log_event(
                            logger,
                            Event.PEER_STATS,
                            f"stats of peer {peer.member.peer_id}",
                            room=peer.member.room,
                            peer_id=peer.member.peer_id,
                            **peer.reported,
                        )
                    case Disconnect(code=code):
                        peer.leave_code = peer.leave_code or code
                        return
                    case None:
                        pass
        except RemoteProtocolError as error:
            peer.leave_code = peer.leave_code or error.code
            self._tell_misbehaviour(peer, error.code, str(error))
            channel.post(Disconnect(code=error.code, reason=str(error)))
            await channel.finish(timeout_s=_REJECT_LINGER_S)
            channel.connection.close(error.code.number, str(error))
            return
        closed = await channel.connection.closed()
        if peer.leave_code is None:
            peer.leave_code = self._why_closed(closed.kind, closed.code, peer)

    def _why_closed(self, kind: str, code: int | None, peer: _Peer) -> Code:
        if kind == "peer" and code is not None:
            return Code.from_number(code)
        if self._closing:
            return Code.SHUTTING_DOWN
        if peer.channel.overflowed:
            self._tell_misbehaviour(peer, Code.SLOW_READER, Code.SLOW_READER.meaning)
            return Code.SLOW_READER
        # The data plane closes connections by itself for one reason.
        if kind == "local" and peer.plugged.counters()["drop_malformed"] >= self.config.malformed_limit:
            self._tell_misbehaviour(peer, Code.MALFORMED_DATAGRAMS, Code.MALFORMED_DATAGRAMS.meaning)
            return Code.MALFORMED_DATAGRAMS
        return Code.PROTOCOL_ERROR if kind == "local" else Code.CONNECTION_LOST

    def _tell_misbehaviour(self, peer: _Peer, code: Code, what: str) -> None:
        address = peer.channel.connection.proven_address
        self.gate.misbehaved(address, code)
        log_event(
            logger,
            Event.PEER_MISBEHAVED,
            f"peer {peer.member.peer_id} of room {peer.member.room} is disconnected: {what}",
            room=peer.member.room,
            peer_id=peer.member.peer_id,
            address=address,
            code=code,
        )

    def _take_leave(self, peer: _Peer, code: Code) -> None:
        connection_id = peer.channel.connection.id
        self._unplug(peer)
        if self._peers.get(connection_id) is peer:
            del self._peers[connection_id]
        # What ended it is nothing that ends a session: it comes back.
        if self._going and code.retry is Retry.LATER and peer.member.resume is not None:
            self._awaited[peer.member.place] = time.monotonic() + _COMES_BACK_S
        self._somebody_left.set()
        self._vacate(connection_id, code, peer)

    def _vacate(self, connection_id: int, code: Code, peer: _Peer | None = None) -> None:
        """Give a member's place up and tell the others; `peer` is None when it never was quite in."""
        departure = self._rooms.leave(connection_id, code)
        if departure is None:
            return
        for other in departure.notify:
            self._peers[other].channel.post(departure.peer_left)
        if peer is not None:
            log_event(
                logger,
                Event.PEER_LEFT,
                f"{peer.member.role.value} {peer.member.peer_id} left room {departure.room}: {code.meaning}",
                room=departure.room,
                peer_id=peer.member.peer_id,
                code=code,
                **{name: value for name, value in peer.plugged.counters().items() if value},
            )
        if departure.room_is_empty:
            self._close_room(departure.room)

    def _unplug(self, peer: _Peer) -> None:
        """Let no more frames go there, and keep what was counted. Once."""
        if not peer.retired:
            peer.retired = True
            peer.plugged.unplug()
            self._ledger.retire(peer.member.room, peer.plugged.counters())

    # What the switches tell -------------------------------------------------------------------------------------------

    def _open_room(self, code: str) -> None:
        core = Room(
            code,
            self._frame_log,
            filters_off=list(self.config.filters_off),
            limit_storm=_times(self.config.limit_storm, ROOM_STORM),
        )
        switch = self._switches[code] = _Switch(core)
        switch.watch = self._spawn(self._watch_room(code, switch))

    def _close_room(self, code: str) -> None:
        # One that could not be opened has no switch.
        switch = self._switches.pop(code, None)
        if switch is not None and switch.watch is not None:
            switch.watch.cancel()
        log_event(logger, Event.ROOM_CLOSED, f"room {code} is empty and closed", room=code)

    async def _watch_room(self, code: str, switch: _Switch) -> None:
        """Log what the room's switch finds wrong, and tell the peers concerned."""
        while True:
            events = await switch.core.next_events()
            here = {p.member.peer_id: p for p in self._peers.values() if p.member.room == code}
            for event in events:
                trouble = put_into_words(event, {peer: here[peer].member.facts for peer in here})
                log_event(
                    logger,
                    trouble.event,
                    f"room {code}: {trouble.notice.reason}",
                    room=code,
                    topic=trouble.notice.topic,
                    peers=list(trouble.notice.peers),
                    **({} if trouble.hint is None else {"hint": trouble.hint}),
                )
                if trouble.notice.over:
                    switch.troubles.pop(trouble.key, None)
                else:
                    switch.troubles[trouble.key] = trouble.notice.reason
                for peer in trouble.tell:
                    if peer in here:
                        here[peer].channel.post(trouble.notice)

    # By hand ----------------------------------------------------------------------------------------------------------

    def peers(self) -> list[tuple[Member[int], str, str]]:
        """List who is in, each with its `IP:PORT` now and the one it came from, which is proven."""
        return [
            (peer.member, peer.channel.connection.remote_address, peer.channel.connection.proven_address)
            for peer in self._peers.values()
        ]

    def send_away(self, member: Member[int], code: Code, reason: str) -> None:
        """End one peer's session on the operator's word; it is off the switch at once."""
        peer = self._peers.get(member.connection)
        if peer is None or peer.leave_code is not None:
            return
        peer.leave_code = code
        self._unplug(peer)
        self.gate.turned_away[code] += 1
        peer.channel.post(Disconnect(code=code, reason=reason))
        self._spawn(self._show_out(peer, code, reason))

    async def _show_out(self, peer: _Peer, code: Code, reason: str) -> None:
        await peer.channel.finish(timeout_s=_REJECT_LINGER_S)
        peer.channel.connection.close(code.number, reason)

    # Books ------------------------------------------------------------------------------------------------------------

    async def _keep_books(self) -> None:
        """Send every peer the relay's counters of it, and log one line a summary interval."""
        interval = self.config.stats_interval_s
        last_summary = time.monotonic()
        before: Reading | None = None
        while True:
            await asyncio.sleep(interval)
            for peer in self._peers.values():
                peer.channel.post(Stats(counters=peer.plugged.counters(), interval_s=interval))
            now = time.monotonic()
            if now - last_summary >= self.config.summary_interval_s - interval / 2:
                last_summary = now
                reading = Reading(now, self._totals())
                if before is not None and self._peers:
                    change = Change.between(before, reading)
                    log_event(
                        logger,
                        Event.COUNTERS_SUMMARY,
                        f"{several(len(self._peers), 'peer')} in {several(len(self._rooms), 'room')}: {change.summary()}",
                    )
                before = reading

    def _totals(self) -> dict[str, int]:
        """Count since the relay started, so that a line about a minute holds what peers did that have left."""
        totals: Counter[str] = Counter()
        for room in self.numbers().rooms.values():
            totals.update(room.counters)
        return dict(totals)


def _times(limit: int | None, factor: int) -> int | None:
    return None if limit is None else limit * factor


def _listen_hint(message: str) -> str | None:
    text = message.lower()
    if "in use" in text:
        return "another program has that UDP port: stop it, or choose another with --listen"
    if "permission" in text or "denied" in text:
        return "ports below 1024 need root or CAP_NET_BIND_SERVICE: try --listen 4433/udp"
    if "assign" in text:
        return "the address is not one of this machine's"
    return None
