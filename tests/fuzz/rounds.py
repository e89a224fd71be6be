"""Fuzzes in the background and keeps account: `./dev fuzz rounds SECONDS [TARGET ...]`; `./dev fuzz table` writes the account down.

One program at a time, at the lowest priority, in slices; next is whichever target has had the least processor time so far. After each
slice the account in rust/fuzz/account.json has grown, so that the run may end at any moment. A target that broke a promise is left
out of the rest of the run, and the run ends with 1.
"""

from __future__ import annotations

import datetime
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import account as accounts
from targets import TARGETS

from softlan.files import write_atomically
from softlan.lab.docs import replace_between

ROOT = Path(__file__).parents[2]
FILE = ROOT / "rust" / "fuzz" / "account.json"
DOCS = ROOT / "docs" / "reliability.md"
SLICE_S = 120

RUST = sorted(program.stem for program in (ROOT / "rust" / "fuzz" / "fuzz_targets").glob("*.rs"))
ALL = [*RUST, *TARGETS]


def read() -> list[accounts.Entry]:
    return accounts.from_json(json.loads(FILE.read_text())) if FILE.exists() else []


def git(*words: str) -> str:
    return subprocess.run(
        ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True
    ).stdout.strip()


def commit() -> str:
    """The code that is fuzzed; with a plus when some of it is not committed."""
    changed = git(
        "status", "--porcelain", "--", "rust", "python", "tests/fuzz", f":!{FILE.relative_to(ROOT)}"
    )
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def words(target: str, seconds: float) -> list[str]:
    """What to type for one slice."""
    if target in RUST:
        return [str(ROOT / "rust" / "fuzz" / "run"), target, str(round(seconds))]
    return [sys.executable, str(Path(__file__).with_name("run.py")), str(round(seconds)), target]


def fuzz(target: str, seconds: float) -> tuple[list[accounts.Entry], accounts.Entry | None, str]:
    """One slice: what to add to the account, what to add if nobody said stop, and all that was said."""
    day, code, before = datetime.datetime.now(datetime.UTC).date().isoformat(), commit(), _spent()
    done = subprocess.run(
        words(target, seconds), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    found = [accounts.read_spent(line, day, code) for line in done.stdout.splitlines()]
    entries = [entry for entry in found if entry is not None]
    # A status of its own, as of a build that fails, is no finding; being ended by a signal is one.
    if entries or done.returncode >= 0:
        return entries, None, done.stdout
    said = f"{done.stdout}error: {target} was ended by {signal.Signals(-done.returncode).name}\n"
    said += f"hint: its last input is rust/fuzz/artifacts/{target}/last-input\n"
    return [], accounts.ended(target, day, code, _spent() - before), said


def _spent() -> float:
    """Processor time of all that this process has started and seen end, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def rounds(seconds: float, targets: list[str]) -> int:
    """Go round until the time is over or somebody says stop."""
    os.nice(19)
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        if not stopped:
            stopped = True
            # The slice that runs ends by itself then, and counts.
            os.killpg(0, signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    end, left, status = time.monotonic() + seconds, list(targets), 0
    while left and not stopped and (rest := end - time.monotonic()) >= 1:
        target = accounts.next_target(read(), left)
        entries, ended, said = fuzz(target, min(SLICE_S, rest))
        if stopped and not entries:
            break
        if ended is not None:
            entries = [ended]
        print(said, end="", flush=True)
        if not entries or any(entry.found for entry in entries):
            left.remove(target)
            status = 1
        account = read()
        for entry in entries:
            account = accounts.added(account, entry)
        write_atomically(FILE, (json.dumps(accounts.as_json(account), indent=1) + "\n").encode())
    return status


def main() -> int:
    if sys.argv[1] == "table":
        replace_between(DOCS, "fuzz", accounts.table(read(), ALL))
        return 0
    targets = sys.argv[3:] or ALL
    if unknown := set(targets) - set(ALL):
        print(
            f"error: there is no fuzz target {', '.join(unknown)}; there are {', '.join(ALL)}",
            file=sys.stderr,
        )
        return 2
    return rounds(float(sys.argv[2]), targets)


if __name__ == "__main__":
    sys.exit(main())
