"""What the relay's counters of an attacker say about an attack."""

from __future__ import annotations

import pytest

from softlan.lab.hostile import COUNTED, KINDS, LIMITED, let_through
from softlan.observe.counters import DROP_COUNTERS


def test_each_kind_has_a_counter_that_there_is() -> None:
    assert set(COUNTED.values()) <= set(DROP_COUNTERS)
    assert set(LIMITED) < set(KINDS)


@pytest.mark.parametrize(
    ("kind", "counters", "passed"),
    [
        ("spoofed", {"frames_received": 5000, "drop_source_foreign": 5000}, 0),
        ("spoofed", {"frames_received": 5000, "drop_source_foreign": 11}, 4989),
        ("runt", {"frames_received": 2, "drop_queue_full": 2}, 2),  # that was on the attacker's own way out
        ("garbage", {"datagrams_received": 5000, "drop_malformed": 5000}, 0),
        # What is dropped before the switch is no frame, so that one which became a frame has passed.
        ("garbage", {"datagrams_received": 5000, "drop_malformed": 4999, "frames_received": 1}, 1),
        ("incomplete", {"drop_reassembly": 9, "frames_received": 3}, 3),
    ],
)
def test_what_is_not_dropped_was_let_through(kind: str, counters: dict[str, int], passed: int) -> None:
    assert let_through(kind, counters) == passed
