"""Strikes a party with one kind of fault again and again, and keeps the figures: how soon it was back, and what was left behind.

A fault is a function that strikes a `Scene` once and tells when it was over; which there are is the business of `faults`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from softlan.texts import several

from .namespaces import LabError
from .scene import Scene

__all__ = ["Fault", "Outcome", "Strike", "Strikes", "soak"]

PROMISED_S: Final = 3.0
"""Within this the party must be back."""
ENDS_WITHIN_S: Final = 2.0
"""Within this a part that is told to end must have ended."""
SPARED_LOSS: Final = 0.005
"""The share of the bystander's pings that may be lost. One connection of theirs that broke once would cost 40 pings (the second
of silence that is noticed), 0.8 % of the most that any fault sent in a full run; none was lost in 11,000."""
SPARED_FEW: Final = 3
"""So many may be lost however few there were: as many were while a busy machine had no processor for a frame."""
LEAK_KIB: Final = 64.0
"""A part that grows by more in each cycle does not come to an end. Full runs had up to 60 KiB, once, and
most up to 22, as queues and pools came to their size within the first minutes (docs/reliability.md)."""


@dataclass
class Strike:
    """One fault that struck: when it was over (seconds of `time.monotonic`), and what was seen that ought not be."""

    over: float
    back_s: float | None = None
    """Seconds from `over` until the party was back, from a strike that has to know it itself; None: to be measured."""
    ended_s: float | None = None
    """How long a part that was told to end took."""
    start_s: float | None = None
    """How long a part that was started again took to its first word: what a busy machine adds to all the rest."""
    wrong: list[str] = field(default_factory=list)


Strikes = Callable[[Scene, random.Random, int], Awaitable[Strike]]


@dataclass(frozen=True)
class Fault:
    """One kind of trouble: its name, what it is in words, how to do it, and which pings must not even notice."""

    name: str
    title: str
    strike: Strikes
    spared: tuple[str, ...] = ()
    full: int = 20
    quick: int = 1
    scene: Callable[[], contextlib.AbstractAsyncContextManager[Scene]] | None = None
    """What it needs in place of the usual scene."""
    promised_s: float = PROMISED_S


@dataclass
class Outcome:
    """What came of one fault, struck many times. Times are in seconds."""

    name: str
    title: str
    back: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    started: list[float] = field(default_factory=list)
    own: list[float] = field(default_factory=list)
    """As `back`, less what a part that was started again took to its first word: softlan's own share of it."""
    stories: list[str] = field(default_factory=list)
    """What happened in cycles after which the party was back late."""
    spared_lost: int = 0
    spared_sent: int = 0
    leaks: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    growth: tuple[str, float, int] = ("", 0.0, 0)
    promised_s: float = PROMISED_S

    @property
    def late(self) -> int:
        """Cycles after which the party was not back in time."""
        return sum(wait > self.promised_s for wait in self.back)

    @property
    def late_own(self) -> int:
        """Cycles after which the party was not back in time by softlan's own share."""
        return sum(wait > self.promised_s for wait in self.own)

    def never_right(self) -> list[str]:
        """Say what must not be, whatever the machine's load."""
        gone = sum(math.isinf(wait) for wait in self.back)
        return [
            *self.leaks,
            *self.wrong,
            *([f"not back at all after {several(gone, 'cycle')}"] if gone else []),
        ]

    def not_as_promised(self) -> list[str]:
        """Say what is not as promised on a machine that has time for it, the program's own start left aside."""
        found = []
        slow = [wait for wait in self.own if self.promised_s < wait < math.inf]
        if slow:
            worst = f"the worst {max(slow):.2f} s, the program's start left out"
            found.append(f"later than {self.promised_s:g} s after {several(len(slow), 'cycle')}, {worst}")
        hanging = [wait for wait in self.ended if wait > ENDS_WITHIN_S]
        if hanging:
            cycles = several(len(hanging), "cycle")
            found.append(
                f"took longer than {ENDS_WITHIN_S:g} s to end in {cycles}, {max(hanging):.2f} s at worst"
            )
        if self.spared_lost > max(SPARED_FEW, SPARED_LOSS * self.spared_sent):
            found.append(f"a bystander lost {self.spared_lost} of {self.spared_sent} pings")
        part, kib, cycles_seen = self.growth
        if kib > LEAK_KIB:
            found.append(f"{part} grew by {kib:.0f} KiB a cycle over {cycles_seen} cycles")
        return found

    @property
    def median(self) -> float:
        """The middle of the times to be back."""
        return _middle(self.back)

    def as_json(self) -> dict[str, Any]:
        """Give it for machines."""
        part, kib, cycles = self.growth
        return {
            "name": self.name,
            "title": self.title,
            "cycles": len(self.back),
            "back_median_s": round(self.median, 3) if self.back else None,
            "back_worst_s": round(max(self.back), 3) if self.back else None,
            "own_median_s": round(_middle(self.own), 3) if self.own else None,
            "own_worst_s": round(max(self.own), 3) if self.own else None,
            "late": self.late,
            "late_own": self.late_own,
            "start_median_s": round(_middle(self.started), 3) if self.started else None,
            "start_worst_s": round(max(self.started), 3) if self.started else None,
            "ended_worst_s": round(max(self.ended), 3) if self.ended else None,
            "bystander_pings": self.spared_sent,
            "bystander_pings_lost": self.spared_lost,
            "leaks": self.leaks,
            "wrong": self.wrong,
            "stories": self.stories,
            "memory": {"part": part, "kib_per_cycle": round(kib, 2), "cycles": cycles},
        }


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


async def soak(
    fault: Fault, scene: Scene, cycles: int, seed: int, told: Callable[[Outcome], None] | None = None
) -> Outcome:
    """Strike `cycles` times; after each the party must be back and everybody hold what they held before."""
    dice = random.Random(f"{seed} {fault.name}")  # noqa: S311 - a repeatable run is the point
    outcome = Outcome(fault.name, fault.title, promised_s=fault.promised_s)
    for cycle in range(cycles):
        start, marks = time.monotonic(), scene.marks()
        strike = await fault.strike(scene, dice, cycle)
        outcome.back.append(await scene.back(strike.over) if strike.back_s is None else strike.back_s)
        if outcome.back[-1] > fault.promised_s:
            told_late = (
                f"cycle {cycle + 1}, back after {outcome.back[-1]:.2f} s: {scene.story(marks, strike.over)}"
            )
            outcome.stories.append(told_late)
        outcome.own.append(outcome.back[-1] - (strike.start_s or 0.0))
        if strike.start_s is not None:
            outcome.started.append(strike.start_s)
        if strike.ended_s is not None:
            outcome.ended.append(strike.ended_s)
        outcome.wrong += [f"cycle {cycle + 1}: {words}" for words in strike.wrong]
        for name in fault.spared:
            seen = scene.pingers[name].between(start, time.monotonic() - 0.3)
            outcome.spared_sent += seen.sent
            outcome.spared_lost += seen.lost
        outcome.leaks += [f"cycle {cycle + 1}: {words}" for words in await scene.left_behind()]
        for name, part in scene.parts.items():
            if not part.program.running:
                raise LabError(
                    f"{name} has ended after cycle {cycle + 1} of {fault.name}:\n{part.program.tail()}"
                )
        if told is not None:
            told(outcome)
        await asyncio.sleep(dice.uniform(0.1, 0.5))
    outcome.growth = scene.growth()
    return outcome
