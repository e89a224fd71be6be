"""Short stories of one thing each, for what has to come out one way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from fake_core import Machine
from lines import Line
from party import Broken, Party, Player, RelayHost, SessionRun, play_out
from virtual_clock import Clock

from softlan.control.codes import Code
from softlan.control.keys import issue, parse_key
from softlan.control.messages import Role
from softlan.relay.rules import OPEN_RULES, Rules

__all__ = [
    "drop_out",
    "find_again",
    "follow",
    "refuse",
    "start_twice",
    "stop_while_doubled",
    "stop_while_judged",
]


def _play(seed: int, scene: Callable[[Party], Awaitable[None]]) -> Party:
    party = play_out(seed, scene)
    if party.wrong:
        raise Broken.in_party(party)
    return party


def _relay(party: Party, name: str, number: int, rules: Rules = OPEN_RULES) -> RelayHost:
    return RelayHost(party, name, f"10.0.0.{number}", Line(random=party.random, delay=0.0005), rules)


async def _players(party: Party, relay: RelayHost, *names: str) -> list[SessionRun]:
    """Start the relay and players on good lines, and let them come in."""
    relay.start()
    for number, name in enumerate(names, 1):
        line = Line(random=party.random, delay=party.random.choice((0.001, 0.01, 0.02)))
        machine = Machine(party.network, f"10.1.0.{number}", line)
        Player(party, name, machine, relay, "OPEN", Role.CLIENT, number).start()
    await asyncio.sleep(3.0 + party.random.random())
    return [player.running[0] for player in party.players]


def _darken(party: Party, run: SessionRun, ways: tuple[int, ...], lasts: float) -> None:
    party.tell(f"{run.name}'s line is dark for {lasts:.2f} s, {ways}")
    run.machine.line.darken(ways, party.loop.time() + lasts)


async def _end(runs: list[SessionRun]) -> None:
    for run in runs:
        run.stop()
    await asyncio.gather(*(run.main for run in runs))


def drop_out(seed: int, ways: tuple[int, ...], lasts: float) -> None:
    """Somebody's line is dark for a moment. Raises Broken: a session has another connection than before, or somebody was told of it."""

    async def scene(party: Party) -> None:
        relay = _relay(party, "relay", 1)
        runs = await _players(party, relay, "ann", "bob")
        before = [run.session.connection for run in runs]
        _darken(party, runs[0], ways, lasts)
        await asyncio.sleep(10.0)
        if [run.session.connection for run in runs] != before or any(run.joins != 1 for run in runs):
            party.breaks("somebody has another connection")
        await _end(runs)
        await relay.end(0.0)

    _play(seed, scene)


def stop_while_doubled(seed: int) -> None:
    """A session is told to end just when its second connection has found the relay. Raises Broken: something of that is left."""

    async def scene(party: Party) -> None:
        party.network.resets = False
        relay = _relay(party, "relay", 1)
        (run,) = await _players(party, relay, "ann")
        await relay.kill()
        relay.start()
        while len([link for link in run.endpoint.open_links if link.connected]) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.3 * party.random.random())
        run.stop()
        await asyncio.wait([run.main])
        await asyncio.sleep(4.0)
        if run.tasks:
            party.breaks(f"tasks are left: {list(run.tasks)}")
        assert relay.run is not None
        if relay.run.relay.peer_count:
            party.breaks("the relay has it still")
        await relay.end(0.0)

    _play(seed, scene)


def stop_while_judged(seed: int) -> None:
    """A program with an invite for one is stopped while the relay writes down its use, and is started again at once.

    Raises Broken: the hello of the first one comes to something.
    """

    async def scene(party: Party) -> None:
        relay = _relay(party, "relay", 1, Rules())
        relay.start()
        expires = int(Clock(party.loop).time()) + 3600
        machine = Machine(party.network, "10.1.0.1", Line(random=party.random))
        ann = Player(party, "ann", machine, relay, "INVITED", Role.CLIENT, 1)
        ann.key = parse_key(issue(relay.state.invite_key, "INVITED", expires=expires, once=True))
        first = ann.start()
        while not relay.state.writes:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        first.stop()
        await asyncio.wait([first.main])
        second = ann.start()
        await asyncio.sleep(5.0)
        if not second.inside or second.joins != 1:
            party.breaks(f"{second.name} is in {second.joins} times")
        await _end(ann.running)
        await relay.end(0.0)

    _play(seed, scene)


