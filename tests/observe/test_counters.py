"""Counters: rates and the one-line summary."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softlan.observe.counters import (
    COUNTER_NAMES,
    DROP_COUNTERS,
    Change,
    Reading,
    format_rate,
    known_counters,
)


def test_every_drop_reason_has_its_counter():
    assert set(DROP_COUNTERS) == {name for name in COUNTER_NAMES if name.startswith("drop_")}


def test_rates_and_summary():
    before = Reading(100.0, {"bytes_received": 1000, "frames_received": 10, "drop_dhcp_server": 1})
    after = Reading(
        110.0,
        {
            "bytes_received": 1_501_000,
            "frames_received": 3410,
            "bytes_sent": 0,
            "drop_dhcp_server": 3,
            "drop_queue_full": 1,
        },
    )
    change = Change.between(before, after)
    assert change.per_second("frames_received") == pytest.approx(340)
    assert change.per_second("no_such_counter") == 0
    assert change.drops == {"dhcp-server": 2, "queue-full": 1}
    assert change.summary() == (
        "in 1.2 Mbit/s 340 frames/s, out 0 bit/s 0 frames/s, dropped 3 (dhcp-server 2, queue-full 1)"
    )


def test_no_drops_no_word_of_them():
    change = Change.between(Reading(0, {}), Reading(1, {"frames_sent": 1, "drop_runt": 0}))
    assert "dropped" not in change.summary()


def test_a_counter_that_began_anew_counts_from_there():
    change = Change.between(Reading(0, {"frames_sent": 1000}), Reading(1, {"frames_sent": 5}))
    assert change.counts["frames_sent"] == 5


def test_no_time_no_rate():
    change = Change.between(Reading(5, {}), Reading(5, {"frames_sent": 7}))
    assert change.per_second("frames_sent") == 0
    assert change.summary()


def test_a_peers_own_inventions_are_left_out():
    assert known_counters({"frames_sent": 1, "logger": 2, "room": 3}) == {"frames_sent": 1}


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (0, "0 bit/s"),
        (0.01, "0 bit/s"),
        (0.5, "0.5 bit/s"),
        (999.4, "999 bit/s"),
        (999.9, "1.0 kbit/s"),
        (1234, "1.2 kbit/s"),
        (9.96e6, "10 Mbit/s"),
        (999_999_999, "1.0 Gbit/s"),
        (4.2e9, "4.2 Gbit/s"),
        (1e12, "1000 Gbit/s"),
    ],
)
def test_rates_read_well(rate, text):
    assert format_rate(rate) == text


VALUES = st.dictionaries(st.sampled_from(COUNTER_NAMES), st.integers(0, 2**63 - 1))


@given(VALUES, VALUES, st.floats(0, 1e6), st.floats(0, 1e6))
def test_any_two_readings_make_a_line(first, second, start, end):
    change = Change.between(Reading(start, first), Reading(end, second))
    assert all(count >= 0 for count in change.counts.values())
    assert change.summary().isprintable()
