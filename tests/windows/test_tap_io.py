"""Frames and requests of a TAP-Windows6 adapter: rust/port/tests/tap_windows.rs, under Wine, against the stand-in kernel driver."""

from __future__ import annotations

import json
import os
import re
import subprocess

import pytest
from wine_lab import HERE, ROOT, Wine, checked

TARGET = "x86_64-pc-windows-gnu"


@pytest.fixture(scope="module")
def program() -> str:
    """The test program, cross-built; the same compiler and target as the wheel."""
    toolchain = checked([str(ROOT / "packaging" / "windows" / "rust-std.sh")])
    environment = {
        **os.environ,
        "PATH": f"{toolchain}:{os.environ['PATH']}" if toolchain else os.environ["PATH"],
        "CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER": "x86_64-w64-mingw32-gcc",
    }
    command = ["cargo", "test", "-p", "softlan-port", "--target", TARGET, "--test", "tap_windows", "--no-run"]
    built = subprocess.run(
        [*command, "--message-format", "json"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert built.returncode == 0, built.stderr[-4000:]
    messages = [json.loads(line) for line in built.stdout.splitlines() if line.startswith("{")]
    (executable,) = [message["executable"] for message in messages if message.get("executable")]
    return str(executable)


def _names() -> list[str]:
    """The tests' names, read from the source, so that each is a test of its own here."""
    source = (ROOT / "rust" / "port" / "tests" / "tap_windows.rs").read_text(encoding="utf-8")
    return re.findall(r"#\[(?:tokio::)?test\]\n(?:async )?fn (\w+)", source)


@pytest.mark.parametrize("name", _names())
def test_tap(tap_wine: Wine, program: str, name: str) -> None:
    done = tap_wine.run(
        *(program, name, "--exact", "--nocapture"),
        within=100,
        RUST_BACKTRACE="0",
        SOFTLAN_STANDIN_PORT=str(tap_wine.standin_port),
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout, done.stdout


def test_the_driver_stands_in_and_is_not_the_real_one() -> None:
    """Whoever reads a result must be able to tell: the name of the service says what it is."""
    assert "softlan-standin-tap" in (HERE / "standin" / "tapdriver" / "install.sh").read_text(
        encoding="utf-8"
    )
