"""Fuzzes in the background and keeps account: `./dev fuzz rounds SECONDS [TARGET ...]`; `./dev fuzz table` writes the account down.

One program at a time, at the lowest priority, in slices; next is whichever target has had the least processor time so far. After each
slice the account in rust/fuzz/account.json has grown, so that the run may end at any moment. A target that broke a promise is left
out of the rest of the run, and the run ends with 1.
"""

from __future__ import annotations

import datetime
import json
import os
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


def fuzz(target: str, seconds: float) -> tuple[list[accounts.Entry], str]:
    """One slice: what to add to the account, and all that was said."""
    if target in RUST:
        words = [str(ROOT / "rust" / "fuzz" / "run"), target, str(round(seconds))]
    else:
        words = [sys.executable, str(Path(__file__).with_name("run.py")), str(round(seconds)), target]
    day, code = datetime.datetime.now(datetime.UTC).date().isoformat(), commit()
    said = subprocess.run(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    ).stdout
    found = [accounts.read_spent(line, day, code) for line in said.splitlines()]
    return [entry for entry in found if entry is not None], said


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
        entries, said = fuzz(target, min(SLICE_S, rest))
        if stopped and not entries:
            break
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
