"""A peer's session with its relay: connect, be admitted, stay, and come back when the connection is lost.

Clients and gateways share it: they differ in the hello they send and in what they do with a connection once it is there
(`SessionHandler`). The first connection either succeeds or says why not; after that the session comes back by itself for as
long as it takes, unless the relay says that it is not wanted.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import platform
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from softlan import __version__
from softlan._core import CloseReason, Connection, CoreError, Endpoint, Mac, TransportSettings
from softlan.client.barred import barred
from softlan.client.lookup import AddressBook
from softlan.config import Congestion, HostPort, parse_host_port
from softlan.control.channel import ControlChannel
from softlan.control.codes import Code, Retry
from softlan.control.keys import Claim, RoomKey
from softlan.control.messages import (
    PROTOCOL,
    Disconnect,
    GoingDown,
    Hello,
    Notice,
    PeerJoined,
    PeerLeft,
    Reject,
    Role,
    Stats,
    Welcome,
    decode_answer,
    decode_from_relay,
)
from softlan.errors import (
    ConfigError,
    InterfaceError,
    PrivilegeError,
    RejectedError,
    RelayUnreachableError,
    RemoteProtocolError,
    SoftlanError,
    TrustError,
    TrustFault,
)
from softlan.observe import status
from softlan.observe.counters import known_counters
from softlan.observe.events import Event
from softlan.observe.logs import log_event, tell_plain_socket

__all__ = ["RelaySession", "SessionConfig", "SessionHandler", "explain_failure"]

logger = logging.getLogger(__name__)

_FIRST_CONNECT_S = 6.0
_RECONNECT_S = 3.0
_STAGGER_S = 0.7
"""Between attempts to connect that run beside each other."""

_WELCOME_S = 10.0
_BUDGET_S = 1.0
"""How long path MTU discovery may take before the hello goes out with what is known by then."""

_MAX_NOTICES = 32
"""Notices kept for `softlan status`."""

_SILENCE_S = 1.0
"""Two keep-alives without an answer: time to try a second connection."""

_ANSWER_S = 0.1
"""How long the silent connection has to answer once a second one has found the relay; three round trips where those are longer."""

_MAX_AWAY_S = 600.0
"""A relay that says it will be away for longer is asked again after this long all the same."""

_ELSEWHERE_ATTEMPTS = 3
"""How often another relay is tried that the former named, before the one that was given is asked again."""

_BACKOFF_S = (0.1, 0.2, 0.4, 0.8)
"""Pauses between attempts, the last one from then on, each shortened by up to half so that a party does not come back in step. A relay
that returns is found within about two seconds; an Initial a second is nothing to it."""

_BRIEF_S = 5.0
"""A stay in the room that was over sooner was none: what ended it is likely to end the next one too, and all who are there are told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionConfig:
    """What to join, and how.

    `trusted` is asked before each attempt, so that a renewed certificate file is read again; `pinned` says that it is the
    relay's own certificate and not the system's authorities. With `pins`, SHA-256 of public keys, certificates and the name do not matter.
    `name` is what the relay's operator sees this peer called.
    """

    relay: HostPort
    server_name: str
    trusted: Callable[[], list[bytes]]
    room: str
    role: Role
    mac: Mac | None
    resume: str
    pinned: bool = True
    pins: tuple[bytes, ...] = ()
    key: RoomKey | None = None
    name: str | None = None
    keep_alive_s: float = 0.5
    idle_timeout_s: float = 2.5
    max_udp_payload: int = 1472
    congestion: Congestion = "calm"
    stats_interval_s: float = 10.0


@dataclass(frozen=True, slots=True)
class _Joined:
    """A connection over which a room was entered."""

    channel: ControlChannel
    welcome: Welcome


@dataclass(slots=True)
class _Beside:
    """What a second connection, which is tried beside a silent one, has to do with that."""

    former: Connection
    asked: bool = False
    """Whether the relay was asked in over the second one: from then on it may have the former one's place."""

    joining: asyncio.Task[_Joined] = field(init=False)
    _taken: bool = False

    def take(self) -> _Joined | None:
        """Give the second one once it has come about, for good; None when it has not, or not yet."""
        joining = self.joining
        self._taken = joining.done() and not joining.cancelled() and joining.exception() is None
        return joining.result() if self._taken else None

    def let_go(self) -> None:
        """Close one that came about after all, and that nobody has taken."""
        if not self._taken and (unused := self.take()) is not None:
            unused.channel.abandon()
            unused.channel.connection.close(Code.GOODBYE.number, "")