def find_again(seed: int) -> float:
    """A relay is killed and back at once, and does not say that it knows nobody; gives the seconds until all are in again."""
    took = []

    async def scene(party: Party) -> None:
        party.network.resets = False
        relay = _relay(party, "relay", 1)
        runs = await _players(party, relay, "ann", "bob")
        await relay.kill()
        relay.start()
        since = party.loop.time()
        assert relay.run is not None
        while relay.run.relay.peer_count < 2 and party.loop.time() < since + 10.0:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        took.append(party.loop.time() - since)
        await _end(runs)
        await relay.end(0.0)

    _play(seed, scene)
    return took[0]


def follow(seed: int, lasts: float, *, begins: float | None = None, away: float = 0.0) -> None:
    """A relay drains and ends for good, and names another; meanwhile somebody's line is dark. Raises Broken: not all have followed.

    The dark begins so many seconds into the eight of the drain, or at its beginning. The other is `away` for so long, once all are there.
    """

    async def scene(party: Party) -> None:
        relay, other = _relay(party, "relay", 1), _relay(party, "second", 2)
        relay.successor = other
        other.start()
        runs = await _players(party, relay, "ann", "bob", "eve")
        first = party.random.random() * 2.0 if begins is None else begins
        party.loop.call_later(first, _darken, party, runs[0], (0, 1), lasts)
        await relay.end(drain_s=8.0)
        await asyncio.sleep(8.0 + lasts)
        if away:
            await other.kill()
            await asyncio.sleep(away)
            other.start()
            await asyncio.sleep(15.0)
        for run in runs:
            connection = run.session.connection
            if connection is None or connection.remote_address != other.address or len(run.peers) != 2:
                party.breaks(f"{run.name} is not in at the other relay")
        await _end(runs)
        await other.end(0.0)

    _play(seed, scene)


def refuse(seed: int) -> None:
    """The relay that takes another's place has no such room. Raises Broken: not all are back where they were, once it has returned."""

    async def scene(party: Party) -> None:
        relay, other = _relay(party, "relay", 1), _relay(party, "second", 2, Rules())
        relay.successor = other
        other.start()
        runs = await _players(party, relay, "ann", "bob")
        await relay.end(drain_s=0.0)
        await asyncio.sleep(4.0 * party.random.random())
        relay.start()
        await asyncio.sleep(6.0)
        for run in runs:
            if not run.inside or len(run.peers) != 1:
                party.breaks(f"{run.name} is not back")
        await _end(runs)
        await relay.end(0.0)
        await other.end(0.0)

    _play(seed, scene)


def start_twice(seed: int, lasts: float) -> str:
    """A player's program is started again elsewhere while the first one's line is dark; gives the name of the one that is in at last.

    Raises Broken: it is not just one.
    """

    async def scene(party: Party) -> None:
        relay = _relay(party, "relay", 1)
        runs = await _players(party, relay, "ann", "bob")
        ann = party.players[0]
        ann.permits.add(Code.REPLACED)
        _darken(party, runs[0], (0, 1), lasts)
        await asyncio.sleep(0.1)
        ann.start(Machine(party.network, "10.9.0.1", Line(random=party.random, delay=0.01)))
        await asyncio.sleep(10.0 + lasts)
        if len(ann.running) != 1 or not ann.running[0].inside:
            party.breaks(f"{len(ann.running)} programs with one identity")
        party.tell(ann.running[0].name)
        await _end([run for player in party.players for run in player.running])
        await relay.end(0.0)

    party = _play(seed, scene)
    return "first" if "ann#1" in {what for _, what in party.told} else "second"
