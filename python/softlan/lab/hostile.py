"""What peers that mean harm do to a relay and to everybody else: the attacks, run against a party, and what they cost.

The attacker is `softlan-hostile` (rust/hostile), a program of its own: real QUIC at a rate Python does not reach.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from softlan.observe.counters import known_counters

from . import census
from .host import Host
from .namespaces import LabError
from .packets import mac_text
from .party import RELAY_ADDRESS, RELAY_PORT, ROOM, Client, Party, Relay
from .pinger import Pinger, Stretch
from .players import Player
from .programs import Program

COUNTED: Final[Mapping[str, str]] = {
    "garbage": "drop_malformed",
    "empty": "drop_malformed",
    "runt": "drop_runt",
    "foreign": "drop_malformed",
    "spoofed": "drop_source_foreign",
    "incomplete": "drop_reassembly",
    "contradictory": "drop_reassembly",
    "oversized": "drop_jumbo",
    "macs": "drop_no_target",
    "broadcast": "drop_limit_broadcast",
    "unknown": "drop_limit_unknown",
    "elsewhere": "drop_limit_unknown",
    "outsider": "drop_malformed",
}
"""The counter in which each kind of datagram ends; `oversized` frames come in nine fragments each."""
KINDS: Final = tuple(COUNTED)
LIMITED: Final = ("broadcast", "unknown", "elsewhere")
"""The kinds of which the relay lets through what a peer's limits allow. Of the others it lets through nothing."""
UNICAST: Final = "unicast"
"""Good frames to another player of the room: no counter is for these, and without `--limit-total` no limit."""
ELSEWHERE: Final = ("elsewhere", "outsider")
"""The kinds whose victim is a client of another room: frames to its MAC, and frames under its peer id and MAC."""
CROSSING: Final = (*ELSEWHERE, "broadcast")
"""What would reach other rooms if anything did."""
_DEALT_WITH: Final = ("begun", "retries", "held_back", "dropped")
"""What becomes of a first packet, by the relay's own names (`handshakes` in its status)."""
_BEFORE_THE_SWITCH: Final = ("drop_malformed", "drop_reassembly")
SPOOFED_NET: Final = "198.18.0.0/15"
"""Where the spoofed Initials come from (RFC 2544: for benchmarks, never on the internet)."""
_TARGET: Final = f"{RELAY_ADDRESS}:{RELAY_PORT}"
_LOAD: Final = str(Path(__file__).with_name("load.py"))
_PORT: Final = 5010