class SessionHandler(Protocol):
    """What a part does with its session. Called on the event loop; errors raised from `joined` end the session."""

    def joined(self, connection: Connection, welcome: Welcome) -> None:
        """The room is entered, for the first time or again: frames may flow over `connection`."""

    def lost(self) -> None:
        """The connection is gone."""

    def peer_joined(self, peer: PeerJoined) -> None:
        """Somebody else entered the room."""

    def peer_left(self, peer: PeerLeft) -> None:
        """Somebody else left the room."""

    def counters(self) -> dict[str, int]:
        """The tunnel counters, for `stats`."""


class RelaySession:
    """One peer's session; `run` it, `stop` it."""

    def __init__(self, config: SessionConfig, handler: SessionHandler) -> None:
        self.config = config
        self.connection: Connection | None = None
        self.welcome: Welcome | None = None
        self.relay_counters: dict[str, int] = {}
        self.joins = 0
        self.notices: dict[tuple[str, tuple[int, ...]], str] = {}
        """What the relay says is wrong now, by topic and peers."""

        self.entered = asyncio.Event()
        """Set once the room has been entered for the first time."""
        self._handler = handler
        self._book = AddressBook()
        self._away_s = 0.0
        self._entered_s = 0.0
        self._elsewhere: HostPort | None = None
        self._heir: HostPort | None = None
        """Who was named to take the relay's place, as long as that one has not been entered again."""

        self._chances = 0
        self._refused_by: HostPort | None = None
        self._stopping = asyncio.Event()
        self._secret: bytes | None = None
        transport = TransportSettings(
            idle_timeout=config.idle_timeout_s,
            keep_alive=config.keep_alive_s,
            max_udp_payload=config.max_udp_payload,
            congestion=config.congestion,
        )
        try:
            self.endpoint = Endpoint.client("[::]:0", transport)
        except CoreError as error:
            raise SoftlanError(f"cannot open a UDP socket: {error.args[1]}") from error
        tell_plain_socket(logger, self.endpoint.plain_because)

    def stop(self) -> None:
        """Leave the room; `run` returns soon."""
        self._stopping.set()

    async def run(self) -> None:
        """Join and stay until `stop`, or until the handler's port has failed.

        Raises:
            RelayUnreachableError, TrustError: the first connection did not come about.
            ConfigError: nor could it, by this certificate or name.
            RejectedError: the relay said no, at first or later, in a way that trying again does not change.

        """
        attempt = brief = 0
        try:
            while not self._stopping.is_set():
                try:
                    reason = await self._connect_and_stay()
                    attempt = 0
                    brief = 0 if time.monotonic() - self._entered_s >= _BRIEF_S else brief + 1
                except SoftlanError as error:
                    if not self.joins or _is_final(error):
                        raise
                    reason = str(error)
                if self._stopping.is_set():
                    return
                step = min(attempt + brief, len(_BACKOFF_S) - 1)
                pause = _BACKOFF_S[step] * random.uniform(0.5, 1.0)  # noqa: S311
                pause, self._away_s = max(pause, self._away_s), 0.0
                attempt += 1
                state = status.Reconnecting(attempt, pause, reason)
                log_event(
                    logger, Event.SESSION_RETRY, status.say(state), attempt=attempt, delay_s=round(pause, 3)
                )
                await self._pause(pause)
        finally:
            self._book.close()
            await self._close_endpoint()

    async def _close_endpoint(self) -> None:
        await self.endpoint.close(Code.GOODBYE.number, "", timeout=0.3)
        self.endpoint.stop()

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    # One connection ---------------------------------------------------------------------------------------------------

    async def _connect_and_stay(self) -> str:
        """Connect, join, and stay until there is no connection any more; gives the reason, in words."""
        stopping = asyncio.ensure_future(self._stopping.wait())
        joining = asyncio.ensure_future(self._join())
        try:
            await asyncio.wait((stopping, joining), return_when=asyncio.FIRST_COMPLETED)
            if not joining.done():
                return "stopped"
            try:
                outcome: _Joined | str = joining.result()
            except SoftlanError as error:
                self._settle_whom_to_ask(error)
                raise
            while isinstance(outcome, _Joined):
                outcome = await self._stay(outcome, stopping)
            return outcome
        finally:
            await _cancel(stopping, joining)

    async def _join(self, beside: _Beside | None = None) -> _Joined:
        """Connect and be admitted; `beside` a connection that is silent, if that stays so."""
        key = self.config.key
        if key is not None and self._secret is None:
            # Before connecting: it takes a while, and the relay waits only so long for the hello.
            self._secret = await asyncio.to_thread(key.secret, self.config.room)
        connection = await (self._connect() if beside is None else self._connect_beside(beside))
        channel = ControlChannel(connection)
        try:
            return _Joined(channel, await self._ask_in(channel))
        except BaseException:
            # A relay that hung up or said no, or a session that ends: nothing of the attempt may stay.
            channel.abandon()
            connection.close(Code.GOODBYE.number, "")
            raise

    async def _ask_in(self, channel: ControlChannel) -> Welcome:
        """Say hello and wait for the welcome; raises when there is none."""
        connection = channel.connection
        try:
            async with asyncio.timeout(_WELCOME_S):
                body = await self._answer_to_hello(channel)
                if body is None:
                    raise await self._explain_close(connection)
            answer = decode_answer(body)
        except TimeoutError as error:
            connection.close(Code.PROTOCOL_ERROR.number, "no answer to hello")
            raise RelayUnreachableError(
                f"the relay did not answer the hello within {_WELCOME_S:g} s"
            ) from error
        except RemoteProtocolError as error:
            connection.close(error.code.number, str(error))
            raise
        if isinstance(answer, Reject):
            connection.close(Code.GOODBYE.number, "")
            raise status.rejected_error(answer)
        return answer

    async def _answer_to_hello(self, channel: ControlChannel) -> bytes | None:
        """Say hello; gives the body of the answer, None when the relay hung up before or after."""
        connection = channel.connection
        try:
            budget = await connection.settled_datagram_budget(timeout=_BUDGET_S)
            await connection.open_control()
            channel.start()
            channel.post(self._hello(connection, budget))
        except CoreError:
            return None
        return await channel.receive()

    def _hello(self, connection: Connection, budget: int) -> Hello:
        config = self.config
        proof: str | None = None
        if self._secret is not None:
            proof = Claim.over(connection, config.room, config.role, config.mac).prove(self._secret)
        return Hello(
            protocol=PROTOCOL,
            role=config.role,
            room=config.room,
            mac=config.mac,
            datagram_budget=budget,
            resume=config.resume,
            proof=proof,
            token=None if config.key is None else config.key.token,
            software=_software(config.name),
        )

    async def _connect(self) -> Connection:
        """Connect to the relay; before the first join, give up as soon as there is clearly no way to it."""
        addresses = await self._book.addresses(self.relay)
        if self.joins:
            # Who was in the room waits for its relay, whatever anybody says of the way there.
            return await self._try(addresses)
        trying = asyncio.ensure_future(self._try(list(addresses)))
        doubting = asyncio.ensure_future(barred(addresses))
        try:
            await asyncio.wait((trying, doubting), return_when=asyncio.FIRST_COMPLETED)
            if trying.done():
                return trying.result()
            found = doubting.result()
            state = status.NoWay(found.address, found.outcome, found.why)
            raise RelayUnreachableError(status.say(state), hint=status.suggest(state))
        except BaseException:
            await _abandon((trying,))
            raise
        finally:
            doubting.cancel()

    async def _connect_beside(self, beside: _Beside) -> Connection:
        """Connect while another connection is silent; raises when that one answers again before this one is of use."""
        hearing = asyncio.ensure_future(beside.former.heard(timeout=self.config.idle_timeout_s))
        try:
            connection = await self._connect()
            try:
                # The relay is there. If it knows the former connection, it answers over that one, too.
                patience = max(_ANSWER_S, 3 * connection.rtt)
                if (hearing.done() and hearing.result()) or await beside.former.heard(timeout=patience):
                    raise RelayUnreachableError("the former connection is heard again, and stays")
            except BaseException:
                connection.close(Code.GOODBYE.number, "")
                raise
        finally:
            hearing.cancel()
        beside.asked = True
        return connection

    async def _try(self, addresses: list[str]) -> Connection:
        """Try a relay's addresses until one answers or the time is over; `addresses` may grow meanwhile.

        An attempt sends its first packet again after ever longer pauses (RFC 9002 section 6.2), so that a relay that comes back in
        between would be found late. So attempts are made beside each other, a new one every `_STAGGER_S`, and the first that
        is answered is taken.
        """
        config = self.config
        limit = _RECONNECT_S if self.joins else _FIRST_CONNECT_S
        deadline = time.monotonic() + limit
        pending: dict[asyncio.Future[Connection], str] = {}
        last: CoreError | None = None
        relay, told = self.relay, set[str]()
        try:
            for turn in itertools.count():
                left = deadline - time.monotonic()
                if addresses and (left > 0 or not turn):
                    address = addresses[turn % len(addresses)]
                    if address not in told:
                        told.add(address)
                        log_event(
                            logger,
                            Event.SESSION_CONNECTING,
                            status.say(status.Connecting(str(relay), address)),
                            address=address,
                        )
                    attempt = self.endpoint.connect(
                        address,
                        config.server_name,
                        config.trusted(),
                        pins=list(config.pins),
                        timeout=max(left, _STAGGER_S),
                    )
                    pending[asyncio.ensure_future(attempt)] = address
                if not pending:
                    break
                pause = _STAGGER_S if left > _STAGGER_S else None
                done, _ = await asyncio.wait(pending, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                for ended in done:
                    address = pending.pop(ended)
                    error = ended.exception()
                    if error is None:
                        self._book.reached(relay, address)
                        log_event(logger, Event.SESSION_CONNECTED, status.say(status.Connected(str(relay))))
                        return ended.result()
                    if not isinstance(error, CoreError):
                        raise error
                    last = error
                    if error.args[0] in _TRUST_FAULTS:
                        raise explain_failure(error, relay, limit, pinned=config.pinned) from error
                    # What was refused is refused again; what was not answered may be, as long as there is time.
                    if error.args[0] != "timed-out" and address in addresses:
                        addresses.remove(address)
        finally:
            await _abandon(pending)
        assert last is not None
        raise explain_failure(last, relay, limit, pinned=config.pinned) from last

    @property
    def relay(self) -> HostPort:
        """The relay this session is with or tries to reach: the one it was given, or one that took its place."""
        return self._elsewhere or self.config.relay

    async def answers(self, timeout_s: float) -> bool:
        """Say whether the data plane does its work."""
        return await self.endpoint.answers(timeout=timeout_s)

    async def _explain_close(self, connection: Connection) -> SoftlanError:
        closed = await connection.closed()
        if closed.kind == "peer" and closed.code is not None:
            code = Code.from_number(closed.code)
            # A goodbye is no answer to a hello: the relay was about to end, or what closed was none of its codes.
            if code.retry is not Retry.NOT_APPLICABLE:
                return status.rejected_error(Disconnect(code=code, reason=closed.reason or code.meaning))
        why = _CLOSE_WORDS.get(closed.kind, closed.reason or closed.kind)
        return RelayUnreachableError(f"the relay hung up before it answered: {why}")

    async def _stay(self, joined: _Joined, stopping: asyncio.Future[Any]) -> _Joined | str:
        """Be in the room until `stop`, or until the connection ends or another has taken its place.

        When the relay has been silent for too long to be well, a second connection is tried beside the first: a relay that was restarted
        knows nothing of the first. One that was slow, or out of reach, for a moment answers over the first again, which is kept then.
        """
        channel = joined.channel
        listening = asyncio.ensure_future(self._listen(channel))
        reporting = asyncio.ensure_future(self._report(channel))
        doubting: asyncio.Future[None] = asyncio.ensure_future(channel.connection.silence(_SILENCE_S))
        beside: _Beside | None = None
        try:
            self._enter(joined)
            while True:
                doubt: asyncio.Future[Any] = doubting if beside is None else beside.joining
                # A connection that has ended is silent, too; what ended it is told by the one who listens.
                doubts = [] if doubt is doubting and doubting.done() else [doubt]
                await asyncio.wait((listening, stopping, *doubts), return_when=asyncio.FIRST_COMPLETED)
                if stopping.done():
                    await self._say_goodbye(joined)
                    return "stopped"
                is_doubled = beside is not None and beside.asked
                if beside is not None and beside.joining.done():
                    if (came := beside.take()) is not None:
                        log_event(logger, Event.SESSION_MOVED, "the relay answers again, on a new connection")
                        return came
                    beside, doubting = None, asyncio.ensure_future(channel.connection.silence(_SILENCE_S))
                if listening.done():
                    reason = _reason(listening, is_doubled=is_doubled)
                    if beside is not None:
                        await asyncio.wait((beside.joining, stopping), return_when=asyncio.FIRST_COMPLETED)
                        if (came := beside.take()) is not None:
                            return came
                    log_event(logger, Event.SESSION_LOST, f"connection lost: {reason}", reason=reason)
                    return reason
                if beside is None and doubting.done() and not channel.connection.ended:
                    beside = _Beside(channel.connection)
                    beside.joining = asyncio.create_task(self._join(beside))
        finally:
            # Before a successor is entered too: who left the room in between must not be remembered.
            self.connection = None
            self.notices.clear()
            self._handler.lost()
            await _cancel(listening, reporting, doubting, *([] if beside is None else [beside.joining]))
            if beside is not None:
                # It may have come about while the goodbye was on its way.
                beside.let_go()
            channel.connection.close(Code.GOODBYE.number, "")
            await channel.finish(timeout_s=0.05)

    def _enter(self, joined: _Joined) -> None:
        channel, welcome = joined.channel, joined.welcome
        self.connection, self.welcome = channel.connection, welcome
        peers = welcome.room.peers
        gateway = any(peer.role is Role.GATEWAY for peer in peers)
        self._handler.joined(channel.connection, welcome)
        self.joins += 1
        self._chances, self._refused_by = _ELSEWHERE_ATTEMPTS, None
        if self._elsewhere is None:
            self._heir = None
        self._entered_s = time.monotonic()
        self.entered.set()
        log_event(
            logger,
            Event.SESSION_JOINED,
            status.say(status.Joined(welcome.room.code, welcome.peer_id, len(peers), gateway)),
            room=welcome.room.code,
            peer_id=welcome.peer_id,
            tap_mtu=welcome.tap_mtu,
            peers=len(peers),
            datagram_budget=channel.connection.max_datagram_size,
        )

    async def _say_goodbye(self, joined: _Joined) -> None:
        channel = joined.channel
        channel.post(Disconnect(code=Code.GOODBYE, reason=Code.GOODBYE.meaning))
        await channel.finish()
        log_event(logger, Event.SESSION_LEFT, status.say(status.Stopped(joined.welcome.room.code)))

    async def _listen(self, channel: ControlChannel) -> str:
        """Read what the relay says; gives the reason the connection ended, raises when it is for good."""
        said: Disconnect | None = None
        try:
            while said is None and (body := await channel.receive()) is not None:
                match decode_from_relay(body):
                    case PeerJoined() as peer:
                        log_event(
                            logger,
                            Event.PEER_JOINED,
                            _newcomer(peer),
                            peer_id=peer.peer_id,
                            role=peer.role,
                            mac=peer.mac,
                        )
                        self._handler.peer_joined(peer)
                    case PeerLeft() as peer:
                        log_event(
                            logger,
                            Event.PEER_LEFT,
                            f"peer {peer.peer_id} left: {peer.reason.meaning}",
                            peer_id=peer.peer_id,
                            code=peer.reason,
                        )
                        self._handler.peer_left(peer)
                    case Stats(counters=counters):
                        self.relay_counters = known_counters(counters)
                    case Notice() as notice:
                        self._note(notice)
                    case GoingDown(reason=reason, in_s=in_s, relay=relay):
                        # Its goodbye may be lost on the way.
                        self._name_heir(relay)
                        words = f"the session ends in {in_s:g} s: {reason}"
                        log_event(logger, Event.SESSION_ENDING, words, in_s=in_s)
                    case Disconnect() as said:
                        self._follow(said.back_in_s, said.relay)
                    case None:
                        pass
        except RemoteProtocolError as error:
            channel.connection.close(error.code.number, str(error))
            return f"the relay broke the protocol: {error}"
        if said is None:
            closed = await self._closed(channel.connection)
            if closed is None:
                channel.connection.close(Code.PROTOCOL_ERROR.number, _STREAM_ENDED)
                return f"the relay broke the protocol: {_STREAM_ENDED}"
            if closed.kind != "peer" or closed.code is None:
                return _CLOSE_WORDS.get(closed.kind, closed.reason or closed.kind)
            code = Code.from_number(closed.code)
            said = Disconnect(code=code, reason=closed.reason or code.meaning)
            if code is Code.SHUTTING_DOWN:
                self._turn_to_heir()
        if said.code.retry in (Retry.NO, Retry.PERHAPS):
            raise status.rejected_error(said)
        return said.reason or said.code.meaning

    async def _closed(self, connection: Connection) -> CloseReason | None:
        """Wait for the end of a connection whose control stream has ended; None when the relay keeps it all the same."""
        try:
            async with asyncio.timeout(self.config.idle_timeout_s):
                return await connection.closed()
        except TimeoutError:
            return None

    def _note(self, notice: Notice) -> None:
        """Keep what the relay says is wrong until it says that it is over."""
        key = notice.topic, notice.peers
        if notice.over:
            self.notices.pop(key, None)
        elif len(self.notices) < _MAX_NOTICES or key in self.notices:
            self.notices[key] = notice.reason
        log_event(
            logger,
            Event.SESSION_CALM if notice.over else Event.SESSION_NOTICE,
            f"the relay says: {notice.reason}",
            topic=notice.topic,
            peers=list(notice.peers),
        )

    def _follow(self, back_in_s: float | None, relay: str | None) -> None:
        """Take note of when to come back to a relay that goes down, and of who takes its place."""
        if back_in_s:
            # Spread by a quarter, so that a party does not come back all at once.
            self._away_s = min(back_in_s, _MAX_AWAY_S) * random.uniform(1.0, 1.25)  # noqa: S311
        # A successor that goes down without naming another has had its turn.
        self._elsewhere = None
        if self._name_heir(relay):
            self._away_s, self._chances = 0.0, _ELSEWHERE_ATTEMPTS
            self._elsewhere = self._heir

    def _name_heir(self, relay: str | None) -> bool:
        """Take note of whom a relay that goes down names, if anybody; gives whether it is one to ask."""
        named: HostPort | None = None
        if relay is not None:
            with contextlib.suppress(ConfigError):
                named = parse_host_port(relay)
        self._heir = None if named == self.config.relay else named
        # One that has refused this peer since it was in the room last is not named again and again.
        if named is not None and named == self._refused_by:
            named = self._heir = None
        return named is not None

    def _turn_to_heir(self) -> None:
        """Ask the one that was named to take the relay's place next, if there is one: a relay's last words may be lost on the way."""
        self._elsewhere, self._chances = self._heir, _ELSEWHERE_ATTEMPTS

    def _settle_whom_to_ask(self, failed: SoftlanError) -> None:
        """Settle which relay is next after an attempt to join that `failed`.

        Raises:
            SoftlanError: in place of a refusal by a relay that took the other's place; the one that was given has the last word.

        """
        is_going = isinstance(failed, RejectedError) and failed.code is Code.SHUTTING_DOWN
        if isinstance(failed, RejectedError) and is_going and (failed.relay or failed.back_in_s):
            self._follow(failed.back_in_s, failed.relay)
            return
        if (asked := self._elsewhere) is None:
            # As long as neither is there, both are asked in turn.
            if is_going or isinstance(failed, RelayUnreachableError):
                self._turn_to_heir()
            return
        self._chances -= 1
        if not self._chances:
            self._elsewhere = None
        if isinstance(failed, RejectedError) and not failed.retryable:
            self._elsewhere, self._heir, self._refused_by = None, None, asked
            log_event(
                logger,
                Event.SESSION_REJECTED,
                f"{asked} was to take the relay's place, but does not let this peer in ({failed}); going back to {self.config.relay}",
                relay=str(asked),
                code=failed.code,
            )
            raise SoftlanError(f"{asked} does not let this peer in") from failed

    async def _report(self, channel: ControlChannel) -> None:
        """Send `stats` at the interval."""
        last = time.monotonic()
        while True:
            await asyncio.sleep(self.config.stats_interval_s)
            now = time.monotonic()
            channel.post(Stats(counters=self._handler.counters(), interval_s=round(now - last, 3)))
            last = now


_TRUST_FAULTS = {
    "wrong-pin": TrustFault.WRONG_PIN,
    "wrong-name": TrustFault.WRONG_NAME,
    "expired": TrustFault.EXPIRED,
    "unverified": TrustFault.OTHER,
}

_STREAM_ENDED = "the control stream ended before the connection"

_CLOSE_WORDS = {
    "timed-out": "the relay is not answering any more",
    "reset": "the relay was restarted",
    "local": "closed here",
}


def explain_failure(error: CoreError, relay: HostPort, waited_s: float, *, pinned: bool) -> SoftlanError:
    """Turn the core's error about a connection that did not come about within `waited_s` into one that says what to do next.

    `pinned` as in `SessionConfig`.
    """
    kind, message = error.args
    if kind == "wrong-pin" and not pinned:
        return TrustError(
            f"{relay} answered, but its certificate is of no authority this machine trusts ({message})",
            kind=TrustFault.WRONG_PIN,
            hint="give the relay's own certificate with --relay-ca-cert FILE; its operator has it",
        )
    if kind in _TRUST_FAULTS:
        state = status.Untrusted(str(relay), _TRUST_FAULTS[kind])
        return TrustError(f"{status.say(state)} ({message})", kind=state.fault, hint=status.suggest(state))
    if kind == "timed-out":
        unreachable = status.RelayUnreachable(str(relay), waited_s)
        return RelayUnreachableError(status.say(unreachable), hint=status.suggest(unreachable))
    if kind == "bad-certificate":
        return ConfigError(
            f"cannot connect to {relay}: {message}", hint="join by the relay's pin: it takes no certificate"
        )
    if kind == "invalid-server-name":
        return ConfigError(
            f"cannot connect to {relay}: {message}",
            hint=status.suggest(status.Untrusted(str(relay), TrustFault.WRONG_NAME)),
        )
    if kind == "no-common-protocol":
        return RelayUnreachableError(
            f"{relay} answered, but does not speak softlan's protocol: {message}",
            hint="check that the port is a softlan relay's, and that both run the same version",
        )
    return RelayUnreachableError(f"cannot connect to {relay}: {message}")


def _software(name: str | None) -> str:
    ours = f"softlan/{__version__} ({platform.system().lower()})"
    return (ours if name is None else f"{name}; {ours}")[:64]


def _reason(listening: asyncio.Future[str], *, is_doubled: bool) -> str:
    """Give the reason that `_listen` ended with; raises when it is for good.

    `is_doubled`: a second connection was being tried. The relay may have let that one in and given it the first one's place; when its
    welcome is lost on the way, that is nobody else with this identity.
    """
    try:
        return listening.result()
    except RejectedError as error:
        if is_doubled and error.code is Code.REPLACED:
            return "the relay knew of the second connection before we did"
        raise


async def _cancel(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _abandon(attempts: Iterable[asyncio.Future[Connection]]) -> None:
    """End attempts whose result is not wanted any more, and connections that came about all the same."""
    attempts = list(attempts)
    await _cancel(*attempts)
    for attempt in attempts:
        if not attempt.cancelled() and attempt.exception() is None:
            attempt.result().close(Code.GOODBYE.number, "")


def _is_final(error: SoftlanError) -> bool:
    """Say whether a session that was in the room once must end: nothing but a person can mend it."""
    if isinstance(error, RejectedError):
        return not error.retryable
    return isinstance(error, InterfaceError | PrivilegeError)


def _newcomer(peer: PeerJoined) -> str:
    if peer.role is Role.GATEWAY:
        return "a gateway joined: its LAN is reachable now"
    return f"a player joined ({peer.mac})"
