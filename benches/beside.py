"""What peers that mean harm do beside sending datagrams, each for a while, and then all of it at once: what it costs others.

`benches/hostile.py` runs this. Each attack comes from a machine of its own, so that no address pays for another attack's sins. How much of
it came to the relay is what the relay itself says, not what the attacker believes to have sent.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from softlan.errors import SoftlanError
from softlan.lab import Party, census
from softlan.lab.frames import FramePort
from softlan.lab.hostile import ELSEWHERE, KINDS, UNICAST, Attacker, Books, Watch, keeping_books
from softlan.lab.party import ROOM, Client, Relay

LOCAL_ETHERTYPE = b"\x88\xb5"
"""IEEE 802 local experimental EtherType 1: what the attacker's frames have."""
PERMITTED = 20.0
"""Control messages a second that a relay takes of a peer (`GateLimits`)."""
TALKERS, READERS, VISITS = 16, 4, 300
"""Visits: a reader is told of each twice, and may leave 512 messages unread."""


@dataclass(frozen=True)
class Arrived:
    """How much of an attack came to the relay, in its own counters."""

    words: str
    enough: bool


@dataclass(frozen=True)
class Attack:
    """One thing to do to a relay."""

    what: str
    attacker: Attacker
    do: Callable[[], Awaitable[Any]]
    arrived: Callable[[Any, Books], Arrived]


@dataclass(frozen=True)
class Cost:
    """What one attack, or several at once, cost."""

    what: str
    arrived: list[Arrived]
    memory_mib: float
    pings: int
    lost: int
    p99_before_ms: float
    p99_ms: float
    newcomer: str
    joined: bool
    processors: float
    """Of the relay's machine, on average."""

    @property
    def slower_ms(self) -> float:
        """How much longer the 99th of a hundred pings took."""
        return self.p99_ms - self.p99_before_ms

    @property
    def bearable(self) -> bool:
        """Whether it met the goals: 32 MiB, 0.1 % of the others' pings, 2 ms, and a newcomer joined."""
        return (
            self.memory_mib <= 32 and self.lost < 0.001 * self.pings and self.slower_ms <= 2 and self.joined
        )


class Bystander:
    """A client of another room, whom nothing of what happens in this one may reach."""

    ROOM = "OTHER"

    def __init__(self, party: Party, client: Client, ear: FramePort) -> None:
        self._party, self.client, self._ear = party, client, ear
        self._heard = 0

    @classmethod
    async def join(cls, party: Party) -> Self:
        """Have one join."""
        client = await party.start_client("cat", room=cls.ROOM, address="192.168.88.53")
        return cls(party, client, client.frames())

    async def reached(self) -> int:
        """Count the frames that the relay says it sent there, or that came out there if that is more."""
        while (frame := self._ear.receive_now()) is not None:
            self._heard += frame[12:14] == LOCAL_ETHERTYPE
        return max(self._heard, await self._sent())

    async def hears(self) -> bool:
        """Whether it can be reached at all: somebody of its own room does so."""
        before = await self._sent()
        friend = await self._party.start_client("eve", room=self.ROOM, address="192.168.88.55")
        pinged = await friend.ping(self.client, 3)
        return pinged.received > 0 and await self._sent() > before

    def close(self) -> None:
        """Listen no longer."""
        self._ear.close()

    async def _sent(self) -> int:
        relay = self._party.relay
        assert relay is not None
        # It may have lost its place meanwhile and come back to another.
        gone = sum(
            int(event.fields.get("frames_sent", 0))
            for event in relay.program.found("peer.left", room=self.ROOM)
        )
        there = [
            int(peer["counters"]["frames_sent"]) for peer in await relay.peers() if peer["room"] == self.ROOM
        ]
        return gone + sum(there)


