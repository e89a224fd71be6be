"""The side-by-side suite runs; what it measures is of no interest here."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

_SUITE = Path(__file__).parents[2] / "benches" / "side_by_side.py"


async def test_side_by_side_measures_softlan_and_no_tunnel(
    tmp_path: Path, needs: Callable[[str], None]
) -> None:
    needs("fping")
    needs("iperf3")
    command = [sys.executable, str(_SUITE), "--quick", "--only", "softlan,kernel-bridge", "--seconds", "1"]
    done = await asyncio.to_thread(
        subprocess.run,
        [*command, "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "side_by_side.json").read_text())
    assert told["left_out"] == {}
    for name in ("softlan", "kernel-bridge"):
        figures = told["systems"][name]
        assert min(figures["up"], figures["down"]) > 1
        assert figures["up_ping_sent"] > 0
        assert figures["idle_p50"] > 0
    assert "| softlan " in done.stdout
