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
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

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
}
"""The counter in which each kind of datagram ends; `oversized` frames come in nine fragments each."""
KINDS: Final = tuple(COUNTED)
LIMITED: Final = ("broadcast", "unknown")
"""The kinds of which the relay lets through what a peer's limits allow. Of the others it lets through nothing."""
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


class Attacker:
    """A machine on the internet with the tool on it."""

    def __init__(self, party: Party, tool: Path, name: str = "mallory") -> None:
        self.party = party
        self.host = party.machine(name)
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

    async def initials(self, count: int, rate: float, within: float = 300) -> Mapping[str, Any]:
        """Send `count` Initials from as many addresses at `rate` a second; call `accept_spoofed` before."""
        return await self._run(["initials", _TARGET, str(count), str(rate)], within)

    def accept_spoofed(self) -> None:
        """Have the relay's answers to spoofed addresses come to this machine, which throws them away."""
        assert self.party.relay is not None
        mine = self.host.run("ip", "-4", "-o", "addr", "show", "dev", "wan").split()[3].partition("/")[0]
        relay = self.party.relay.host
        relay.ip(f"route add {SPOOFED_NET} via {mine} dev wan")
        for name in ("all", "wan"):
            relay.setting(f"ipv4/conf/{name}/rp_filter", "0")

    async def _run(self, words: list[str], within: float) -> Mapping[str, Any]:
        # An attacker's processor is not the relay's: here it takes what the others leave over.
        idle = ["chrt", "--idle", "0"] if shutil.which("chrt") else []
        program = Program(self.host, "mallory", [*idle, str(self._tool), *words])
        await program.start()
        try:
            status = await program.wait(within)
        finally:
            program.kill()
        if status != 0:
            raise LabError(f"the attacker ended with {status}:\n{program.tail()}")
        told: Mapping[str, Any] = json.loads(program.lines[-1])
        return told


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
