"""Under Wine: every scenario against the stand-in iphlpapi.dll, clean, with each call failing, and dying at each call. JSON on stdout."""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from pathlib import Path

import scenarios
from standin_world import StandinWorld

logging.disable(logging.CRITICAL)


def main() -> None:
    """Print one object: for each scenario what there is to complain about."""
    world = StandinWorld()
    report = {}
    with tempfile.TemporaryDirectory() as directory:
        for name in sys.argv[1:] or scenarios.SCENARIOS:
            place, started = Path(directory, name), time.monotonic()
            clean = scenarios.run_clean(world, name, place)
            report[name] = {
                **clean,
                "sweep": scenarios.sweep(world, name, place),
                "crash": scenarios.crash_sweep(world, name, place),
                "seconds": round(time.monotonic() - started, 2),
            }
    print("RESULT " + json.dumps(report))


main()
