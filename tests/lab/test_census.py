import os
from collections import Counter

import pytest

from softlan.lab.census import Holdings, processor_s, slope


def held(threads: dict[str, int] | None = None, tasks: int = 5, **kinds: int) -> Holdings:
    return Holdings(1, Counter(kinds), Counter(threads or {"python": 1}), tasks)


def test_the_same_or_less_is_nothing_more() -> None:
    before = held(socket=4, pipe=2)
    assert before.beyond(before) == []
    assert held(socket=3, tasks=4).beyond(before) == []


def test_more_of_anything_is_told() -> None:
    before = held(socket=4)
    assert held(socket=6).beyond(before) == ["2 more of socket"]
    assert held(socket=4, tasks=6).beyond(before) == ["1 more tasks"]
    assert held({"python": 2}, socket=4).beyond(before) == ["1 more threads python"]


def test_a_pool_may_grow_to_its_bound_and_no_further() -> None:
    before = held({"softlan-control": 2})
    assert held({"softlan-control": 5}).beyond(before) == []
    assert held({"softlan-control": 6}).beyond(before) == ["4 more threads softlan-control"]


def test_slope() -> None:
    assert slope([1.0, 3.0, 5.0, 7.0]) == pytest.approx(2.0)
    assert slope([5.0, 5.0, 5.0]) == 0.0
    assert slope([1.0, 100.0]) == 0.0, "two points make no trend"


def test_processor_time_is_what_the_system_says_of_oneself() -> None:
    before, told, after = sum(os.times()[:2]), processor_s(os.getpid()), sum(os.times()[:2])
    assert before - 0.001 <= told <= after + 0.001
