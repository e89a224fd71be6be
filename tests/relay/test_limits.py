"""Token buckets and counts: what passes in any time is bounded, and so is what is remembered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softlan.relay.limits import AddressCounts, Bucket, Buckets, Rate, Unannounced, host_of, line_of

steps = st.lists(st.tuples(st.floats(0, 10), st.floats(0.1, 5)), max_size=60)


@given(st.floats(0.1, 100), st.floats(1, 100), steps)
def test_no_more_passes_than_burst_and_rate_allow(
    per_second: float, burst: float, asked: list[tuple[float, float]]
) -> None:
    now, passed, bucket = 0.0, 0.0, Bucket(Rate(per_second, burst), 0.0)
    for pause, cost in asked:
        now += pause
        if bucket.take(now, cost):
            passed += cost
        assert passed <= burst + per_second * now + 1e-6


def test_a_bucket_fills_up_again() -> None:
    bucket = Bucket(Rate(1, 3), 0.0)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(0.9)
    assert bucket.take(1.0)
    assert bucket.left(100.0) == 3


def test_a_clock_that_steps_back_gives_nothing() -> None:
    bucket = Bucket(Rate(1, 1), 100.0)
    assert bucket.take(100.0)
    assert not bucket.take(0.0)
    assert not bucket.take(100.5)
    assert bucket.take(101.0)


def test_what_is_given_back_can_be_taken_again_but_no_more() -> None:
    buckets: Buckets[str] = Buckets(Rate(0.001, 1))
    assert buckets.take("a", 0)
    buckets.give_back("a")
    buckets.give_back("a")
    assert buckets.take("a", 0)
    assert not buckets.take("a", 0)
    buckets.give_back("unknown")


@given(st.lists(st.integers(0, 50), max_size=200))
def test_a_table_stays_bounded(keys: list[int]) -> None:
    buckets: Buckets[int] = Buckets(Rate(0.001, 2), capacity=8)
    for now, key in enumerate(keys):
        buckets.take(key, float(now))
        assert len(buckets) <= 8


def test_what_is_forgotten_gives_least_back() -> None:
    buckets: Buckets[str] = Buckets(Rate(0.001, 3), capacity=3)
    for key, tries in (("none left", 3), ("two left", 1), ("one left", 2)):
        assert all(buckets.take(key, 0) for _ in range(tries))
    assert buckets.take("new", 0)
    assert not buckets.take("none left", 0)
    assert [buckets.left(key, 0) for key in ("two left", "one left", "new")] == [3, 1, 2]


def test_of_those_that_are_as_full_the_oldest_is_forgotten() -> None:
    buckets: Buckets[int] = Buckets(Rate(0.001, 3), capacity=2)
    for key in (1, 2, 1, 2, 3):
        buckets.take(key, 0)
    assert [buckets.left(key, 0) for key in (1, 2, 3)] == [3, 1, 2]


def test_a_full_table_is_not_looked_through_for_each_newcomer() -> None:
    buckets: Buckets[int] = Buckets(Rate(0.001, 3), capacity=640)
    for key in range(641):
        buckets.take(key, 0)
    assert len(buckets) == 640 - 10 + 1


def test_one_line_does_not_use_up_anothers() -> None:
    buckets: Buckets[str] = Buckets(Rate(0.001, 1))
    assert buckets.take("a", 0)
    assert not buckets.take("a", 0)
    assert buckets.take("b", 0)


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("ab"))))
def test_counts_are_those_of_a_list(events: list[tuple[bool, str]]) -> None:
    counts, there = AddressCounts(3), list[str]()
    for enters, line in events:
        if enters:
            assert counts.enter(line) == (there.count(line) < 3)
            if there.count(line) < 3:
                there.append(line)
        elif line in there:
            there.remove(line)
            counts.leave(line)
    assert len(counts) == len(set(there))


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("192.0.2.7:443", "192.0.2.7"),
        ("[::ffff:192.0.2.7]:1", "192.0.2.7"),
        ("[2001:db8:1:2:3:4:5:6]:443", "2001:db8:1:2::/64"),
        ("[fe80::1%3]:443", "fe80::/64"),
    ],
)
def test_lines(address: str, line: str) -> None:
    assert line_of(address) == line
    assert str(host_of(address)) in address or "::ffff" in address


def test_the_line_with_most_gives_way_to_newcomers_of_others() -> None:
    waiting: Unannounced[str] = Unannounced(6)
    for number in range(6):
        assert waiting.enter("fat", number, f"fat {number}") is None
    assert waiting.enter("fat", 6, "fat 6") == "fat 6", "it does not push itself out"
    assert waiting.enter("thin", 7, "thin 7") == "fat 0", "the oldest"
    assert waiting.enter("thin", 8, "thin 8") == "fat 1"
    assert waiting.enter("thin", 9, "thin 9") == "fat 2"
    assert waiting.enter("thin", 10, "thin 10") == "thin 10", "no further than an equal share"
    assert waiting.enter("third", 11, "third 11") == "fat 3"
    waiting.leave("fat", 3)  # It was sent away and is counted no more.
    assert len(waiting) == 6
    waiting.leave("third", 11)
    assert waiting.enter("fourth", 12, "fourth 12") is None


def test_all_the_lines_of_a_site_keep_nobody_else_out() -> None:
    waiting: Unannounced[str] = Unannounced(6)
    for number in range(6):
        assert waiting.enter(f"2001:db8:0:{number}::/64", number, f"site {number}") is None
    assert waiting.enter("2001:db8:0:ffff::/64", 6, "site 6") == "site 6", "each of its lines has one"
    assert waiting.enter("192.0.2.1", 7, "other 7") == "site 0"
    assert waiting.enter("2001:db8:1::/64", 8, "other 8") == "site 1"
    assert waiting.enter("192.0.2.1", 9, "other 9") == "site 2"
    assert waiting.enter("2001:db8:0:3::/64", 10, "site 10") == "site 10"
    assert len(waiting) == 6


def test_a_line_of_a_site_has_what_another_of_it_has() -> None:
    waiting: Unannounced[str] = Unannounced(6)
    for number in range(6):
        assert waiting.enter("2001:db8:0:1::/64", number, f"fat {number}") is None
    assert waiting.enter("2001:db8:0:2::/64", 6, "thin 6") == "fat 0"


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=80), st.integers(1, 8))
def test_nobody_is_counted_twice_and_nobody_lost(steps: list[tuple[int, bool]], most: int) -> None:
    waiting: Unannounced[int] = Unannounced(most)
    there: dict[int, str] = {}
    for key, (line, leaves) in enumerate(steps):
        if leaves and there:
            gone = min(there)
            waiting.leave(there.pop(gone), gone)
            continue
        name = f"line {line}"
        own_share = sum(1 for other in there.values() if other == name)
        sent_away = waiting.enter(name, key, key)
        if sent_away != key:
            there[key] = name
        else:
            # Refused only where nobody has two more.
            assert len(there) == most
            assert all(list(there.values()).count(other) <= own_share + 1 for other in there.values())
        if sent_away is not None and sent_away != key:
            del there[sent_away]
        assert len(waiting) == len(there) <= most
