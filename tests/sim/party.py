"""Who is in a story: relays and sessions, as programs on machines of a virtual network, and what they have been told.

What runs is softlan's own: `Relay` with its gate, rooms and operator's desk, `RelaySession` with its address book. Below them
stands `fake_core.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import random
import socket
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from fake_core import Endpoint, Machine, Network, Room, TransportSettings
from lines import Line
from virtual_clock import Clock, Program, VirtualLoop, owner

from softlan._core import Mac
from softlan.client import lookup, session
from softlan.client.session import RelaySession, SessionConfig
from softlan.config import HostPort
from softlan.control import keys
from softlan.control.codes import Code
from softlan.control.keys import RoomKey
from softlan.control.messages import Role, Welcome
from softlan.errors import RejectedError, SoftlanError
from softlan.observe.events import Event
from softlan.relay import admin, gate, server
from softlan.relay.admin import Desk, Pins
from softlan.relay.certificates import make_dev_certificate
from softlan.relay.rules import Rules
from softlan.relay.server import Relay, RelayConfig
from softlan.relay.state import RelayState

__all__ = ["Broken", "Party", "Player", "RelayHost", "SessionRun", "play_out", "within"]

NAME = "lanparty-relay.local"
PORT = 4433
ENDS_WITHIN_S = 1.8
"""What a relay may take to end, beyond a drain (`softlan.parts`, _GRACE_S)."""

DISK_S = 1.0
"""What a disk takes at most."""

NO_ANSWER_S = 5.0
"""How long a machine asks name servers that it does not reach."""


class Broken(Exception):
    """Invariants that did not hold; the story is in its notes."""

    @classmethod
    def in_party(cls, party: Party) -> Broken:
        """Say what went wrong."""
        broken = cls("; ".join(party.wrong[:3]))
        broken.add_note(party.story())
        return broken


@functools.cache
def shown() -> Any:
    """The relays' certificate, made once."""
    return make_dev_certificate(NAME)


@contextlib.contextmanager
def within(program: Program) -> Iterator[None]:
    """Do something as this program: tasks that begin are its own."""
    token = owner.set(program)
    try:
        yield
    finally:
        owner.reset(token)


def play_out(seed: int, story: Callable[[Party], Awaitable[None]]) -> Party:
    """Play a story from beginning to end; what went wrong stands in the party it gives."""
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    # It would look through all that was ever imported; a story makes little garbage.
    collects = gc.isenabled()
    gc.disable()
    party = Party(loop, random.Random(seed))
    loop.set_exception_handler(lambda _, context: party.breaks(f"nobody took notice: {context}"))
    try:
        with party.around():
            try:
                loop.run_until_complete(story(party))
            except Exception as error:
                party.breaks(f"the story came to a halt: {error!r}")
            if left := asyncio.all_tasks(loop):
                if not party.wrong:
                    party.breaks(f"tasks are left: {left}")
                loop.set_exception_handler(lambda *_: None)
                for task in left:
                    task.cancel()
                loop.run_until_complete(asyncio.wait(left, timeout=60.0))
    finally:
        asyncio.set_event_loop(None)
        loop.close()
        if collects:
            gc.enable()
    if party.network.lacks:
        party.breaks(f"fake_core.py lacks {sorted(party.network.lacks)}")
    return party


