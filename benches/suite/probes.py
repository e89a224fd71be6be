"""The measuring itself, with real tools on the lab's machines: ping, iperf3, a UDP load, /proc/stat."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import os
import re
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

from peers import Site
from peers.yardsticks import YARDSTICKS, until_said
from softlan.lab import LabError, Player

_ports = itertools.count(5201)
_TICK = os.sysconf("SC_CLK_TCK")
_BUSY = (0, 1, 2, 5, 6)
"""user, nice, system, irq, softirq (proc_stat(5)): not idle, not waiting, not stolen by another machine."""
_MOVING = 256 * 1024
"""Bytes after which data is moving, and no more than connections are being made."""
_MOST_UDP = 640_000
_LEAST_UDP = 1_000


@dataclass
class Pings:
    """Round trips in ms, and how many were asked for; more are added run by run."""

    sent: int = 0
    times: list[float] = field(default_factory=list)

    def add(self, other: Pings) -> None:
        """Take over another's."""
        self.sent += other.sent
        self.times += other.times

    @property
    def lost(self) -> int:
        """How many were not answered within a second."""
        return self.sent - len(self.times)

    def at(self, part: float) -> float | None:
        """Give the round trip in ms that this part of the answers took at most (nearest rank); None without any."""
        ordered = sorted(self.times)
        return ordered[max(0, math.ceil(part * len(ordered)) - 1)] if ordered else None


async def ping(source: Player, target: Player, count: int, interval: float) -> Pings:
    """Ping `count` times, `interval` seconds apart, with the kernel's own time stamps.

    With fping, which sleeps between two requests. iputils' ping calls `sched_yield` in a loop for the last 10 ms of each wait
    (`main_loop` in its `ping_common.c`): at such intervals it takes up to half a processor from those that are measured.
    """
    period = f"{1000 * interval:g}"
    command = ["fping", "-c", f"{count}", "-p", period, "-t", "1000", "-b", "56", target.address]
    limit = count * interval + 15
    told = await asyncio.to_thread(source.host.run, *command, check=False, timeout=limit)
    return read_fping(count, told)


def read_fping(count: int, told: str) -> Pings:
    """Read fping's line for each answer. One that came twice counts once."""
    answers: dict[int, float] = {}
    for sequence, took in re.findall(r": \[(\d+)\], \d+ bytes, ([\d.]+) ms", told):
        answers.setdefault(int(sequence), float(took))
    return Pings(count, list(answers.values()))


async def _listening(player: Player, port: int, within: float = 5.0) -> None:
    """Wait until a machine listens for TCP there (proc_pid_net(5): state 0A). Raises `LabError` when it does not."""

    def look() -> bool:
        files = (Path("/proc/thread-self/net", name) for name in ("tcp", "tcp6"))
        lines = [line.split() for file in files if file.exists() for line in file.read_text().splitlines()]
        return any(line[1].endswith(f":{port:04X}") and line[3] == "0A" for line in lines)

    deadline = time.monotonic() + within
    while not player.host.call(look):
        if time.monotonic() > deadline:
            raise LabError(f"{player.name} does not listen on port {port}")
        await asyncio.sleep(0.02)


@dataclass(frozen=True)
class Stream:
    """What iperf3 said of one run: TCP payload that arrived, and how even it came."""

    megabits: float
    bytes: int
    retransmits: int
    intervals: tuple[float, ...]
    """Mbit/s in each whole second at the receiver."""


async def tcp(
    site: Site, client: Player, *, down: bool, seconds: float, flows: int = 1, algorithm: str | None = None
) -> Stream:
    """Run iperf3 between client and LAN host. Raises `LabError` when it fails or does not end."""
    port = str(next(_ports))
    server = await site.program(site.server.host, "iperf3", "iperf3", "-s", "-1", "-p", port, "-J")
    try:
        await _listening(site.server, int(port))
        command = ["iperf3", "-c", site.server.address, "-p", port, "-t", f"{seconds:g}", "-i", "1"]
        command += ["-P", f"{flows}", "-J", *(["-R"] if down else [])]
        command += ["-C", algorithm] if algorithm else []
        said = await asyncio.to_thread(client.host.run, *command, check=False, timeout=seconds + 20)
        if '"error"' not in said:
            await server.wait(5)
    finally:
        await server.stop()
    try:
        told = json.loads(said)
        end = told["end"]
        receiver = told if down else json.loads("\n".join(server.lines))
        return Stream(
            megabits=end["sum_received"]["bits_per_second"] / 1e6,
            bytes=end["sum_received"]["bytes"],
            retransmits=end["sum_sent"].get("retransmits", 0),
            intervals=tuple(
                interval["sum"]["bits_per_second"] / 1e6
                for interval in receiver["intervals"]
                if interval["sum"]["seconds"] > 0.5
            ),
        )
    except (ValueError, KeyError) as failure:
        problem = said if len(said) < 400 else said[:400] + "..."
        with contextlib.suppress(ValueError):
            problem = json.loads(said).get("error", problem)
        raise LabError(f"iperf3 gave no result ({failure!r}): {problem}") from None


