"""Fuzzes the Python side for so many seconds, all targets or the named ones: `run.py SECONDS [TARGET ...]`, `./dev fuzz control SECONDS`.

The targets share the time evenly. Ends with 1 at the first finding, with what reproduces it, and at a target that had no input. A finding
is a check that raises, takes more processor time or memory than any input is worth, or leaves something behind each time. What ends this
process itself leaves its input in `rust/fuzz/artifacts`. SIGTERM ends it after what it is at.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from targets import TARGETS, Target

ARTIFACTS = Path(__file__).parents[2] / "rust" / "fuzz" / "artifacts"

_ROUND = 500
"""Inputs a target gets in its turn."""

_CHECK_S = 10.0
"""Processor time that one input may take, as for the Rust side's targets; of the processor's, as this program may be stopped meanwhile."""

_DEAD_S = 30.0
"""After so much of it the kernel ends this process: no handler of Python's has had its turn, as in a loop that is not Python's."""

_MEMORY = 2 << 30
"""Bytes of address space. Python, hypothesis and softlan's core take a tenth of it."""

_CALLS, _TRIES = 32, 20


class BrokenPromiseError(Exception):
    """A check was ended by what is no Exception, as a panic of Rust's is none; as one it is made smaller like any other finding."""


class HangError(Exception):
    """A check took too long."""


class _Stopping:
    """Whether somebody said stop."""

    def __init__(self) -> None:
        self.told = False

    def __call__(self, *_: object) -> None:
        self.told = True


def _hangs(*_: object) -> None:
    raise HangError(f"more than {_CHECK_S:g} s of processor time for one input")


def _call(check: Callable[[Any], None], value: Any) -> None:
    """Check one value, within bounds of time."""
    signal.setitimer(signal.ITIMER_PROF, _CHECK_S)
    signal.setitimer(signal.ITIMER_VIRTUAL, _DEAD_S)
    try:
        check(value)
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise BrokenPromiseError(f"{type(error).__name__}: {error}") from error
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _held() -> dict[str, int]:
    gc.collect()
    return {
        "open file": len(os.listdir("/proc/self/fd")),
        "thread": threading.active_count(),
        "block of memory": sys.getallocatedblocks(),
    }


def _look_for_leaks(check: Callable[[Any], None], value: Any) -> None:
    """Give a check one value again and again. Raises AssertionError: each time something stays behind.

    Caches fill up by what they do not have yet, and then hold still; what goes on growing by something a call is none.
    """
    before, grown = _held(), ""
    for _ in range(_TRIES):
        for _ in range(_CALLS):
            _call(check, value)
        after = _held()
        grown = next((what for what in after if after[what] - before[what] >= _CALLS), "")
        if not grown:
            return
        before = after
    raise AssertionError(f"each call leaves one more {grown} behind; the input is {value!r}")


class _LastInput:
    """A file that holds the input under way, for what ends this process; gone where nothing did."""

    def __init__(self, name: str) -> None:
        self._path = ARTIFACTS / name / "last-input"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("wb", buffering=0)

    def note(self, value: Any) -> None:
        os.pwrite(self._file.fileno(), data := repr(value).encode("utf-8", "backslashreplace"), 0)
        self._file.truncate(len(data))

    def close(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)


def fuzz(
    target: Target,
    ran: Counter[str],
    name: str,
    note: Callable[[Any], None] = lambda _: None,
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """Give one target its turn, with other inputs each time. Raises what its check raises, for the smallest input that shows it."""
    strategy, check = target
    last: list[Any] = []

    def counted(value: Any) -> None:
        if stopping():
            return
        ran[name] += 1
        note(value)
        last[:] = [value]
        _call(check, value)

    # In CI hypothesis would draw the same inputs in each turn and run.
    settings(
        max_examples=_ROUND,
        deadline=None,
        database=None,
        derandomize=False,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )(given(strategy)(counted))()
    for value in last:
        if not stopping():
            note(value)
            _look_for_leaks(check, value)


@contextlib.contextmanager
def _signals() -> Iterator[_Stopping]:
    stopping = _Stopping()
    former = [
        (number, signal.signal(number, handler))
        for number, handler in ((signal.SIGTERM, stopping), (signal.SIGPROF, _hangs))
    ]
    try:
        yield stopping
    finally:
        for number, handler in former:
            signal.signal(number, handler)


def run(seconds: float, targets: Mapping[str, Target]) -> int:
    """Give each target its part of the time, a turn at least; stop at the first finding. Gives the exit status.

    The last lines are for `account.py`: one for each target that had inputs.
    """
    ran: Counter[str] = Counter()
    broken = without = ""
    with _signals() as stopping:
        for name, target in targets.items():
            started, start = time.monotonic(), time.process_time()
            last = _LastInput(name)
            while True:
                try:
                    fuzz(target, ran, name, last.note, lambda: stopping.told)
                except KeyboardInterrupt:
                    raise
                except Unsatisfiable:
                    without = name
                except BaseException:
                    traceback.print_exc()
                    print(f"error: {name} broke a promise after {ran[name]} inputs", file=sys.stderr)
                    broken = name
                if broken or without or stopping.told or time.monotonic() - started >= seconds / len(targets):
                    break
            last.close()
            if without:
                print(f"error: {name} had no input", file=sys.stderr)
                break
            verdict = "a promise broken" if broken else "nothing found"
            spent = time.process_time() - start
            print(f"{name}: {ran[name]} inputs in {spent:.1f} s of processor time, {verdict}", flush=True)
            if broken or stopping.told:
                break
    return 1 if broken or without else 0


def limit_this_process() -> None:
    """Bound its memory, and have whatever ends it say where it was."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    faulthandler.enable()
    # What follows is the kernel's own way to deal with it: the process ends.
    faulthandler.register(signal.SIGVTALRM, chain=True)


def main() -> int:
    """Fuzz what the command line names."""
    names = sys.argv[2:] or list(TARGETS)
    if unknown := [name for name in names if name not in TARGETS]:
        print(f"error: there is no target {', '.join(unknown)}", file=sys.stderr)
        print(f"hint: {' '.join(TARGETS)}", file=sys.stderr)
        return 2
    limit_this_process()
    return run(float(sys.argv[1] if len(sys.argv) > 1 else 60), {name: TARGETS[name] for name in names})


if __name__ == "__main__":
    sys.exit(main())
