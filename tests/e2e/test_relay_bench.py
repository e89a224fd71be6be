"""The relay bench still measures: two peers, a second, on loopback; no namespaces."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from softlan.lab.testing import need, skip

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.e2e


@pytest.mark.timeout(600)
def test_two_peers_for_a_second(tmp_path: Path) -> None:
    need("openssl")
    if len(os.sched_getaffinity(0)) < 2:
        skip("needs two cores")
    out = tmp_path / "figures.json"
    command = [
        sys.executable,
        ROOT / "benches" / "relay_alone.py",
        "--only",
        "2",
        "--seconds",
        "1",
        "--out",
        out,
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert run.returncode == 0, run.stderr
    report = json.loads(out.read_text())
    measured = {(row["phase"], row["frame_bytes"]): row for row in report["rows"]}
    for size in (1400, 100):
        row = measured["unicast", size]
        assert row["delivered"] > 0
        assert row["loss"] < 0.01
        assert row["fragments"] == 0
        assert row["relay_cpu_s"] > 0
        assert row["aes_gbit"] > 0
        assert measured["bare UDP, GSO and GRO", size]["delivered"] > 0
    assert "2 peers, 1400 B, against half of AES-128-GCM" in run.stdout
