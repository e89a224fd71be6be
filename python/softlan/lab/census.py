"""What a running part and its machine hold, counted from outside: descriptors, threads, asyncio tasks, memory; interfaces, routes.

Compared before and after something went wrong, it tells what was left behind. Sources: proc_pid_fd(5), proc_pid_status(5).
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from .host import Host
from .namespaces import LabError
from .party import Part

_LOOK: Final = "ip -br link; ip -o addr; ip route show table all; ip -6 route show table all"
_PATIENCE_S: Final = 30.0
"""How long a part may take to answer on a machine with other things to do."""
_POOLS: Final = {"softlan-control": 5}
"""Threads of the shared runtime: its worker, and those that take the GIL for it (rust/python/src/lib.rs)."""
_VOLATILE: Final = re.compile(
    r"\\.*|\s(tentative|dadfailed|LOWER_UP|UNKNOWN|UP|DOWN|NO-CARRIER|linkdown|dead)\b|<.*?>|@\S+|\sstate \S+"
)
"""What says how an interface is just now, and lifetimes: no change of the configuration."""


@dataclass(frozen=True)
class Holdings:
    """What one process holds."""

    pid: int
    descriptors: Counter[str] = field(default_factory=Counter)
    """How many of each kind: `socket`, `/dev/net/tun`, `anon_inode:[eventpoll]`, ..."""
    threads: Counter[str] = field(default_factory=Counter)
    """How many of each name."""
    tasks: int = 0
    """asyncio tasks, the one that answers the status request included."""

    def beyond(self, other: Holdings) -> list[str]:
        """Say in words what this holds more than `other` did."""
        more = [f"{count} more of {kind}" for kind, count in (self.descriptors - other.descriptors).items()]
        for name, count in (self.threads - other.threads).items():
            # A pool may grow to its bound at any time: more threads are a leak above that only.
            if self.threads[name] > _POOLS.get(name, 0):
                more.append(f"{count} more threads {name}")
        if self.tasks > other.tasks:
            more.append(f"{self.tasks - other.tasks} more tasks")
        return more


async def holdings(part: Part) -> Holdings:
    """Count what a running part holds. Raises `LabError`: it does not answer."""
    pid = part.program.pid
    reader, writer = await _asked(part)
    try:
        answer = json.loads(await reader.read())
    except (OSError, ValueError) as failure:
        raise LabError(
            f"{part.name} broke its status off ({failure}); its log:\n{part.program.tail()}"
        ) from None
    finally:
        writer.close()
    # The answer has come and the part's side of it is about to close: the same moment each time.
    await asyncio.sleep(0.01)
    return _look(pid, int(answer["tasks"]))


def _look(pid: int, tasks: int) -> Holdings:
    process = Path(f"/proc/{pid}")
    return Holdings(pid, Counter(_kinds(process / "fd")), Counter(_lines(process.glob("task/*/comm"))), tasks)


async def _asked(part: Part) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            return await asyncio.open_unix_connection(await part.status_socket())
    except OSError as failure:
        what = str(failure) or f"nothing in {_PATIENCE_S:g} s"
        raise LabError(f"{part.name} tells no status ({what}); its log:\n{part.program.tail()}") from None


def _lines(paths: Iterable[Path]) -> Iterable[str]:
    for path in paths:
        try:
            yield path.read_text(encoding="ascii", errors="replace").strip()
        except OSError:  # ended since it was listed
            continue


def _kinds(directory: Path) -> Iterable[str]:
    for entry in os.listdir(directory):
        try:
            target = os.readlink(directory / entry)
        except OSError:  # closed since it was listed
            continue
        yield "socket" if target.startswith("socket:") else re.sub(r"\d{2,}", "N", target)


def memory_kib(pid: int) -> int:
    """Give the memory a process has in RAM (VmRSS), in KiB."""
    return _status_kib(pid, "VmRSS")


def peak_memory_kib(pid: int) -> int:
    """Give the most memory a process ever had in RAM (VmHWM), in KiB."""
    return _status_kib(pid, "VmHWM")


def processor_s(pid: int) -> float:
    """Give the processor's time in seconds that a process has had, in all its threads (utime and stime of proc_pid_stat(5))."""
    # The second field is a name in parentheses, which may hold anything.
    fields = (
        Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    )
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _status_kib(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise LabError(f"process {pid} tells no {name}")


def network(host: Host) -> frozenset[str]:
    """List a machine's interfaces, addresses and routes, one line each, without what changes by itself."""
    lines = host.run("sh", "-c", _LOOK, check=False).splitlines()
    return frozenset(" ".join(_VOLATILE.sub(" ", re.sub(r"^\d+: ", "", line)).split()) for line in lines)


def slope(values: Sequence[float]) -> float:
    """Give the straight line's rise per step that fits `values` best (least squares); 0 of fewer than three."""
    count = len(values)
    if count < 3:
        return 0.0
    middle, mean = (count - 1) / 2, sum(values) / count
    above = sum((index - middle) * (value - mean) for index, value in enumerate(values))
    return above / sum((index - middle) ** 2 for index in range(count))
