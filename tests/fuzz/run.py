"""Fuzzes the Python side for so many seconds, all targets or the named ones: `run.py SECONDS [TARGET ...]`, `./dev fuzz control SECONDS`.

The targets share the time evenly. Ends with 1 at the first finding, with what reproduces it, and at a target that had no input.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections import Counter
from collections.abc import Mapping
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
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


def run(seconds: float, targets: Mapping[str, Target]) -> int:
    """Give each target its part of the time, a turn at least; stop at the first finding. Gives the exit status.

    The last lines are for `account.py`: one for each target that had inputs.
    """
    ran: Counter[str] = Counter()
    broken = without = ""
    for name, target in targets.items():
        started, start = time.monotonic(), time.process_time()
        while True:
            try:
                fuzz(target, ran, name)
            except Unsatisfiable:
                without = name
            except Exception:
                traceback.print_exc()
                print(f"error: {name} broke a promise after {ran[name]} inputs", file=sys.stderr)
                broken = name
            if broken or without or time.monotonic() - started >= seconds / len(targets):
                break
        if without:
            print(f"error: {name} had no input", file=sys.stderr)
            break
        verdict = "a promise broken" if broken else "nothing found"
        spent = time.process_time() - start
        print(f"{name}: {ran[name]} inputs in {spent:.1f} s of processor time, {verdict}", flush=True)
        if broken:
            break
    return 1 if broken or without else 0


def main() -> int:
    """Fuzz what the command line names."""
    names = sys.argv[2:] or list(TARGETS)
    if unknown := [name for name in names if name not in TARGETS]:
        print(f"error: there is no target {', '.join(unknown)}", file=sys.stderr)
        print(f"hint: {' '.join(TARGETS)}", file=sys.stderr)
        return 2
    return run(float(sys.argv[1] if len(sys.argv) > 1 else 60), {name: TARGETS[name] for name in names})


if __name__ == "__main__":
    sys.exit(main())
