"""The account of what was fuzzed: what counts, how it adds up, whose turn it is."""

import account
import pytest
from account import Entry


def entry(target, cpu_s, day="2026-11-28", commit="abc", found=0):
    return Entry(target, day, commit, cpu_s, 1000, found)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "room: 1234 inputs in 118.3 s of processor time, cov: 10 ft: 20, nothing found",
            ("room", 1234, 118.3, 0),
        ),
        ("texts: 9 inputs in 0.1 s of processor time, nothing found", ("texts", 9, 0.1, 0)),
        ("room: 7 inputs in 1.0 s of processor time, cov: 1 ft: 2, a promise broken", ("room", 7, 1.0, 1)),
        ("error: room broke a promise; the input is in rust/fuzz/artifacts/room", None),
        ("#1234 DONE cov: 10 ft: 20", None),
    ],
)
def test_a_line_that_tells_of_a_run_makes_an_entry(line, expected):
    read = account.read_spent(line, "2026-11-28", "abc")
    assert (read and (read.target, read.inputs, read.cpu_s, read.found)) == expected


def test_entries_of_one_day_and_code_add_up_and_others_stay_apart():
    sums = account.added([], entry("room", 60.0))
    sums = account.added(sums, entry("room", 30.5, found=1))
    sums = account.added(sums, entry("room", 5.0, commit="def"))
    assert [(one.cpu_s, one.inputs, one.found) for one in sums] == [(90.5, 2000, 1), (5.0, 1000, 0)]
    assert account.from_json(account.as_json(sums)) == sums


def test_whoever_had_least_is_next():
    sums = [entry("room", 60.0), entry("room", 60.0, commit="def"), entry("split", 100.0)]
    assert account.next_target(sums, ["room", "split"]) == "split"
    assert account.next_target(sums, ["room", "split", "queue"]) == "queue"


def test_the_table_has_a_line_for_each_target_also_for_one_that_had_nothing():
    lines = account.table(
        [entry("room", 1800.0), entry("room", 900.0, day="2026-11-29", commit="def")], ["queue", "room"]
    )
    assert "| `queue` | 0.0 min | 0 % | 0 | 0 | - |" in lines
    assert "| `room` | 45.0 min | 75 % | 2,000 | 0 | abc, def |" in lines
    assert lines.endswith("2026-11-28 to 2026-11-29.")
