"""What the side-by-side suite makes of figures: verdicts, stalls, the marked place in a document."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benches"))

from softlan.lab import LabError
from suite.docs import replace
from suite.goals import GOALS, judged
from suite.probes import Pings, read_fping
from suite.stalls import is_stalled
from suite.tables import everything

SLOW = {"up": 400.0, "down": 500.0, "idle_p50": 0.4, "cpu_per_gb": 30.0, "udp_1200": 40e3, "udp_100": 50e3}
FAST = {"up": 4000.0, "down": 6000.0, "idle_p50": 0.2, "cpu_per_gb": 3.0, "udp_1200": 90e3, "udp_100": 130e3}
PINGS = {"down_ping_p50": 0.3, "down_ping_p99": 0.9, "down_ping_lost": 0}


def verdicts(**systems: dict[str, float]) -> dict[str, bool | None]:
    return {verdict.name: verdict.met for verdict in judged({"systems": systems})}


def test_nothing_measured_is_neither_met_nor_missed() -> None:
    assert [verdict.met for verdict in judged({})] == [None] * len(GOALS)


def test_goals_are_ratios_to_the_peer_of_the_same_run() -> None:
    told = verdicts(softlan=FAST | PINGS, openvpn=SLOW)
    assert told["TCP one stream against OpenVPN-TAP"] is True
    assert told["CPU a GB against OpenVPN-TAP"] is True
    assert told["idle ping p50 against OpenVPN-TAP"] is True
    assert told["UDP 1200 B and 100 B packets a second against OpenVPN-TAP"] is False
    assert told["ping p50 / p99 under a download against idle p50"] is True
    assert told["TCP one stream against the kernel bridge, offloads off"] is None


@pytest.mark.parametrize("way", ["up", "down"])
def test_the_worse_way_decides(way: str) -> None:
    told = verdicts(softlan=FAST | {way: 3000.0}, openvpn=SLOW)
    assert told["TCP one stream against OpenVPN-TAP"] is False


@pytest.mark.parametrize("worse", [{"down_ping_lost": 1}, {"down_ping_p50": 0.5}, {"down_ping_p99": 1.1}])
def test_a_lost_ping_or_a_slow_one_misses_the_goal(worse: dict[str, float]) -> None:
    told = verdicts(softlan=FAST | PINGS | worse)
    assert told["ping p50 / p99 under a download against idle p50"] is False


def test_stalls() -> None:
    assert not is_stalled((100.0, 90.0, 11.0))
    assert is_stalled((100.0, 100.0, 9.0))
    assert is_stalled((0.0, 0.0, 0.0))
    assert is_stalled(())


@pytest.mark.parametrize(
    ("stalls", "met"),
    [
        ({"runs": 50, "failed": 0, "stalled": 0}, True),
        ({"runs": 50, "failed": 0, "stalled": 1}, False),
        ({"runs": 50, "failed": 1, "stalled": 0}, False),
        ({"runs": 10, "failed": 0, "stalled": 0}, False),
    ],
)
def test_no_stall_in_fewer_runs_is_no_proof(stalls: dict[str, int], met: bool) -> None:
    assert judged({"stalls": stalls})[-1].met is met


def test_percentiles_are_round_trips_that_were_measured() -> None:
    pings = Pings(101, [float(number) for number in range(100, 0, -1)])
    assert (pings.at(0.5), pings.at(0.99), pings.at(1.0), pings.lost) == (50.0, 99.0, 100.0, 1)
    assert Pings(3, []).at(0.5) is None


def test_each_answer_of_fping_counts_once_and_a_lost_ping_not_at_all() -> None:
    told = """10.0.0.1 : [0], 64 bytes, 0.431 ms (0.431 avg, 0% loss)
10.0.0.1 : [2], 64 bytes, 12.6 ms (6.5 avg, 33% loss)
10.0.0.1 : [2], 64 bytes, 13.0 ms (6.5 avg, 33% loss)
10.0.0.1 : [1], timed out (6.5 avg, 33% loss)

10.0.0.1 : xmt/rcv/%loss = 3/2/33%, min/avg/max = 0.431/6.51/12.6
"""
    pings = read_fping(3, told)
    assert (pings.sent, pings.times, pings.lost) == (3, [0.431, 12.6], 1)


def test_a_run_of_nothing_still_makes_tables() -> None:
    empty = {"systems": {}, "lines": {}, "left_out": {"tinc": "tincd not installed"}}
    assert "Left out: tinc (tincd not installed)" in everything(empty)


def test_tables_go_between_the_marks(tmp_path: Path) -> None:
    file = tmp_path / "note.md"
    file.write_text("before\n<!-- x: begin -->\nold\n<!-- x: end -->\nafter\n")
    replace(file, "x", "new")
    assert file.read_text() == "before\n<!-- x: begin -->\nnew\n<!-- x: end -->\nafter\n"
    with pytest.raises(LabError, match="no marks"):
        replace(file, "y", "new")
