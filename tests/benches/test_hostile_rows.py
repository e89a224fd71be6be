"""What `benches/hostile.py` makes of what attacks cost: a row that misses its goal says so, and so does one for which nothing arrived."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benches"))

import hostile
from beside import Arrived, Cost

WELL = Cost(
    what="something",
    arrived=[Arrived("99 of 100 words", enough=True)],
    memory_mib=3.0,
    pings=1000,
    lost=0,
    p99_before_ms=2.0,
    p99_ms=2.5,
    newcomer="joins in 0.6 s",
    joined=True,
    processors=0.25,
)


def met(**more: Any) -> list[bool | None]:
    return [line.good for line in hostile.lines_of(dataclasses.replace(WELL, **more))]


def test_an_attack_has_a_row_for_its_cost_and_one_for_what_arrived() -> None:
    assert met() == [True, True]
    cost, arrived = hostile.lines_of(WELL)
    assert cost.measured == "+3.0 MiB, 0 of 1000, +0.50 ms, joins in 0.6 s"
    assert arrived.measured == "99 of 100 words; 0.25"


@pytest.mark.parametrize(
    "missed",
    [{"memory_mib": 32.1}, {"lost": 1}, {"p99_ms": 4.1}, {"joined": False}, {"p99_ms": float("nan")}],
)
def test_any_missed_goal_is_a_no(missed: dict[str, Any]) -> None:
    assert met(**missed) == [False, True]


def test_of_several_attacks_at_once_each_must_have_arrived() -> None:
    few = Arrived("1 of 100 words", enough=False)
    assert met(arrived=[*WELL.arrived, few]) == [True, False]
    assert (
        "99 of 100 words; 1 of 100 words"
        in hostile.lines_of(dataclasses.replace(WELL, arrived=[*WELL.arrived, few]))[1].measured
    )


@pytest.mark.parametrize(
    ("aimed", "crossed", "hears", "good"),
    [(900, 0, True, True), (900, 1, True, False), (0, 0, True, False), (900, 0, False, False)],
)
def test_nothing_has_crossed_only_where_it_was_tried_and_would_have_been_heard(
    aimed: int, crossed: int, hears: bool, good: bool
) -> None:
    assert hostile.across_rooms(aimed, crossed, hears).good is good