@dataclass
class Scene:
    """A party that is attacked, and who watches it."""

    party: Party
    tool: Path
    relay: Relay
    watch: Watch
    ben: Client
    cat: Bystander
    newcomer: Client
    seconds: float
    rate: float
    quiet: list[tuple[float, float]] = field(default_factory=list)
    """When nobody attacked: from and to, in seconds of `time.monotonic`."""

    def __post_init__(self) -> None:
        self._spare = itertools.count(100)

    def attacker(self, addresses: int = 1) -> Attacker:
        """Give a machine that nobody knows yet, with so many addresses."""
        attacker = Attacker(self.party, self.tool)
        for _ in range(addresses - 1):
            attacker.take_address(f"203.0.113.{next(self._spare)}")
        return attacker

    def unicast(self) -> Attack:
        """Good frames to one player at a rate at which nobody plays, without `--limit-total`."""
        mallory, count = self.attacker(), int(self.rate * self.seconds)
        return Attack(
            f"a flood of good unicast to a player ({self.rate:,.0f} frames/s, no limit set)",
            mallory,
            lambda: mallory.datagrams(UNICAST, count, self.rate, victim=self.ben),
            lambda told, books: _share(_received(books), int(told["sent"]), "frames"),
        )

    def permitted(self, talkers: int = TALKERS) -> Attack:
        """As many control messages as peers may say, and nearly as long."""
        mallory, count = self.attacker(), int(talkers * PERMITTED * self.seconds)

        def arrived(told: Mapping[str, Any], books: Books) -> Arrived:
            share, ended = (
                _share(books.said, int(told["sent"]), "messages"),
                books.turned_away("control-flood"),
            )
            return Arrived(f"{share.words}, {ended} peers ended for it", share.enough and not ended)

        return Attack(
            f"{talkers} peers that say {PERMITTED:g} control messages a second each, as they may",
            mallory,
            lambda: mallory.control("messages", count, PERMITTED, peers=talkers),
            arrived,
        )

    def drips(self, rate: float = 16_000) -> Attack:
        """Control messages byte by byte, a packet for each, and nearly as many bytes as a peer may say in the long run."""
        mallory = self.attacker()
        return Attack(
            f"control messages in packets of one byte ({rate:,.0f}/s)",
            mallory,
            lambda: mallory.control("drips", int(rate * self.seconds), rate),
            lambda told, books: _share(books.said, int(told["sent"]), "bytes"),
        )

    def control_flood(self) -> Attack:
        """Fifty times as many control messages as a peer may say, and back again each time it is ended."""
        mallory = self.attacker()

        def arrived(told: Mapping[str, Any], books: Books) -> Arrived:
            ended, kept_out = books.turned_away("control-flood"), books.turned_away("too-many-attempts")
            words = f"{ended} of {told['connections']} connections ended for it, {kept_out} kept out then"
            return Arrived(words, 0 < ended >= told["connections"] - 1)

        return Attack(
            f"control messages at {PERMITTED * 50:,.0f}/s, back each time",
            mallory,
            # Until it is refused too often.
            lambda: mallory.control("messages", 1_000_000, PERMITTED * 50),
            arrived,
        )

    def readers(self, rate: float, visits: int = VISITS) -> Attack:
        """Peers that read neither frames nor messages, of which there are many for them."""
        mallory, count = self.attacker(), int(rate * self.seconds)

        def arrived(told: Mapping[str, Any], books: Books) -> Arrived:
            counters = books.counters()
            fed = counters.get((ROOM, told["feeder"]), Counter())["frames_received"]
            theirs = sum((counters.get((ROOM, peer), Counter()) for peer in told["readers"]), Counter())
            dropped = theirs["drop_queue_full"] + theirs["drop_queue_delay"]
            ended, share = books.turned_away("slow-reader"), _share(fed, int(told["sent"]), "frames for them")
            words = f"{share.words}, {theirs['frames_sent']:,} sent on, {dropped:,} dropped from their queues"
            if visits:
                words += (
                    f"; {ended} of {len(told['readers'])} ended as slow-reader after {told['visits']} visits"
                )
            return Arrived(words, share.enough and (not visits or ended == len(told["readers"])))

        then = f", then {visits} visitors one after the other, to be told of" if visits else ""
        return Attack(
            f"{READERS} peers that read nothing ({rate:,.0f} frames/s for them{then})",
            mallory,
            lambda: mallory.readers(READERS, count, rate, visits=visits),
            arrived,
        )

    def silent(self, rate: float = 100) -> Attack:
        """Connections that never say hello, from one address."""
        mallory = self.attacker()

        def arrived(told: Mapping[str, Any], books: Books) -> Arrived:
            made, most = int(told["established"]), books.most["unannounced"]
            late, many = books.turned_away("hello-timeout"), books.turned_away("too-many-connections")
            words = f"{made} of {told['sent']} made, {most} at once at most, {many} sent away, {late} after their time"
            return Arrived(words, made >= 0.9 * told["sent"] and most + many + late >= 0.9 * made)

        return Attack(
            f"connections without a hello ({rate:,.0f}/s from one address)",
            mallory,
            lambda: mallory.halves("silent", int(rate * self.seconds), rate),
            arrived,
        )

    def handshakes(self, rate: float = 400, addresses: int = 1) -> Attack:
        """Handshakes that are begun and left, from addresses that answer a Retry."""
        mallory = self.attacker(addresses)

        def arrived(told: Mapping[str, Any], books: Books) -> Arrived:
            became, most = books.handshakes(), books.most["unfinished"]
            words = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in became.items())
            return Arrived(f"{words}; {most} unfinished at most", sum(became.values()) >= 0.9 * told["sent"])

        where = "one address" if addresses == 1 else f"{addresses} addresses"
        return Attack(
            f"handshakes begun and left ({rate:,.0f}/s from {where})",
            mallory,
            lambda: mallory.halves("handshakes", int(rate * self.seconds), rate),
            arrived,
        )

    def floods(self) -> Attack:
        """All kinds of datagrams side by side, at the rate of one."""
        mallory, kinds = self.attacker(), (*KINDS, UNICAST)
        rate = self.rate / len(kinds)

        async def do() -> int:
            told = await asyncio.gather(
                *(
                    mallory.datagrams(
                        kind,
                        int(rate * self.seconds),
                        rate,
                        room="MACS" if kind == "macs" else ROOM,
                        victim=self.cat.client if kind in ELSEWHERE else self.ben,
                    )
                    for kind in kinds
                )
            )
            return sum(int(one["sent"]) for one in told)

        return Attack(
            f"{len(kinds)} kinds of datagrams ({self.rate:,.0f}/s together)",
            mallory,
            do,
            lambda sent, books: _share(_received(books), sent, "datagrams"),
        )


