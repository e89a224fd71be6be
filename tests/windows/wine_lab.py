"""Wine for tests: prefixes, the Windows Python in them, and running it."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from softlan.lab.testing import skip

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PROGRAMS = {
    "wine": "wine, wine64",
    "wineserver": "wine, wine64",
    "x86_64-w64-mingw32-gcc": "gcc-mingw-w64-x86-64",
    "unzip": "unzip",
    "cargo": "the Rust toolchain",
}


@dataclass(frozen=True)
class Wine:
    """A Wine prefix, and a directory with a Windows Python in it."""

    prefix: Path
    python_directory: Path
    standin_port: int | None = None
    """The first UDP port of the stand-in TAP driver, if it is installed."""

    @property
    def python_exe(self) -> Path:
        return self.python_directory / "python.exe"

    def environment(self, **more: str) -> dict[str, str]:
        """The environment of programs in this prefix."""
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "SOFTLAN_"))
        }
        return {
            **inherited,
            "WINEPREFIX": str(self.prefix),
            "SOFTLAN_WINE_PYTHON": str(self.python_directory),
            **more,
        }

    def run(
        self, program: Path | str, *arguments: str, feed: str = "", within: float = 60, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a Windows program; both its outputs come as `stdout`. The streams are pipes: CPython under Wine needs that."""
        # `cat` in between: what Wine leaves running in the background would hold the pipe of ours open.
        return subprocess.run(
            [
                "bash",
                "-c",
                '"$@" 2>&1 | cat; exit "${PIPESTATUS[0]}"',
                "bash",
                str(HERE / "wine" / "run"),
                str(program),
                *arguments,
            ],
            input=feed or "\n",
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=within,
            check=False,
            env=self.environment(**environment),
        )

    def python(
        self, *arguments: str, feed: str = "", within: float = 60, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the Windows Python."""
        return self.run(self.python_exe, *arguments, feed=feed, within=within, **environment)

    def copy(self, directory: Path, *, standin_port: int | None = None) -> Wine:
        """Copy prefix and Python, which costs no space; with the stand-in TAP driver when it is given a UDP port."""
        directory.mkdir(parents=True, exist_ok=True)
        made = Wine(directory / "prefix", directory / "python", standin_port)
        _copy(self.prefix, made.prefix)
        for registry in made.prefix.glob("*.reg"):
            # A file with several links is the one thing wineserver writes into: the copy's registry would become the original's.
            content = registry.read_bytes()
            registry.unlink()
            registry.write_bytes(content)
        _copy(self.python_directory, made.python_directory)
        if standin_port is not None:
            install = HERE / "standin" / "tapdriver" / "install.sh"
            checked([str(install), str(made.prefix), str(standin_port)], env=made.environment())
            # The driver starts with the prefix's services: those that registered it must have ended.
            made.server("-w")
        return made

    def server(self, option: str) -> None:
        """Wait for the end of the prefix's wineserver (-w), or end it (-k)."""
        subprocess.run(
            ["wineserver", option], env=self.environment(), check=False, timeout=60, capture_output=True
        )


def windows_path(path: Path) -> str:
    """A path of this machine as Windows programs under Wine know it."""
    return "Z:" + str(path).replace("/", "\\")


def free_ports(count: int) -> int:
    """The first of so many UDP ports in a row that nobody uses on this machine's loopback just now."""
    while True:
        with contextlib.ExitStack() as held:
            sockets = [
                held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(count)
            ]
            first = random.randrange(20000, 32000)  # below the ports that the system gives out by itself
            with contextlib.suppress(OSError):
                for number, probe in enumerate(sockets):
                    probe.bind(("127.0.0.1", first + number))
                return first


def require_programs() -> None:
    """Skip, or fail when everything is required, where Wine or the compilers are not installed."""
    missing = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    if missing:
        skip(f"not installed: {', '.join(dict.fromkeys(missing))}")


def checked(command: list[str], *, env: dict[str, str] | None = None, within: float = 900) -> str:
    """Run a script of ours and give the last line it prints."""
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=within, check=False, env=env
    )
    if done.returncode != 0:
        pytest.fail(
            f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-4000:]}", pytrace=False
        )
    lines = done.stdout.strip().splitlines()
    return lines[-1] if lines else ""


def _copy(source: Path, target: Path) -> None:
    # Hard links: Wine and our scripts put new files in place of old ones and write into none. Another file system needs real copies.
    if (
        subprocess.run(["cp", "-al", str(source), str(target)], check=False, capture_output=True).returncode
        != 0
    ):
        shutil.rmtree(target, ignore_errors=True)
        subprocess.run(["cp", "-a", str(source), str(target)], check=True)
