"""`softlan demo` as people run it: every verdict good, nothing left behind, also when it is interrupted."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

DEMO = [sys.executable, "-m", "softlan", "demo"]


def programs_of(directory: Path) -> list[int]:
    """Every process with a path below `directory` on its command line, as all of a demo's programs have."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                words = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(directory / "softlan-lab-") in words:
                found.append(int(process.name))
    return found


def lab_directories(directory: Path) -> list[Path]:
    return list(directory.glob("softlan-lab-*"))


async def run_demo(
    directory: Path, *options: str, interrupt: int = 0, after: str = ""
) -> tuple[int | None, str, str]:
    """Run it with its temporary files in `directory`; send it a signal once a line with `after` has come."""
    process = await asyncio.create_subprocess_exec(
        *DEMO,
        *options,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(directory), "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    said = b""
    try:
        async with asyncio.timeout(110):
            if interrupt:
                while after.encode() not in (line := await process.stdout.readline()):
                    assert line, (await process.stderr.read()).decode()
                    said += line
                assert len(programs_of(directory)) >= 4
                process.send_signal(interrupt)
            rest, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return process.returncode, (said + rest).decode(), errors.decode()


async def test_every_verdict_is_good(tmp_path: Path) -> None:
    status, said, errors = await run_demo(tmp_path)
    print(said)
    assert status == 0, said + errors
    assert errors == ""
    assert "\x1b" not in said, "no terminal sequences where there is no terminal"
    assert "FAIL" not in said
    assert programs_of(tmp_path) == []
    assert lab_directories(tmp_path) == []


async def test_for_machines(tmp_path: Path) -> None:
    status, said, errors = await run_demo(tmp_path, "--json")
    assert status == 0, said + errors
    told = json.loads(said)
    assert told["good"] is True
    assert len(told["verdicts"]) == told["planned"]
    assert all(verdict["good"] and verdict["figure"] for verdict in told["verdicts"])


async def test_interrupted_it_leaves_nothing(tmp_path: Path) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        status, said, errors = await run_demo(tmp_path, interrupt=number, after="pings everyone")
        assert status == 130, said + errors
        assert "Traceback" not in errors
        assert programs_of(tmp_path) == []
        assert lab_directories(tmp_path) == []


async def test_killed_it_leaves_no_process(tmp_path: Path) -> None:
    await run_demo(tmp_path, interrupt=signal.SIGKILL, after="pings everyone")
    for _ in range(100):
        if not programs_of(tmp_path):
            break
        await asyncio.sleep(0.05)
    assert programs_of(tmp_path) == []