class Party:
    """The world of one story: clock, network, everybody in it, and what went wrong."""

    def __init__(self, loop: VirtualLoop, rng: random.Random) -> None:
        self.loop = loop
        self.random = rng
        self.network = Network(loop)
        self.hosts: list[RelayHost] = []
        self.players: list[Player] = []
        self.told: list[tuple[float, str]] = []
        """What happened, for people."""
        self.wrong: list[str] = []
        self.keys_end: dict[str, float] = {}
        """Since when a key is good no longer."""

    def tell(self, what: str) -> None:
        """Note what happens."""
        self.told.append((self.loop.time(), what))

    def breaks(self, what: str) -> None:
        """Note that an invariant does not hold."""
        self.tell(f"BROKEN: {what}")
        self.wrong.append(f"{self.loop.time():.3f} s: {what}")

    def host_at(self, address: str) -> RelayHost:
        """Find the relay with an `IP:PORT`."""
        return next(host for host in self.hosts if host.address == address)

    def story(self) -> str:
        """All that happened, a line each."""
        return "\n".join(f"{at:9.3f}  {what}" for at, what in self.told)

    # What the code under test meets in place of the world -------------------------------------------------------------

    @contextlib.contextmanager
    def around(self) -> Iterator[None]:
        """Put the virtual world around the code under test."""
        clock = Clock(self.loop)
        code_random = random.Random(self.random.random())
        with pytest.MonkeyPatch.context() as patch:
            for module in (session, server, gate, admin):
                patch.setattr(module, "time", clock)
            patch.setattr(session, "random", code_random)
            patch.setattr(session, "Endpoint", Endpoint)
            patch.setattr(session, "TransportSettings", TransportSettings)
            patch.setattr(session, "barred", _never_barred)
            patch.setattr(server, "Endpoint", Endpoint)
            patch.setattr(server, "TransportSettings", TransportSettings)
            patch.setattr(server, "Room", Room)
            patch.setattr(lookup, "in_thread", self._look_up)
            patch.setattr(keys.Passphrase, "secret", _secret_of)
            for module in (session, server, admin):
                patch.setattr(module, "log_event", self._log)
            yield

    async def _look_up(self, _work: Any, host: str, port: int, **_options: Any) -> list[Any]:
        """Ask a name server, which is reached like all else."""
        program = owner.get()
        assert program is not None
        if program.machine.line.is_dark(self.loop.time()):
            await asyncio.sleep(NO_ANSWER_S)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        await asyncio.sleep(2 * program.machine.line.delay)
        return [(socket.AF_INET, socket.SOCK_DGRAM, 0, "", (host, port))]

    def _log(self, _logger: logging.Logger, event: Event, message: str, /, **fields: object) -> None:
        program = owner.get()
        name = "?" if program is None else program.name
        self.tell(f"    {name}: {event.value} {message}")
        if event is Event.FAULT and not (program is not None and program.killed):
            self.breaks(f"{name}: {message} ({fields.get('exc_info')!r})")


async def _never_barred(_addresses: Any) -> Any:
    await asyncio.get_running_loop().create_future()


@functools.cache
def _stretched(text: str, room: str) -> bytes:
    return _really_stretch(keys.Passphrase(text), room)


_really_stretch = keys.Passphrase.secret


def _secret_of(key: keys.Passphrase, room: str) -> bytes:
    return _stretched(key.text, room)


class _Memory(RelayState):
    """A relay's memory on a disk that takes its time."""

    def __init__(self, party: Party) -> None:
        super().__init__()
        self._party = party
        self.writes = 0

    def _write(self, name: str, content: Any) -> Future[None]:
        del name, content
        self.writes += 1
        written: Future[None] = Future()
        self._party.loop.call_later(DISK_S * self._party.random.random() ** 3, written.set_result, None)
        return written


class RelayHost:
    """A relay's machine, and what is on its disk."""

    def __init__(self, party: Party, name: str, address: str, line: Line, rules: Rules) -> None:
        self.party = party
        self.name = name
        self.address = f"{address}:{PORT}"
        self.machine = Machine(party.network, address, line)
        self.rules = rules
        self.state = _Memory(party)
        self.banned: set[tuple[str, str]] = set()
        """Rooms, and the MACs and addresses that are banned from them."""
        self.successor: RelayHost | None = None
        self.back_in_s: float | None = None
        self.run: RelayRun | None = None
        self.is_busy = False
        """Whether something is being done to it that ends with it running again."""
        self._starts = 0
        party.hosts.append(self)

    def start(self) -> None:
        """Start the relay. What it had on its disk it has again; kicks are not kept."""
        assert self.run is None
        self._starts += 1
        self.run = RelayRun(self, f"{self.name}#{self._starts}")
        self.run.begin()

    async def kill(self) -> None:
        """Kill it: nobody is told."""
        run, self.run = self.run, None
        if run is not None:
            await run.kill()

    async def end(self, drain_s: float) -> None:
        """Tell it to end, and wait until it has."""
        run = self.run
        assert run is not None
        run.drain_s = drain_s
        begun = self.party.loop.time()
        run.stopping.set()
        await asyncio.wait([run.main])
        if (took := self.party.loop.time() - begun) > drain_s + ENDS_WITHIN_S:
            self.party.breaks(f"{run.name} took {took:.2f} s to end")
        self.run = None
        run.check_over()

    def replace_rules(self, rules: Rules) -> None:
        """Change the file of rooms, and have a running relay read it."""
        self.rules = rules
        if self.run is not None:
            with within(self.run):
                self.run.relay.replace_rules(rules)