def _received(books: Books) -> int:
    return sum(counters["datagrams_received"] for counters in books.counters().values())


def _share(received: int, sent: int, what: str) -> Arrived:
    return Arrived(f"{received:,} of {sent:,} {what}", 0 < received >= 0.9 * sent)


def _arrived(attack: Attack, told: Any, books: Books) -> Arrived:
    if isinstance(told, BaseException):
        return Arrived(f"broke off: {' '.join(str(told).split())}"[:200].replace("|", "/"), enough=False)
    return attack.arrived(told, books)


async def measure(scene: Scene, what: str, attacks: Sequence[Attack]) -> Cost:
    """Watch a while without, then while all of `attacks` go on; somebody joins in the midst of it."""
    watch, relay = scene.watch, scene.relay
    await asyncio.sleep(0.5)
    calm_start = time.monotonic()
    await asyncio.sleep(scene.seconds)
    memory = max(watch.memory[-20:])
    scene.quiet.append((calm_start, time.monotonic()))
    seen, spent = len(watch.memory), census.processor_s(relay.program.pid)
    async with keeping_books(relay, *(attack.attacker for attack in attacks)) as kept:
        start = time.monotonic()
        going = asyncio.gather(*(attack.do() for attack in attacks), return_exceptions=True)
        try:
            await asyncio.sleep(scene.seconds * 0.6)
            joining = time.monotonic()
            try:
                await scene.newcomer.start()
                joined, newcomer = True, f"joins in {time.monotonic() - joining:.1f} s"
            except SoftlanError as error:
                joined, newcomer = False, "does not join"
                print(error, flush=True)
            settled = time.monotonic() + 0.5
            told = await going
        finally:
            going.cancel()
            await asyncio.gather(going, return_exceptions=True)
        end = time.monotonic()
        processors = (census.processor_s(relay.program.pid) - spent) / (end - start)
        await scene.newcomer.part.stop()
    calm = watch.pings(*scene.quiet[-1])
    # Without the newcomer's own start, for which this one machine has to find the time as well.
    stormy = watch.pooled([(start, joining), (settled, end - 0.3)])
    return Cost(
        what=what,
        arrived=[_arrived(*all_of_one) for all_of_one in zip(attacks, told, kept, strict=True)],
        memory_mib=(max(watch.memory[seen:]) - memory) / 1024,
        pings=stormy.sent,
        lost=stormy.lost,
        p99_before_ms=calm.percentile(0.99) * 1000,
        p99_ms=stormy.percentile(0.99) * 1000,
        newcomer=newcomer,
        joined=joined,
        processors=processors,
    )


def against_all_quiet(scene: Scene, costs: Sequence[Cost]) -> list[Cost]:
    """Hold what attacks cost against every quiet stretch of the run: of a thousand pings alone, the slowest ten are chance."""
    before_ms = scene.watch.pooled(scene.quiet).percentile(0.99) * 1000
    return [replace(cost, p99_before_ms=before_ms) for cost in costs]


async def handshakes_are_over(relay: Relay, within: float = 20) -> None:
    """Wait until the relay has given up what others left half way, so that the next attack does not pay for it."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        if not (await relay.status())["handshakes"]["unfinished"]:
            break
        await asyncio.sleep(0.2)
