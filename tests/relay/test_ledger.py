"""Books that never go back, under a bounded number of names."""

from hypothesis import given
from hypothesis import strategies as st

from softlan.relay.ledger import OTHER_ROOMS, Ledger


def test_what_has_gone_is_kept():
    ledger = Ledger()
    ledger.retire("A", {"frames_sent": 3})
    ledger.retire("A", {"frames_sent": 4, "drop_runt": 1})
    assert ledger.open().rooms["A"].counters == {"frames_sent": 7, "drop_runt": 1}
    ledger.open().rooms["A"].counters["frames_sent"] = 99
    assert ledger.open().rooms["A"].counters["frames_sent"] == 7


def test_names_are_few():
    ledger = Ledger(["KEPT"], max_named=3)
    assert [ledger.name(room) for room in ("A", "B", "C", "A", "KEPT")] == [
        "A",
        "B",
        OTHER_ROOMS,
        "A",
        "KEPT",
    ]
    for n in range(50):
        ledger.retire(f"ROOM{n}", {"frames_sent": 1})
    assert set(ledger.open().rooms) == {"KEPT", "A", "B", OTHER_ROOMS}
    assert ledger.open().rooms[OTHER_ROOMS].counters["frames_sent"] == 50


@given(st.lists(st.tuples(st.sampled_from("ABCDEFGH"), st.integers(0, 100))))
def test_nothing_is_lost_and_nothing_goes_back(leavings):
    ledger, before = Ledger(max_named=3), 0
    for room, count in leavings:
        ledger.retire(room, {"frames_sent": count})
        total = sum(numbers.counters["frames_sent"] for numbers in ledger.open().rooms.values())
        assert total == before + count
        before = total
