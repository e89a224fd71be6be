"""What the side-by-side suite makes of figures: verdicts, stalls, the marked place in a document."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

sys.path.append(str(Path(__file__).parents[2] / "benches"))

import side_by_side
from peers import System
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
        ({"runs": 50, "failed": 0, "stalled": 0, "system": "openvpn"}, None),
    ],
)
def test_no_stall_in_fewer_runs_or_of_another_system_is_no_proof(
    stalls: dict[str, Any], met: bool | None
) -> None:
    assert judged({"stalls": {"system": "softlan"} | stalls})[-1].met is met


META = {
    "command": "benches/side_by_side.py",
    "date": "2026-01-02 03:04 UTC",
    "commit": "abc1234",
    "kernel": "5.10",
    "cpus": 64,
    "tcp": "bbr",
    "load_before": 0.1,
    "took": 100,
}
STALLS = {
    "system": "softlan",
    "line": "a line",
    "runs": 50,
    "seconds": 5.0,
    "stalled": 0,
    "failed": 0,
    "bad": [],
    "slowest": 1.0,
    "median": 2.0,
    "fastest": 3.0,
}


def finished(out: Path, former: dict[str, Any], **results: Any) -> dict[str, Any]:
    """What a full run keeps, in whose directory a former run has left its stalls."""
    kept = {"meta": META | {"command": "--stalls 50", "took": 454} | former, "stalls": STALLS}
    (out / "stalls.json").write_text(json.dumps(kept))
    results = {"meta": META, "systems": {}, "lines": {}, "left_out": {}, "failed": [], **results}
    side_by_side._finish(results, out, picture=False, write_docs=True)
    told: dict[str, Any] = json.loads((out / "side_by_side.json").read_text())
    return told


@pytest.fixture
def document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "performance.md"
    file.write_text("<!-- side-by-side: begin -->\nold\n<!-- side-by-side: end -->\n")
    monkeypatch.setattr(side_by_side, "_DOCUMENT", file)
    return file


def test_stalls_of_the_same_code_and_tcp_join_a_full_run_and_say_where_they_are_from(
    tmp_path: Path, document: Path
) -> None:
    told = finished(tmp_path, {})
    assert told["goals"][-1]["met"] is True
    assert "3.0 Mbit/s. (`--stalls 50`, 2026-01-02 03:04 UTC, commit abc1234," in document.read_text()


@pytest.mark.parametrize(
    ("former", "words"),
    [
        ({"commit": "0000000"}, "of commit 0000000, this is abc1234"),
        ({"commit": "abc1234-dirty"}, "of commit abc1234-dirty, and nobody knows with which changes"),
        ({"tcp": "cubic"}, "of TCP cubic, this is bbr"),
    ],
)
def test_stalls_of_another_code_or_tcp_are_left_out(
    tmp_path: Path, document: Path, former: dict[str, str], words: str
) -> None:
    told = finished(tmp_path, former)
    assert "stalls" not in told
    assert told["goals"][-1]["met"] is None
    assert f"Left out: the stalls in stalls.json ({words})" in document.read_text()


def test_what_is_in_the_documents_stays_when_a_system_that_is_there_failed(
    tmp_path: Path, document: Path
) -> None:
    told = finished(tmp_path, {}, left_out={"softlan": "failed: it broke"}, failed=["softlan"])
    assert told["failed"] == ["softlan"]
    assert "old" in document.read_text()


class Broken(System):
    name = title = "broken"

    def missing(self) -> str | None:
        return None

    async def start(self, site: Any) -> Any:
        raise LabError("it broke")


class Absent(Broken):
    name = title = "absent"

    def missing(self) -> str | None:
        return "absentd not installed"


@pytest.mark.parametrize(("system", "status"), [(Broken(), 1), (Absent(), 0)])
def test_a_system_that_is_there_and_fails_ends_the_run_badly_one_that_is_missing_does_not(
    tmp_path: Path, document: Path, monkeypatch: pytest.MonkeyPatch, system: System, status: int
) -> None:
    async def measured(system: System, plan: Any) -> Any:
        return await system.start(None)

    monkeypatch.setattr(side_by_side, "SYSTEMS", (system,))
    monkeypatch.setattr(side_by_side, "at_lan_speed", measured)
    for name in ("ensure_namespaces", "build", "_need_tools"):
        monkeypatch.setattr(side_by_side, name, lambda *_: None)
    command = ["--part", "lan", "--no-plot", "--write-docs", "--out", str(tmp_path)]
    done = CliRunner().invoke(side_by_side.main, command)
    assert done.exit_code == status, done.output
    assert ("old" in document.read_text()) is bool(status)


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
