"""Fuzzes the Python side for so many seconds, all targets or the named ones: `run.py SECONDS [TARGET ...]`, `./dev fuzz control SECONDS`.

Ends with 1 at the first finding, with what reproduces it.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections import Counter
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
    while time.monotonic() < end:
        for name in sys.argv[2:] or TARGETS:
            if time.monotonic() >= end:
                break
            try:
                fuzz(TARGETS[name], ran, name)
            except Exception:
                traceback.print_exc()
                print(f"error: {name} broke a promise after {ran[name]} inputs", file=sys.stderr)
                return 1
    for name, count in ran.items():
        print(f"{name}: {count} inputs, nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