async def loaded(
    site: Site, client: Player, *, down: bool, seconds: float, flows: int = 1, algorithm: str | None = None
) -> tuple[Stream, Pings, float | None]:
    """Run TCP with a ping meanwhile; also how full a bad line was on the way the data went, 0 to 1.

    What counts begins half a second after data began to move: on a line that loses packets, iperf3 may need seconds to connect.
    """
    before = _carried(client)
    moving = asyncio.create_task(
        tcp(site, client, down=down, seconds=seconds, flows=flows, algorithm=algorithm)
    )
    while _carried(client) - before < _MOVING:
        if moving.done():
            break
        await asyncio.sleep(0.02)
    head = min(0.6, seconds / 3)
    await asyncio.sleep(head)
    filling = asyncio.create_task(_fullness(site, down=down, seconds=seconds - head - 0.3))
    interval = 0.01 if site.line is None else 0.02
    pings = await ping(client, site.server, max(5, int((seconds - head - 0.2) / interval)), interval)
    stream = await moving
    return stream, pings, await filling


def _carried(player: Player) -> int:
    """Give the bytes all interfaces of a machine have carried, both ways (proc_pid_net(5), dev)."""

    def look() -> int:
        lines = Path("/proc/thread-self/net/dev").read_text(encoding="ascii").splitlines()[2:]
        columns = [line.partition(":")[2].split() for line in lines]
        return sum(int(column[0]) + int(column[8]) for column in columns)

    return player.host.call(look)


async def _fullness(site: Site, *, down: bool, seconds: float) -> float | None:
    """Give the part of a bad line's rate that was used in the next seconds; None without a line."""
    if site.line is None:
        return None
    before = site.carried()
    await asyncio.sleep(max(0.2, seconds))
    after = site.carried()
    way = 2 if down else 1
    took = after[0] - before[0]
    return (after[way] - before[way]) * 8 / took / site.line.rate if took > 0 else None


def cpu_seconds() -> float:
    """Give the CPU time the whole machine has spent so far."""
    first = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:]
    return sum(int(first[place]) for place in _BUSY) / _TICK


async def udp_attempt(
    site: Site, client: Player, size: int, rate: float, seconds: float
) -> tuple[float, float]:
    """Send datagrams of `size` bytes from the client to the LAN host; give those a second that arrived, and the part lost."""
    where = f"{site.server.address}:{next(_ports)}"
    sink = await site.program(site.server.host, "sink", str(YARDSTICKS), "sink", where, f"{seconds + 4:g}")
    await until_said(sink)
    command = [str(YARDSTICKS), "load", where, f"{size}", f"{rate:.0f}", f"{seconds:g}"]
    said = await asyncio.to_thread(client.host.run, *command, timeout=seconds + 15)
    await sink.wait(seconds + 10)
    sent, took = said.split()
    came = int(sink.lines[-1]) if sink.lines[-1].isdigit() else 0
    return came / float(took), 1 - came / max(1, int(sent))


async def udp_limit(site: Site, client: Player, size: int, seconds: float, steps: int = 4) -> float:
    """Find the most datagrams a second that arrive with less than 1 % lost: doubling, then halving the gap in ratio."""
    best, low, high, rate = 0.0, 0.0, 0.0, 20_000.0
    while _LEAST_UDP <= rate <= _MOST_UDP:
        came, lost = await udp_attempt(site, client, size, rate, seconds)
        if 0.01 <= lost < 0.05:  # near the limit a moment's noise decides: once more
            came, lost = await udp_attempt(site, client, size, rate, seconds)
        if lost < 0.01:
            best, low = max(best, came), rate
            if came < 0.85 * rate:  # the sender itself is at its end
                return best
        else:
            high = rate
        if low and high:
            if steps == 0:
                break
            steps -= 1
            rate = math.sqrt(low * high)
        else:
            rate = rate * 2 if low else rate / 2
    return best


def median(values: list[float]) -> float | None:
    """Give the median; None of nothing."""
    return statistics.median(values) if values else None