class RelayRun(Program):
    """One process of a relay."""

    def __init__(self, host: RelayHost, name: str) -> None:
        super().__init__(name)
        self.host = host
        self.machine = host.machine
        self.stopping = asyncio.Event()
        self.drain_s = 0.0
        self._ids: dict[str, tuple[Any, dict[int, int]]] = {}
        config = RelayConfig(
            listen=host.address,
            successor=None if host.successor is None else _host_port(host.successor),
            back_in_s=host.back_in_s,
        )
        with within(self):
            self.relay = Relay.start(config, shown(), host.rules, host.state)
            self.desk = Desk(self.relay, Pins("", lambda: ()))

    @property
    def endpoint(self) -> Endpoint:
        """Its socket."""
        return self.relay._endpoint  # type: ignore[return-value]

    def begin(self) -> None:
        """Serve."""
        self.main = self.start(self.host.party.loop, self._serve())

    async def _serve(self) -> None:
        """As `relay/cli.py` does."""
        serving = asyncio.ensure_future(self.relay.serve())
        try:
            await self.stopping.wait()
            if self.drain_s and self.relay.peer_count:
                await self.relay.drain(self.drain_s)
        finally:
            await self.relay.close()
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    async def kill(self) -> None:
        """Be gone."""
        self.killed = True
        self.endpoint.stop()
        await self.end_tasks()

    def check_over(self) -> None:
        """Hold it to have ended without a trace."""
        party = self.host.party
        if not self.main.cancelled() and (error := self.main.exception()) is not None:
            party.breaks(f"{self.name} ended with {error!r}")
        if left := [task for task in self.tasks if not task.done()]:
            party.breaks(f"{self.name} has ended, and left {left}")

    def check(self) -> None:
        """Hold its books to what is so at any moment."""
        relay, party = self.relay, self.host.party
        peers = relay._peers
        seen: set[Any] = set()
        for room in relay._rooms:
            members = list(room.members.values())
            switch = relay._switches.get(room.code)
            if not members or switch is None:
                party.breaks(f"{self.name}: room {room.code} is empty, or has no switch")
                continue
            ids = {member.peer_id for member in members}
            macs = [member.mac for member in members]
            if len(ids) != len(members) or len(set(macs)) != len(macs):
                party.breaks(f"{self.name}: room {room.code} has two of one: {members}")
            if self._ids.get(room.code, (None,))[0] is not room:
                self._ids[room.code] = room, {}
            for member in members:
                had = self._ids[room.code][1].setdefault(member.peer_id, member.connection)
                if had != member.connection:
                    party.breaks(f"{self.name}: {member} has the id of one that left a moment ago")
            plugged = set(switch.core.plugged)  # type: ignore[attr-defined]
            wanted = set()
            for member in members:
                seen.add(member.connection)
                peer = peers.get(member.connection)
                if peer is None:
                    party.breaks(f"{self.name}: {member} is in a room and not served")
                elif not peer.retired:
                    wanted.add(member.peer_id)
            if plugged != wanted:
                party.breaks(f"{self.name}: room {room.code} has {wanted}, and its switch {plugged}")
        if seen != set(peers):
            party.breaks(f"{self.name} serves {set(peers)}, and {seen} are in rooms")
        if {room.code for room in relay._rooms} != set(relay._switches):
            party.breaks(f"{self.name} has switches for rooms that are closed: {set(relay._switches)}")

    def check_numbers(self) -> None:
        """Hold what it tells people and metrics to who is there."""
        relay, party = self.relay, self.host.party
        told = [peer["peer_id"] for room in relay.snapshot()["rooms"] for peer in room["peers"]]
        counted = sum(sum(room.roles.values()) for room in relay.numbers().rooms.values())
        if not len(told) == counted == len(relay._peers):
            party.breaks(f"{self.name} shows {told} and counts {counted} peers of {len(relay._peers)}")

    def left_over(self) -> list[str]:
        """Say what it keeps of what is over, and whom it should not have."""
        relay = self.relay
        wrong = []
        connections = {link.id for link in self.endpoint.open_links}
        if connections != set(relay._peers):
            wrong.append(f"{self.name} keeps connections {connections} for peers {set(relay._peers)}")
        if unannounced := len(relay.gate._unannounced):
            wrong.append(f"{self.name} waits for {unannounced} hellos of nobody")
        counted = sum(relay.gate._connections._counts.values())
        if counted != len(connections):
            wrong.append(f"{self.name} counts {counted} connections of {len(connections)}")
        for peer in relay._peers.values():
            member = peer.member
            address = peer.channel.connection.proven_address.rpartition(":")[0]
            if self.host.banned & {(member.room, str(member.mac)), (member.room, address)}:
                wrong.append(f"{self.name}: {member} is in, and banned")
            if peer.leave_code is not None or peer.retired:
                wrong.append(f"{self.name}: {member} was sent away and is still there")
        return wrong


