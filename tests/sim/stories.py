"""One evening from one seed: what is done to relays, lines and players, and what must hold then."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fake_core import Machine
from lines import DOWN, LOSS, UP, Line
from party import Broken, Party, Player, RelayHost, SessionRun, play_out, within
from virtual_clock import Clock

from softlan.control.codes import Code
from softlan.control.keys import Passphrase, issue, parse_key
from softlan.control.messages import Role
from softlan.errors import SoftlanError
from softlan.relay.admin import AskBan, AskKick, AskUnban
from softlan.relay.rules import RoomRule, Rules

__all__ = ["Summary", "play", "told"]

OPEN_ROOM, KEYED_ROOM = "OPEN", "KEYED"
KEYS = ("correct horse", "battery staple")

LOOK_S = 0.7
"""How often what must hold at any moment is looked at."""

BACK_WITHIN_S = {0.0: 6.0, 0.01: 6.0, 0.05: 10.0, 0.2: 40.0}
"""How long after that everybody is in who should be, by loss."""

MUCH = 0.2
"""Loss from which on a connection is silent for a second now and then."""

BY_CHANCE = {0.0: 0.0, 0.01: 0.0, 0.05: 0.0, 0.2: 0.5}
"""How often a session may join anew for no other reason than that, within 10 s, by loss."""

NOTICED_WITHIN_S = 6.0
"""How long after all is well somebody may still believe in a connection that is gone: twice the idle timeout, and more."""

STAYS_S = 6.0
"""How long it then has to stay so."""

LEAVES_WITHIN_S = 1.8
"""What a part may take to end (`softlan.parts`, _GRACE_S)."""


@dataclass
class Summary:
    """What stories came to; for people, and to see that they were no idle ones."""

    seconds: float = 0.0
    packets: int = 0
    lost: int = 0
    events: int = 0
    joins: int = 0
    rejoins: int = 0
    back_s: float = 0.0
    """The longest it took until everybody was back."""

    def add(self, other: Summary) -> None:
        """Count another one in."""
        self.seconds += other.seconds
        self.packets += other.packets
        self.lost += other.lost
        self.events += other.events
        self.joins += other.joins
        self.rejoins += other.rejoins
        self.back_s = max(self.back_s, other.back_s)


def play(seed: int) -> Summary:
    """Play the story of a seed through. Raises Broken: something that must hold did not."""
    party, summary = _play(seed)
    if party.wrong:
        raise Broken.in_party(party)
    return summary


def told(seed: int) -> str:
    """Play the story of a seed through and give all that happened, whatever that is."""
    return _play(seed)[0].story()


def _play(seed: int) -> tuple[Party, Summary]:
    summary = Summary()
    party = play_out(seed, lambda party: Story(party, LOSS[seed % len(LOSS)], summary).play())
    return party, summary


class Story:
    """One seed's story."""

    def __init__(self, party: Party, loss: float, summary: Summary) -> None:
        self.party = party
        self.random = party.random
        self.loss = loss
        self.summary = summary
        self.key = KEYS[0]
        self.rules = self._rules(self.key)
        self._under_way: list[asyncio.Task[None]] = []
        self._watch: asyncio.Task[None] | None = None

    @property
    def now(self) -> float:
        """Virtual seconds since the story began."""
        return self.party.loop.time()

    def _rules(self, key: str) -> Rules:
        keyed = RoomRule(code=KEYED_ROOM, key=Passphrase(key), gateways="any-member")
        return Rules(rooms={KEYED_ROOM: keyed}, open_rooms=True)

    # Who is there -----------------------------------------------------------------------------------------------------

    def _line(self, *, loss: float | None = None) -> Line:
        rng = self.random
        return Line(
            random=random.Random(rng.random()),
            # Half of it each way.
            loss=(self.loss if loss is None else loss),
            delay=rng.choice((0.0005, 0.004, 0.015, 0.04)),
            jitter=rng.choice((0.0, 0.002, 0.02)),
            duplicates=rng.choice((0.0, 0.0, 0.02)),
            mtu=rng.choice((1472, 1472, 1400, 1280)),
        )

    def _invite(self) -> None:
        rng = self.random
        self.party.network.resets = rng.random() < 0.85
        main = RelayHost(self.party, "relay", "10.0.0.1", self._line(loss=0.0), self.rules)
        if rng.random() < 0.35:
            # Now and then it takes nobody: whoever is sent there goes back.
            rules = Rules() if rng.random() < 0.25 else self.rules
            main.successor = RelayHost(self.party, "second", "10.0.0.2", self._line(loss=0.0), rules)
        if rng.random() < 0.3:
            main.back_in_s = rng.choice((0.5, 3.0))
        rooms = rng.choice(((OPEN_ROOM,), (KEYED_ROOM,), (OPEN_ROOM, KEYED_ROOM)))
        number = 0
        for room in rooms:
            clients = [("ann", Role.CLIENT), ("bob", Role.CLIENT)][: rng.choice((1, 2, 2))]
            for name, role in [("gateway", Role.GATEWAY), *clients]:
                number += 1
                machine = Machine(self.party.network, f"10.1.0.{number}", self._line())
                player = Player(self.party, f"{name}-{room.lower()}", machine, main, room, role, number)
                if room == KEYED_ROOM:
                    player.key = self._key(main, role)

    def _key(self, host: RelayHost, role: Role) -> Any:
        # An invite is of one relay; a successor knows the room's key.
        if host.successor is None and self.random.random() < 0.4:
            expires = int(Clock(self.party.loop).time()) + 3600
            text = issue(
                host.state.invite_key, KEYED_ROOM, role, expires=expires, once=self.random.random() < 0.7
            )
            return parse_key(text)
        return Passphrase(KEYS[0])

    # The evening ------------------------------------------------------------------------------------------------------

    async def play(self) -> None:
        """Play it."""
        party, rng = self.party, self.random
        self._invite()
        for host in party.hosts:
            host.start()
        self._watch = party.loop.create_task(self._keep_watch())
        for player in party.players:
            party.loop.call_later(rng.random() * 1.5, player.start)
        await asyncio.sleep(4.0)
        end = self.now + rng.choice((12.0, 20.0, 38.0))
        while self.now < end:
            await self._happen()
            await asyncio.sleep(rng.choice((0.1, 1.0, 4.0, 10.0)) * 2 * rng.random())
        await asyncio.gather(*self._under_way)
        await self._settle()
        await self._say_goodbye()

    async def _happen(self) -> None:
        rng = self.random
        what, weight = zip(*self._acts(), strict=True)
        act = rng.choices(what, weight)[0]
        self.summary.events += 1
        self._under_way.append(self.party.loop.create_task(act()))
        await asyncio.sleep(0)

    def _acts(self) -> list[tuple[Callable[[], Awaitable[None]], int]]:
        return [
            (self._darken_player, 6),
            (self._darken_relay, 2),
            (self._kill_relay, 2),
            (self._end_relay, 3),
            (self._kill_player, 3),
            (self._stop_player, 2),
            (self._move_player, 2),
            (self._shrink, 1),
            (self._start_twice, 1),
            (self._start_impostor, 1),
            (self._kick, 1),
            (self._ban, 1),
            (self._change_key, 3),
        ]

    def _someone(self) -> Player | None:
        there = [one for one in self.party.players if len(one.running) == 1 and not one.is_busy]
        return self.random.choice(there) if there else None

    def _trouble_all(self, until: float) -> None:
        for player in self.party.players:
            player.trouble(until)

    # What may happen --------------------------------------------------------------------------------------------------

    def _darkness(self) -> tuple[tuple[int, ...], float]:
        ways = self.random.choice(((UP,), (DOWN,), (UP, DOWN), (UP, DOWN)))
        return ways, self.random.choice((0.3, 0.9, 1.5, 2.4, 4.0, 8.0)) * (0.7 + 0.6 * self.random.random())

    async def _darken_player(self) -> None:
        if (player := self._someone()) is None:
            return
        ways, lasts = self._darkness()
        player.running[0].machine.line.darken(ways, self.now + lasts)
        player.trouble(self.now + lasts)
        self.party.tell(f"{player.name}'s line is dark for {lasts:.2f} s, {_names(ways)}")

    async def _darken_relay(self) -> None:
        host = self.random.choice(self.party.hosts)
        ways, lasts = self._darkness()
        host.machine.line.darken(ways, self.now + lasts)
        self._trouble_all(self.now + lasts)
        self.party.tell(f"{host.name}'s line is dark for {lasts:.2f} s, {_names(ways)}")

    async def _kill_relay(self) -> None:
        host = self.random.choice(self.party.hosts)
        if host.is_busy:
            return
        host.is_busy = True
        pause = self.random.choice((0.2, 1.0, 3.0, 6.0)) * self.random.random() + 0.05
        self.party.tell(f"{host.name} is killed, and back in {pause:.2f} s")
        self._trouble_all(self.now + pause)
        await host.kill()
        await asyncio.sleep(pause)
        host.start()
        self.party.tell(f"{host.name} is started")
        host.is_busy = False

    async def _end_relay(self) -> None:
        rng = self.random
        host = rng.choice(self.party.hosts)
        if host.is_busy:
            return
        host.is_busy = True
        drain = rng.choice((0.0, 0.0, 2.0, 5.0))
        pause = rng.choice((0.3, 2.0, 6.0)) * rng.random() + 0.05
        self.party.tell(f"{host.name} is told to end (drain {drain:g} s), and back {pause:.2f} s later")
        self._trouble_all(self.now + drain + 2.0 + pause)
        await host.end(drain)
        self.party.tell(f"{host.name} has ended")
        await asyncio.sleep(pause)
        host.start()
        self.party.tell(f"{host.name} is started")
        if rng.random() < 0.3:
            # Just when they come back.
            self._trouble_all(self.now + 4.0)
            await asyncio.sleep(1.5 * rng.random())
            self.party.tell(f"{host.name} is told to end again")
            await host.end(0.0)
            host.start()
            self.party.tell(f"{host.name} is started")
        host.is_busy = False

    async def _kill_player(self) -> None:
        if (player := self._someone()) is None:
            return
        pause = self.random.choice((0.1, 1.0, 4.0)) * self.random.random()
        self.party.tell(f"{player.name} is killed, and back in {pause:.2f} s")
        player.is_busy = True
        await player.running[0].kill()
        await asyncio.sleep(pause)
        player.is_busy = False
        player.start()

    async def _stop_player(self) -> None:
        if (player := self._someone()) is None:
            return
        pause = self.random.choice((0.1, 1.0, 4.0)) * self.random.random()
        self.party.tell(f"{player.name} is stopped, and back {pause:.2f} s later")
        player.is_busy = True
        await self._stop(player.running[0])
        await asyncio.sleep(pause)
        player.is_busy = False
        player.start()

    async def _stop(self, run: SessionRun) -> None:
        run.stop()
        await asyncio.wait([run.main], timeout=LEAVES_WITHIN_S)
        if not run.main.done():
            self.party.breaks(f"{run.name} was stopped {LEAVES_WITHIN_S:g} s ago and has not ended")

    async def _move_player(self) -> None:
        if (player := self._someone()) is None:
            return
        host = (
            f"10.{self.random.randrange(2, 200)}.{self.random.randrange(250)}.{self.random.randrange(1, 250)}"
        )
        self.party.tell(f"{player.name} has another address: {host}")
        player.running[0].machine.move(host)
        # What was under way is lost.
        player.trouble(self.now)

    async def _shrink(self) -> None:
        if (player := self._someone()) is None:
            return
        line = player.machine.line
        line.mtu = self.random.choice((1472, 1400, 1280))
        self.party.tell(f"{player.name}'s line carries {line.mtu} bytes")

    async def _start_twice(self) -> None:
        """The same program with the same identity once more, elsewhere."""
        if (player := self._someone()) is None:
            return
        machine = Machine(
            self.party.network,
            f"10.9.{self.random.randrange(250)}.{self.random.randrange(1, 250)}",
            self._line(),
        )
        self.party.tell(f"{player.name} is started a second time, at {machine.host}")
        player.permits.add(Code.REPLACED)
        player.trouble(self.now + 20.0)
        player.is_patient = False
        player.start(machine)

    async def _start_impostor(self) -> None:
        """Another program with the same MAC, or a second gateway, that has not the secret."""
        if (player := self._someone()) is None:
            return
        number = self.random.randrange(100, 200)
        machine = Machine(self.party.network, f"10.8.0.{number}", self._line())
        impostor = Player(
            self.party, f"{player.name}-double", machine, player.relay, player.room, player.role, number
        )
        impostor.mac = player.mac
        impostor.key = player.key
        impostor.is_patient = False
        self.party.tell(f"{impostor.name} is started at {machine.host}")
        # One identity for whoever keeps the place: what is done to one is done to both.
        impostor.permits = player.permits
        player.permits |= {Code.DUPLICATE_MAC, Code.GATEWAY_PRESENT, Code.REPLACED}
        if not isinstance(player.key, Passphrase):
            player.permits.add(Code.INVITE_USED)
        impostor.trouble(self.now)
        impostor.start()

    def _relay_of(self, player: Player) -> RelayHost | None:
        run = player.running[0]
        connection = run.session.connection
        if connection is None:
            return None
        host = self.party.host_at(connection.remote_address)
        return host if host.run is not None and not host.is_busy else None

    def _ask(self, host: RelayHost, request: Any) -> bool:
        assert host.run is not None
        try:
            with within(host.run):
                host.run.desk.handle(request)
        except SoftlanError as error:
            self.party.tell(f"{host.name} refuses: {error}")
            return False
        return True

    async def _kick(self) -> None:
        if (player := self._someone()) is None or (host := self._relay_of(player)) is None:
            return
        assert host.run is not None
        ids = [
            m.peer_id
            for m, *_ in host.run.relay.peers()
            if (m.room, m.resume) == (player.room, player.resume)
        ]
        if not ids:
            return
        player.permits.add(Code.KICKED)
        player.trouble(self.now + 1.0)
        self.party.tell(f"{player.name} is kicked")
        self._ask(host, AskKick(room=player.room, peer=str(ids[0])))
        await asyncio.sleep(5.0 * self.random.random())
        self._try_again(player)

    async def _ban(self) -> None:
        if (player := self._someone()) is None or (host := self._relay_of(player)) is None:
            return
        target = str(player.mac or player.running[0].machine.host)
        for one in self.party.players:
            if str(one.mac) == target or target in {run.machine.host for run in one.running}:
                one.permits.add(Code.BANNED)
                one.trouble(self.now + 1.0)
        self.party.tell(f"{target} ({player.name}) is banned")
        self._ask(host, AskBan(room=player.room, target=target))
        host.banned.add((player.room, target))
        await asyncio.sleep(1.0 + 8.0 * self.random.random())
        if self.random.random() < 0.5 and host.run is not None:
            self._ask(host, AskUnban(room=player.room, target=target))
            host.banned.discard((player.room, target))
            self.party.tell(f"{target} ({player.name}) may come again")
        self._try_again(player)

    def _try_again(self, player: Player) -> None:
        """Somebody who was sent away does what people do."""
        if not player.running and not player.is_busy:
            player.start()

    async def _change_key(self) -> None:
        (key,) = set(KEYS) - {self.key}
        self.key = key
        rules = self._rules(key)
        self.party.tell(f"the key of {KEYED_ROOM} is {key!r} now")
        for player in self.party.players:
            if isinstance(player.key, Passphrase) and player.key.text != key:
                player.permits.add(Code.KEY_WRONG)
        for host in self.party.hosts:
            if host.rules.rooms:
                host.replace_rules(rules)
        self.party.keys_end = {former: self.now for former in KEYS if former != key} | {
            former: at for former, at in self.party.keys_end.items() if former != key
        }

    # What must hold ---------------------------------------------------------------------------------------------------

    async def _keep_watch(self) -> None:
        for look in itertools.count():
            await asyncio.sleep(LOOK_S)
            for host in self.party.hosts:
                if host.run is not None:
                    host.run.check()
                    if look % 5 == 0:
                        host.run.check_numbers()
            if self.loss < MUCH:
                for run in [run for player in self.party.players for run in player.running]:
                    run.check()

    async def _settle(self) -> None:
        """Let all be well; then everybody who should be in is in, soon, and stays."""
        party = self.party
        for machine in [host.machine for host in party.hosts] + [p.machine for p in party.players]:
            machine.line.heal()
        for run in [run for player in party.players for run in player.running]:
            run.machine.line.heal()
        party.tell("all is well from now on")
        since = self.now
        await asyncio.sleep(NOTICED_WITHIN_S)
        await self._hold(self._missing)
        self.summary.back_s = self.now - since
        party.tell("everybody is in")
        before = self._joins()
        await asyncio.sleep(STAYS_S)
        if self.loss < MUCH and (joins := self._joins()) != before:
            party.breaks(f"somebody joined again without a reason: {before} {joins}")
        await self._hold(lambda: self._missing() or self._left_over())
        self._count_joins()

    async def _hold(self, find_wrong: Callable[[], list[str]]) -> None:
        """Hold what is so to what should be; lines that lose get a while for it."""
        limit = BACK_WITHIN_S[self.loss]
        since = self.now
        while (wrong := find_wrong()) and self.now < since + limit:  # noqa: ASYNC110
            await asyncio.sleep(0.25)
        for what in wrong:
            self.party.breaks(f"after {limit:g} s without a fault {what}")

    def _missing(self) -> list[str]:
        """Say what is not yet as it should be."""
        missing = []
        for player in self.party.players:
            running = player.running
            # One for each relay: relays know nothing of each other.
            if len({run.session.relay for run in running}) < len(running):
                missing.append(f"{player.name} runs {len(running)} times")
            for run in running:
                if not run.inside:
                    missing.append(f"{run.name} is not in")
            if player.is_waiting:
                missing.append(f"{player.name} still tries to come in")
            if not running and not player.permits:
                missing.append(f"{player.name} does not run, and nothing was done to it")
        for host in self.party.hosts:
            assert host.run is not None
            missing += self._compare(host)
        return missing

    def _compare(self, host: RelayHost) -> list[str]:
        """Compare who is in at a relay with what sessions believe, and with what each was told."""
        assert host.run is not None
        relay = host.run.relay
        there: dict[str, dict[int, Any]] = {}
        for run in [run for player in self.party.players for run in player.running if run.inside]:
            connection = run.session.connection
            if connection is not None and connection.remote_address == host.address:
                there.setdefault(run.player.room, {})[run.peer_id] = run
        wrong = []
        rooms = {room.code: room for room in relay._rooms}
        for code in sorted(set(rooms) | set(there)):
            members = {} if code not in rooms else {m.peer_id: m for m in rooms[code].members.values()}
            here = there.get(code, {})
            if set(members) != set(here):
                wrong.append(f"{host.name} has {set(members)} in {code}, and {set(here)} believe they are")
                continue
            for peer_id, run in here.items():
                if members[peer_id].mac != run.player.mac or members[peer_id].resume != run.player.resume:
                    wrong.append(f"{run.name} has another's id {peer_id}")
                facts = {(m.peer_id, m.role, m.mac) for m in members.values() if m.peer_id != peer_id}
                told = {(p.peer_id, p.role, p.mac) for p in run.peers.values()}
                if facts != told:
                    wrong.append(f"{run.name} was told of {told}, and {facts} are there")
                assert run.session.welcome is not None
                if run.session.welcome.tap_mtu != rooms[code].tap_mtu:
                    wrong.append(f"{run.name} has another MTU than its room")
        return wrong

    def _joins(self) -> dict[str, int]:
        return {run.name: run.joins for player in self.party.players for run in player.runs}

    def _left_over(self) -> list[str]:
        """Say what is kept of what is over."""
        wrong = []
        for host in self.party.hosts:
            assert host.run is not None
            wrong += host.run.left_over()
        for run in [run for player in self.party.players for run in player.running]:
            kept = run.endpoint.open_links
            if kept != [run.session.connection]:
                wrong.append(f"{run.name} keeps {len(kept)} connections")
        return wrong

    def _count_joins(self) -> None:
        """Hold everybody to have joined no more often than what was done explains."""
        for player in self.party.players:
            for run in player.runs:
                self.summary.joins += run.joins
                self.summary.rejoins += max(0, run.joins - 1)
                by_chance = int(BY_CHANCE[self.loss] * (1 + self.now / 10))
                if run.unexplained > by_chance:
                    self.party.breaks(f"{run.name} joined {run.unexplained} times without a reason")
                if run.joins > 1 + player.troubles + by_chance:
                    self.party.breaks(f"{run.name} joined {run.joins} times for {player.troubles} reasons")

    async def _say_goodbye(self) -> None:
        """Everybody leaves; nothing is left."""
        party = self.party
        for player in party.players:
            player.is_patient = False
        running = [run for player in party.players for run in player.running]
        await asyncio.gather(*(self._stop(run) for run in running))
        await asyncio.sleep(0.0 if not running else 4.0)
        for host in party.hosts:
            assert host.run is not None
            if host.run.relay.peer_count:
                party.breaks(f"{host.name} has {host.run.relay.peer_count} peers after all have left")
            await host.end(0.0)
        for run in [run for player in party.players for run in player.runs]:
            if run.tasks:
                party.breaks(f"{run.name} left {list(run.tasks)}")
            if run.endpoint.open_links:
                party.breaks(f"{run.name} left {len(run.endpoint.open_links)} connections")
        assert self._watch is not None
        self._watch.cancel()
        await asyncio.sleep(0)
        self.summary.seconds = self.now
        self.summary.packets, self.summary.lost = party.network.packets, party.network.lost


def _names(ways: tuple[int, ...]) -> str:
    return " and ".join("up" if way == UP else "down" for way in ways)
