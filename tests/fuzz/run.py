"""Fuzzes the Python side for so many seconds, all targets or the named ones: `run.py SECONDS [TARGET ...]`, `./dev fuzz control SECONDS`.

Ends with 1 at the first finding, with what reproduces it.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections import Counter, defaultdict
from typing import Any

from hypothesis import HealthCheck, given, settings
from targets import TARGETS, Target

_ROUND = 500
"""Inputs a target gets in its turn."""


def fuzz(target: Target, ran: Counter[str], name: str) -> None:
    """Give one target its turn, with other inputs each time. Raises what its check raises, for the smallest input that shows it."""
    strategy, check = target

    def counted(value: Any) -> None:
        ran[name] += 1
        check(value)

    settings(
        max_examples=_ROUND,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )(given(strategy)(counted))()


def main() -> int:
    """Go round until the time is over."""
    end = time.monotonic() + float(sys.argv[1] if len(sys.argv) > 1 else 60)
    ran: Counter[str] = Counter()
    spent: defaultdict[str, float] = defaultdict(float)
    broken = ""
    while time.monotonic() < end and not broken:
        for name in sys.argv[2:] or TARGETS:
            if time.monotonic() >= end or broken:
                break
            start = time.process_time()
            try:
                fuzz(TARGETS[name], ran, name)
            except Exception:
                traceback.print_exc()
                print(f"error: {name} broke a promise after {ran[name]} inputs", file=sys.stderr)
                broken = name
            spent[name] += time.process_time() - start
    for name, count in ran.items():
        verdict = "a promise broken" if name == broken else "nothing found"
        print(f"{name}: {count} inputs in {spent[name]:.1f} s of processor time, {verdict}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