def _host_port(host: RelayHost) -> HostPort:
    return HostPort(host.machine.host, PORT)


class Player:
    """Somebody with an identity, who wants to be in a room; or a gateway."""

    def __init__(  # noqa: PLR0917
        self, party: Party, name: str, machine: Machine, relay: RelayHost, room: str, role: Role, number: int
    ) -> None:
        self.party = party
        self.name = name
        self.machine = machine
        self.relay = relay
        self.room = room
        self.role = role
        self.mac = Mac.from_bytes(bytes((2, 0, 0, 0, 0, number))) if role is Role.CLIENT else None
        self.resume = f"{number:064x}"
        self.key: RoomKey | None = None
        self.permits: set[Code] = set()
        """What may end its session for good, by what was done to it."""
        self.is_patient = True
        """Whether it tries again when it could not join at first; one that is refused for good does not."""
        self.is_busy = False
        """Whether something is being done to it that ends with it running again."""
        self.is_waiting = False
        """Whether it is about to try again."""
        self.troubled_until = 0.0
        """Until when there is a reason to join anew."""
        self.troubles = 0
        self.runs: list[SessionRun] = []
        self._starts = 0
        party.players.append(self)

    @property
    def running(self) -> list[SessionRun]:
        """The processes that have not ended; more than one when its program was started twice."""
        return [run for run in self.runs if not run.is_over]

    def start(self, machine: Machine | None = None) -> SessionRun:
        """Start the program, here or elsewhere."""
        self._starts += 1
        run = SessionRun(self, f"{self.name}#{self._starts}", machine or self.machine)
        self.runs.append(run)
        run.begin()
        return run

    def trouble(self, until: float) -> None:
        """Note a reason to join anew that lasts so long."""
        self.troubled_until = max(self.troubled_until, until)
        self.troubles += 1