def build_tool(root: Path) -> Path:
    """Build the attacker from the source tree at `root` and give its path. Raises `LabError`: that cannot be."""
    if shutil.which("cargo") is None:
        raise LabError("cargo is not installed", hint="the attacker is a Rust program: rust/hostile")
    built = subprocess.run(
        ["cargo", "build", "--release", "-q", "-p", "softlan-hostile"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode != 0:
        raise LabError(f"the attacker cannot be built:\n{built.stderr}")
    return Path(os.environ.get("CARGO_TARGET_DIR", root / "target")) / "release" / "softlan-hostile"


@dataclass
class Watch:
    """What is watched while the relay is attacked: memory each tenth of a second, and other peers' pings."""

    relay: Relay
    pingers: Sequence[Pinger]
    memory: list[int] = field(default_factory=list)

    async def sample(self) -> None:
        """Look at the relay's memory until cancelled."""
        while True:
            self.memory.append(census.memory_kib(self.relay.program.pid))
            await asyncio.sleep(0.1)

    def pings(self, start: float, end: float) -> Stretch:
        """Give all pings of a stretch together."""
        return self.pooled([(start, end)])

    def pooled(self, times: Sequence[tuple[float, float]]) -> Stretch:
        """Give all pings of several stretches together."""
        stretches = [pinger.between(start, end) for pinger in self.pingers for start, end in times]
        trips = sorted(trip for stretch in stretches for trip in stretch.trips)
        return Stretch(sum(stretch.sent for stretch in stretches), tuple(trips))


@contextlib.asynccontextmanager
async def watching(
    relay: Relay, *pairs: tuple[Player, Player], interval: float = 0.01
) -> AsyncIterator[Watch]:
    """Watch a relay, and pings from the first of each pair to the second every `interval` seconds."""
    with contextlib.ExitStack() as stack:
        pingers = [
            stack.enter_context(Pinger(source.station, target.address, interval=interval))
            for source, target in pairs
        ]
        watch = Watch(relay, pingers)
        sampling = asyncio.create_task(watch.sample())
        try:
            yield watch
        finally:
            sampling.cancel()
            await asyncio.gather(sampling, return_exceptions=True)


_LAST = ("sh", "-c", '{ echo 19 >/proc/self/autogroup; } 2>/dev/null; exec "$@"', "sh")
"""Runs a program after all others where the kernel shares the processors among sessions first (sched(7), autogroup): there the idle policy
counts within a session alone, and each attacker would have as much as the relay."""


class Attacker:
    """A machine on the internet with the tool on it."""

    def __init__(self, party: Party, tool: Path, name: str = "mallory") -> None:
        self.party = party
        self.host = party.machine(name)
        self.addresses = [self.host.address_of("wan")]
        """Those it sends from; the first is the one it uses where nothing else is said."""
        self._tool = tool

    async def datagrams(
        self,
        kind: str,
        count: int,
        rate: float,
        *,
        room: str = ROOM,
        victim: Client | None = None,
        within: float = 300,
    ) -> Mapping[str, Any]:
        """Send `count` datagrams of one of `KINDS` at `rate` a second, over as many connections as it takes."""
        words = [] if victim is None else [str(victim.peer_id), mac_text(victim.mac)]
        return await self._run(["datagrams", _TARGET, room, kind, str(count), str(rate), *words], within)

    async def control(
        self, kind: str, count: int, rate: float, *, peers: int = 1, room: str = ROOM, within: float = 300
    ) -> Mapping[str, Any]:
        """Have `peers` at once say `count` "messages" together, or bytes of them as "drips", each of them `rate` a second."""
        return await self._run(["control", _TARGET, room, kind, str(peers), str(count), str(rate)], within)

    async def readers(
        self, peers: int, count: int, rate: float, *, visits: int = 0, room: str = ROOM, within: float = 300
    ) -> Mapping[str, Any]:
        """Have `peers` read nothing while `count` frames are for them, and then others come and go `visits` times."""
        return await self._run(
            ["readers", _TARGET, room, str(peers), str(count), str(rate), str(visits)], within
        )

    async def halves(self, kind: str, count: int, rate: float, within: float = 300) -> Mapping[str, Any]:
        """Begin `count` connections from all of its addresses in turn: "handshakes" left half way, or "silent" ones without a hello."""
        return await self._run(["halves", _TARGET, kind, str(count), str(rate), *self.addresses], within)

    async def initials(self, count: int, rate: float, within: float = 300) -> Mapping[str, Any]:
        """Send `count` Initials from as many addresses at `rate` a second; call `accept_spoofed` before."""
        return await self._run(["initials", _TARGET, str(count), str(rate)], within)

    def take_address(self, address: str) -> None:
        """Give its machine one more address on the internet ("203.0.113.201")."""
        self.host.ip(f"addr add {address}/24 dev wan")
        self.addresses.append(address)

    def accept_spoofed(self) -> None:
        """Have the relay's answers to spoofed addresses come to this machine, which throws them away."""
        assert self.party.relay is not None
        relay = self.party.relay.host
        relay.ip(f"route add {SPOOFED_NET} via {self.addresses[0]} dev wan")
        for name in ("all", "wan"):
            relay.setting(f"ipv4/conf/{name}/rp_filter", "0")

    async def _run(self, words: list[str], within: float) -> Mapping[str, Any]:
        # An attacker's processor is not the relay's: here it takes what the others leave over.
        idle = ["chrt", "--idle", "0"] if shutil.which("chrt") else []
        program = Program(self.host, "mallory", [*_LAST, *idle, str(self._tool), *words])
        await program.start()
        try:
            status = await program.wait(within)
        finally:
            program.kill()
        if status != 0:
            raise LabError(f"the attacker ended with {status}:\n{program.tail()}")
        told: Mapping[str, Any] = json.loads(program.lines[-1])
        return told


@dataclass
class Books:
    """What a relay says of an attacker while it is at it: in its log, and when it is asked, which is twice a second."""

    relay: Relay
    attacker: Attacker
    first: Mapping[str, Any]
    """Its status before."""
    last: Mapping[str, Any] = field(default_factory=dict)
    """Its status after."""
    most: Counter[str] = field(default_factory=Counter)
    """The most there were at once of `unfinished` handshakes and `unannounced` connections, of all attackers together."""

    def __post_init__(self) -> None:
        self._since = self.relay.program.mark()
        self._reported: dict[tuple[str, int], int] = {}

    def enter(self, status: Mapping[str, Any]) -> None:
        """Note what the relay's status says meanwhile."""
        unfinished = status["handshakes"]["unfinished"]
        self.most |= Counter({"unfinished": unfinished, "unannounced": status["unannounced"]})
        for room in status["rooms"]:
            for peer in room["peers"]:
                if self._is_theirs(peer["came_from"]):
                    self._reported[room["code"], peer["peer_id"]] = peer["reported"].get("frames_received", 0)

    def _is_theirs(self, address: str) -> bool:
        return address.rpartition(":")[0] in self.attacker.addresses

    def joined(self) -> list[tuple[str, int]]:
        """Give the room and the peer id of each of the attacker's peers."""
        events = self.relay.program.found("peer.joined", self._since)
        return [
            (e.fields["room"], e.fields["peer_id"]) for e in events if self._is_theirs(e.fields["address"])
        ]

    def counters(self) -> dict[tuple[str, int], Counter[str]]:
        """Give what the relay counted of each of them that has left again, by room and peer id."""
        events = self.relay.program.found("peer.left", self._since)
        left = {(e.fields["room"], e.fields["peer_id"]): known_counters(e.fields) for e in events}
        return {peer: Counter(left[peer]) for peer in self.joined() if peer in left}

    async def until_all_left(self) -> None:
        """Wait until the relay knows of each of them that it is gone."""
        for room, peer_id in self.joined():
            await self.relay.program.event("peer.left", 60, since=self._since, room=room, peer_id=peer_id)

    @property
    def said(self) -> int:
        """How much of what the attacker said on control streams the relay has read, by what it was told of it there."""
        return sum(self._reported.values())

    def turned_away(self, code: str) -> int:
        """Count whom the relay turned away meanwhile for one reason, whoever it was."""
        return int(self.last["turned_away"].get(code, 0) - self.first["turned_away"].get(code, 0))

    def handshakes(self) -> dict[str, int]:
        """Count what became of first packets meanwhile, whoever's they were."""
        before, after = self.first["handshakes"], self.last["handshakes"]
        return {name: int(after[name] - before[name]) for name in _DEALT_WITH}


@contextlib.asynccontextmanager
async def keeping_books(
    relay: Relay, *attackers: Attacker, patience: float = 15.0
) -> AsyncIterator[list[Books]]:
    """Look at a relay before, during and after what each of `attackers` does inside.

    After is when it knows that their peers have left, `patience` seconds later at most: of those that just fall silent it knows in time.
    """
    first = await relay.status()
    kept = [Books(relay, attacker, first) for attacker in attackers]

    async def look() -> None:
        while True:
            await asyncio.sleep(0.5)
            # One that is too busy to say how it is shows as what is missing.
            with contextlib.suppress(LabError):
                status = await relay.status()
                for books in kept:
                    books.enter(status)

    looking = asyncio.create_task(look())
    try:
        yield kept
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience):
            for books in kept:
                await books.until_all_left()
    last = await relay.status()
    for books in kept:
        books.last = last


def let_through(kind: str, counters: Mapping[str, int]) -> int:
    """Give the frames of an attack that were not dropped, by the relay's counters of the attacker."""
    received = counters.get("frames_received", 0)
    return received - (0 if COUNTED[kind] in _BEFORE_THE_SWITCH else counters.get(COUNTED[kind], 0))


def wire_bytes(host: Host, interface: str = "wan") -> tuple[int, int]:
    """Give the bytes an interface has sent and received, Ethernet headers included."""
    [told] = json.loads(host.run("ip", "-s", "-j", "link", "show", "dev", interface))
    return int(told["stats64"]["tx"]["bytes"]), int(told["stats64"]["rx"]["bytes"])


@dataclass(frozen=True)
class Passed:
    """What a limit let through: bits a second offered and passed, Ethernet headers included."""

    limit: float
    offered: float
    passed: float

    @property
    def error(self) -> float:
        """How far what passed is from the limit, as a share of it."""
        return self.passed / self.limit - 1


async def limited(
    source: Client, sink: Player, limit: float, *, times: float, seconds: float, broadcast: bool = False
) -> Passed:
    """Send UDP from `source` at `times` a limit in bits a second and see how much reaches `sink` once the burst is spent."""
    # The first burst is 64 KiB or a tenth of a second (rust/switch/src/limits.rs), and is spent by what is above the limit.
    spent = max(64 * 1024 * 8, limit / 10) / (limit * (times - 1)) * 1.3 + 0.5
    address = "192.168.88.255" if broadcast else sink.address
    megabits = limit * times * 1200 / 1242 / 1e6
    with sink.host.socket() as listener:
        listener.bind(("", _PORT))
        command = [sys.executable, "-I", "-S", _LOAD, address, str(_PORT), f"{megabits:.6f}", "1200"]
        program = Program(source.host, "load", command)
        await program.start()
        try:
            await asyncio.sleep(spent)
            sent, received = (
                wire_bytes(source.host, source.station.interface),
                wire_bytes(sink.host, sink.station.interface),
            )
            start = time.monotonic()
            await asyncio.sleep(seconds)
            after = wire_bytes(sink.host, sink.station.interface)
            took = time.monotonic() - start
            offered = wire_bytes(source.host, source.station.interface)
        finally:
            program.kill()
            await program.wait(5)
    # A TAP's own counters are the host's side: what the client's machine sends is `tx` there.
    return Passed(limit, (offered[0] - sent[0]) * 8 / took, (after[1] - received[1]) * 8 / took)
