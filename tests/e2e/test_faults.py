"""A short run of the soak `benches/faults.py`: the party is back after each fault, and nothing is left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from softlan.lab.faults import FAULTS

SOAK = Path(__file__).parents[2] / "benches" / "faults.py"


@pytest.mark.timeout(400)
def test_the_party_survives_every_fault(tmp_path: Path, needs: Callable[[str], None]) -> None:
    needs("faketime")
    figures = tmp_path / "figures.json"
    command = [sys.executable, str(SOAK), "--quick", "--json", str(figures)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=390, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(figures.read_text())
    assert told["bad"] == []
    assert {fault["name"]: fault["cycles"] for fault in told["faults"]} == {
        fault.name: fault.quick for fault in FAULTS if fault.quick
    }