class SessionRun(Program):
    """One process with a session, and what that was told: a `SessionHandler`."""

    COMES_BACK_S = 12.0
    """How long after its reason a join may come."""

    JUDGED_WITHIN_S = 6.0
    """How long a welcome may be under way."""

    def __init__(self, player: Player, name: str, machine: Machine) -> None:
        super().__init__(name)
        self.player = player
        self.party = player.party
        self.machine = machine
        self.is_over = False
        self.is_stopping = False
        self.inside = False
        self.peers: dict[int, Any] = {}
        self.peer_id = 0
        self.joins = 0
        self.unexplained = 0
        self.begun_at = player.party.loop.time()
        config = SessionConfig(
            relay=_host_port(player.relay),
            server_name=NAME,
            trusted=list,
            room=player.room,
            role=player.role,
            mac=player.mac,
            resume=player.resume,
            key=player.key,
        )
        with within(self):
            self.session = RelaySession(config, self)

    @property
    def endpoint(self) -> Endpoint:
        """Its socket."""
        return self.session.endpoint  # type: ignore[return-value]

    def begin(self) -> None:
        """Join."""
        self.main = self.start(self.party.loop, self.session.run())
        self.main.add_done_callback(self._ended)

    def check(self) -> None:
        """Hold it to be in, unless something was done a short while ago."""
        reason_at = max(self.player.troubled_until, self.begun_at)
        if (
            not self.inside
            and not self.is_stopping
            and self.party.loop.time() > reason_at + self.COMES_BACK_S
        ):
            self.party.breaks(f"{self.name} is out since {reason_at:.3f} s at least")

    def stop(self) -> None:
        """Be told to end."""
        self.is_stopping = True
        self.session.stop()

    async def kill(self) -> None:
        """Be gone, without a word to anybody."""
        self.killed = True
        self.endpoint.stop()
        await self.end_tasks()

    def _ended(self, main: asyncio.Task[None]) -> None:
        self.is_over = True
        if self.killed:
            return
        party, player = self.party, self.player
        error = None if main.cancelled() else main.exception()
        party.tell(f"{self.name} has ended: {error!r}")
        if self.inside:
            party.breaks(f"{self.name} has ended, and its handler was not told")
        if self.is_stopping and error is None:
            return
        if error is None or not isinstance(error, SoftlanError):
            party.breaks(f"{self.name} ended with {error!r}")
        elif isinstance(error, RejectedError) and not error.retryable:
            if error.code not in player.permits:
                party.breaks(f"{self.name} ended for good, and nothing was done to it: {error.code}: {error}")
        elif self.joins:
            party.breaks(f"{self.name} was in its room, and has ended: {error!r}")
        elif not self.is_stopping:
            player.is_waiting = True
            party.loop.call_later(1.5, self._again)

    def _again(self) -> None:
        player = self.player
        player.is_waiting = False
        if not player.running and player.is_patient and not player.is_busy:
            player.start()

    # SessionHandler ---------------------------------------------------------------------------------------------------

    def joined(self, _connection: Any, welcome: Welcome) -> None:
        """See `SessionHandler`."""
        if self.killed:
            return
        party, player, now = self.party, self.player, self.party.loop.time()
        if self.inside:
            party.breaks(f"{self.name} joins twice")
        self.inside = True
        self.joins += 1
        self.peer_id = welcome.peer_id
        self.peers = {peer.peer_id: peer for peer in welcome.room.peers}
        key = player.key
        if (
            isinstance(key, keys.Passphrase)
            and now > party.keys_end.get(key.text, now) + self.JUDGED_WITHIN_S
        ):
            party.breaks(f"{self.name} is in by a key that is good no longer")
        if self.joins > 1 and now > player.troubled_until + self.COMES_BACK_S:
            self.unexplained += 1

    def lost(self) -> None:
        """See `SessionHandler`."""
        self.inside = False
        self.peers = {}

    def peer_joined(self, peer: Any) -> None:
        """See `SessionHandler`."""
        if not self.killed and (
            not self.inside or peer.peer_id in self.peers or peer.peer_id == self.peer_id
        ):
            self.party.breaks(f"{self.name} is told that {peer} joined, and has {self.peers}")
        self.peers[peer.peer_id] = peer

    def peer_left(self, peer: Any) -> None:
        """See `SessionHandler`."""
        if not self.killed and self.peers.pop(peer.peer_id, None) is None:
            self.party.breaks(f"{self.name} is told that {peer} left, and has {self.peers}")

    def counters(self) -> dict[str, int]:
        """See `SessionHandler`."""
        return {}
