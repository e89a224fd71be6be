"""What `softlan.lab.faults` makes of a party it strikes; that the strikes are real is shown by `tests/e2e/test_faults.py`."""

from __future__ import annotations

from typing import Any

import pytest

from softlan.lab import faults
from softlan.lab.scene import Scene
from softlan.lab.soak import Fault, Outcome, soak


class Silent:
    """A machine or client that does whatever it is told."""

    def ip(self, *commands: str) -> None:
        pass

    def move(self, address: str) -> None:
        pass

    @property
    def machine(self) -> Silent:
        return self


class FakeScene(Scene):
    """A party that is back after the given seconds, one after another, and then at once: it works."""

    def __init__(self, *waits: float) -> None:
        self.pingers, self.memory = {}, {}
        self.ann: Any = Silent()
        self.home, self.home_v6 = "203.0.113.3", "2001:db8:5050::3/64"
        self.waits = list(waits)

    @property
    def parts(self) -> dict[str, Any]:
        return {}

    async def back(self, since: float) -> float:
        return self.waits.pop(0) if self.waits else 0.0

    async def left_behind(self) -> list[str]:
        return []


async def struck(strike: Any, scene: Scene) -> Outcome:
    return await soak(Fault("a", "a fault", strike), scene, 1, seed=1)


@pytest.mark.parametrize("waits", [(3.5, 0.03), (0.03, 3.5)])
async def test_the_slower_of_two_moves_counts(waits: tuple[float, float]) -> None:
    outcome = await struck(faults._moved, FakeScene(*waits))
    assert outcome.back == [3.5]
    assert outcome.late == 1
