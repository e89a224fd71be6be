"""What `benches/faults.py` and `benches/hostile.py` make of the figures of former runs: nothing is left out, and whose they are is said."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benches"))

import faults
import hostile
from softlan.lab.docs import machine_line
from softlan.lab.soak import Outcome

THEN = "2026-01-02, Linux 5.10, 64 cores (load 0.1 at the end), seed 42."


def run_of(*outcomes: Outcome, **more: Any) -> dict[str, Any]:
    return {
        "bad": faults.bad(list(outcomes), quick=False),
        "faults": [outcome.as_json() for outcome in outcomes],
        **more,
    }


def well() -> Outcome:
    return Outcome("calm", "nothing much", back=[0.5, 0.7], own=[0.5, 0.7])


class Document:
    """A document with a place for the table, and a file of figures beside it."""

    def __init__(self, directory: Path, mark: str) -> None:
        self.path, self.figures = directory / "doc.md", directory / "figures.json"
        self.path.write_text(f"<!-- {mark}: begin -->\nold\n<!-- {mark}: end -->\n")

    def made_by(self, bench: Any, monkeypatch: pytest.MonkeyPatch, *runs: dict[str, Any]) -> tuple[int, str]:
        """Let a bench write it from the figures of runs; gives its status, and what the document says then."""
        files = []
        for number, run in enumerate(runs):
            files.append(self.figures.with_name(f"{number}.json"))
            files[-1].write_text(json.dumps(run))
        monkeypatch.setattr(bench, "DOCS", self.path)
        monkeypatch.setattr(sys, "argv", ["bench", "--write-docs", "--from-json", *map(str, files)])
        with pytest.raises(SystemExit) as ended:
            bench.main()
        return int(str(ended.value.code)), self.path.read_text()


def test_a_fault_that_never_began_or_broke_off_has_its_row_and_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = Outcome("n", "never there", wrong=["never began: no namespaces\nand a log"])
    broken = Outcome("b", "half way", back=[0.5], own=[0.5], wrong=["ended after 1 of 34 cycles: gone"])
    run = run_of(well(), never, broken, origin=THEN)
    status, text = Document(tmp_path, "faults").made_by(faults, monkeypatch, run)
    assert status == 1
    rows = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("| ")}
    assert rows["never there"] == "| never there | 0 | - | - | - | - | - | - | - | - | - | 1 thing | - |"
    assert (
        rows["half way"]
        == "| half way | 1 | 0.50 s | 0.50 s | 0 | - | - | - | - | - | nothing | 1 thing | - |"
    )
    assert rows["nothing much"].endswith("| nothing | nothing | - |")
    assert "\n- n: never began: no namespaces\n- b: ended after 1 of 34 cycles: gone\n" in text
    assert "and a log" not in text


def test_a_good_run_ends_well_and_its_origin_stays_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = run_of(well(), origin=THEN), run_of(well(), origin=THEN)
    status, text = Document(tmp_path, "faults").made_by(faults, monkeypatch, *runs)
    assert status == 0
    assert text.count("| nothing much |") == 2
    assert text.count(THEN) == 1
    assert machine_line(1).partition(",")[0] not in text


@pytest.mark.parametrize("allowed", [True, False])
def test_an_origin_without_taps_says_so(allowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "tap_allowed", lambda: allowed)
    assert ("whether a TAP stays behind was not looked at" in faults.origin(1)) is not allowed


def test_figures_without_an_origin_get_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, text = Document(tmp_path, "faults").made_by(faults, monkeypatch, run_of(well()))
    assert "did not keep its origin" in text


FAR_FROM_PROMISED = {
    "late": ({"back": [29.0] * 67, "own": [29.0] * 67}, "later than 3 s after 67 cycles, the worst 29.00 s"),
    "hanging": ({"ended": [0.5, 9.9]}, "took longer than 2 s to end in 1 cycle, 9.90 s at worst"),
    "harming": ({"spared_lost": 2000, "spared_sent": 2500}, "a bystander lost 2000 of 2500 pings"),
    "leaking": ({"growth": ("relay", 50 * 1024.0, 45)}, "relay grew by 51200 KiB a cycle over 45 cycles"),
}


@pytest.mark.parametrize("case", FAR_FROM_PROMISED)
def test_what_is_not_as_promised_is_bad_where_the_machine_had_time(case: str) -> None:
    figures, words = FAR_FROM_PROMISED[case]
    outcome = Outcome("f", "a fault", **figures)
    (told,) = faults.bad([outcome], quick=False)
    assert told.startswith(f"f: {words}")
    assert faults.bad([outcome], quick=True) == []


def test_what_never_came_back_is_bad_at_any_load_and_told_once() -> None:
    outcome = Outcome("f", "a fault", back=[0.5, math.inf], own=[0.1, math.inf])
    for quick in (True, False):
        assert faults.bad([outcome], quick=quick) == ["f: not back at all after 1 cycle"]


def test_the_start_of_the_program_is_nobodys_lateness() -> None:
    outcome = Outcome("f", "a fault", back=[9.0], started=[8.0], own=[1.0])
    assert outcome.late == 1
    assert faults.bad([outcome], quick=False) == []


def test_what_a_full_run_had_is_good() -> None:
    """The worst of each figure in the last full runs, those on a loaded machine included."""
    worst = Outcome("f", "a fault", back=[2.5], own=[2.5], ended=[0.534], spared_lost=3, spared_sent=36)
    worst.growth = ("client", 22.2, 45)
    assert faults.bad([worst], quick=False) == []


def test_how_long_parts_took_to_end_is_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(Outcome("t", "told to end", back=[0.5], own=[0.5], ended=[0.2, 1.25]), origin=THEN)
    _, text = Document(tmp_path, "faults").made_by(faults, monkeypatch, run)
    assert "| 1.25 s |" in text


@pytest.mark.parametrize(("good", "status"), [(True, 0), (False, 1)])
def test_so_it_is_with_attacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good: bool, status: int
) -> None:
    line = {"figure": "memory", "goal": "little", "measured": "some", "good": good}
    run = {"origin": THEN, "lines": [line]}
    told, text = Document(tmp_path, "hostile").made_by(hostile, monkeypatch, run)
    assert told == status
    assert "| memory | little | some |" in text
    assert f"\n\n{THEN}\n" in text
