"""What `benches/faults.py` and `benches/hostile.py` make of the figures of former runs: nothing is left out, and whose they are is said."""

from __future__ import annotations

import json
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
    return {"bad": faults.bad(list(outcomes)), "faults": [outcome.as_json() for outcome in outcomes], **more}


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
    assert rows["never there"] == "| never there | 0 | - | - | - | - | - | - | - | - | 1 thing | - |"
    assert (
        rows["half way"] == "| half way | 1 | 0.50 s | 0.50 s | 0 | - | - | - | - | nothing | 1 thing | - |"
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


def test_figures_without_an_origin_get_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, text = Document(tmp_path, "faults").made_by(faults, monkeypatch, run_of(well()))
    assert "did not keep its origin" in text


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
