"""The Rust program the suite measures with: where it is, how it is built, and when it has come up."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from pathlib import Path

from softlan.lab import LabError, Program

_ROOT = Path(__file__).parents[2]
YARDSTICKS = Path(os.environ.get("CARGO_TARGET_DIR", _ROOT / "target")) / "release" / "softlan-yardsticks"


def build() -> None:
    """Build the program; little is done when nothing has changed. Raises `LabError` with what cargo said."""
    command = ["cargo", "build", "--release", "-q", "-p", "softlan-yardsticks"]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"the yardsticks could not be built: {done.stderr.strip()}")


async def until_said(program: Program, words: str = "ready", within: float = 10.0) -> None:
    """Wait for a line with these words in a program's output. Raises `LabError` when it does not come."""
    deadline = time.monotonic() + within
    while not any(words in line for line in program.lines):
        if time.monotonic() > deadline or not program.running:
            raise LabError(f"{program.name} did not say `{words}`:\n{program.tail()}")
        await asyncio.sleep(0.02)
