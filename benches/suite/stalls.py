"""Looks for stalls: many short downloads over the lossy line, each in a place of its own with losses of its own."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

from peers import Site, System
from softlan.lab import LabError

from . import probes
from .lines import LOSSY

_STALLED = 0.1
"""A second below this part of the run's median second is a stall."""


async def look(
    system: System, runs: int, seconds: float, algorithm: str | None, say: Callable[[str], None]
) -> dict[str, Any]:
    """Run them; TCP that does not end is a stall too, a system that does not come up is told apart. Odd runs go down, even ones up."""
    rates: list[float] = []
    bad: list[dict[str, Any]] = []
    failed = 0
    for seed in range(1, runs + 1):
        down = seed % 2 == 1
        started = False
        try:
            async with Site(LOSSY.line, seed) as site:
                client = await system.start(site)
                started = True
                stream = await probes.tcp(
                    site, client, down=down, seconds=seconds, flows=LOSSY.flows, algorithm=algorithm
                )
        except (LabError, OSError, TimeoutError) as failure:
            failed += not started
            what = "no result" if started else "did not come up"
            bad.append({"seed": seed, "words": f"{what}: {str(failure).splitlines()[0]}"})
            say(f"run {seed}: {what}: {failure}")
            continue
        rates.append(stream.megabits)
        words = f"{'down' if down else 'up'} {stream.megabits:.1f} Mbit/s, by the second " + ", ".join(
            f"{rate:.0f}" for rate in stream.intervals
        )
        stalled = is_stalled(stream.intervals)
        if stalled:
            bad.append({"seed": seed, "words": words})
        say(f"run {seed}: {words}{', STALLED' if stalled else ''}")
    return {
        "system": system.name,
        "line": LOSSY.line.name,
        "runs": runs,
        "seconds": seconds,
        "stalled": len(bad) - failed,
        "failed": failed,
        "bad": bad,
        "rates": rates,
        "slowest": min(rates, default=None),
        "median": probes.median(rates),
        "fastest": max(rates, default=None),
    }


def unlike(former: Mapping[str, Any], meta: Mapping[str, Any]) -> str | None:
    """Say why what a former run found is nothing a run with this `meta` may show as its own; None: it may."""
    if str(former["commit"]).endswith("-dirty"):
        return f"of commit {former['commit']}, and nobody knows with which changes"
    for what, words in (("commit", "commit"), ("tcp", "TCP")):
        if former[what] != meta[what]:
            return f"of {words} {former[what]}, this is {meta[what]}"
    return None


def is_stalled(intervals: tuple[float, ...]) -> bool:
    """Tell whether any second moved less than a tenth of the median second; none at all is a stall too."""
    if not intervals or statistics.median(intervals) <= 0:
        return True
    return min(intervals) < _STALLED * statistics.median(intervals)
