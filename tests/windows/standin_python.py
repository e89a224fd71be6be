"""A Windows Python under Wine with the stand-in iphlpapi.dll beside python.exe; what fixtures and tests make of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softlan.lab.testing import need, skip

HERE = Path(__file__).parent
INSIDE = HERE / "inside"


@dataclass(frozen=True)
class WindowsPython:
    """A directory with python.exe, softlan in its site-packages."""

    directory: Path

    def popen(self, *arguments: object, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """Start it; standard output and error come out as one. Paths are Unix paths."""
        variables = {
            **os.environ,
            "SOFTLAN_WINE_PYTHON": str(self.directory),
            "WINEDLLOVERRIDES": "iphlpapi=n",
            "PYTHONPATH": windows_path(INSIDE),
            "PYTHONUTF8": "1",
            **(environment or {}),
        }
        words = [windows_path(word) if isinstance(word, Path) else str(word) for word in arguments]
        return subprocess.Popen(
            [HERE / "wine" / "python", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=variables,
        )

    def run(
        self, *arguments: object, environment: dict[str, str] | None = None, timeout_s: float = 400
    ) -> tuple[int, str]:
        """Run it to its end; gives exit status and output."""
        process = self.popen(*arguments, environment=environment)
        try:
            output, _ = process.communicate("", timeout=timeout_s)
        finally:
            process.kill()
        return process.returncode, output

    def result(self, *arguments: object, environment: dict[str, str] | None = None) -> Any:
        """Run a script that prints `RESULT` and JSON; gives what the JSON says."""
        status, output = self.run(*arguments, environment=environment)
        lines = [line for line in output.splitlines() if line.startswith("RESULT ")]
        assert lines, f"no result (exit status {status}):\n{output}"
        return json.loads(lines[-1].removeprefix("RESULT "))


def windows_path(path: Path) -> str:
    """Name a file as Windows programs under Wine know it."""
    return "Z:" + str(path.absolute()).replace("/", "\\")


def make_standin_python(directory: Path) -> WindowsPython:
    """Copy the Windows Python (as links where possible) and put the stand-in into the copy; skips without Wine."""
    for tool in ("wine", "x86_64-w64-mingw32-gcc"):
        need(tool)
    made = subprocess.run(
        [HERE / "wine" / "setup.sh"], stdout=subprocess.PIPE, text=True, check=False, timeout=600
    )
    if made.returncode != 0:
        skip("wine/setup.sh cannot set up a Windows Python; it says why on standard error")
    source = Path(made.stdout.strip().splitlines()[-1]) / "python"
    if not (source / "Lib" / "site-packages" / "softlan").is_dir():
        skip(
            "softlan's win_amd64 wheel is not installed: packaging/windows/build-wheel.sh, wine/setup.sh WHEEL"
        )
    copy = directory / "python"

    def link(here: str, there: str) -> None:
        try:
            os.link(here, there)
        except OSError:
            shutil.copy2(here, there)

    shutil.copytree(source, copy, copy_function=link)
    subprocess.run([HERE / "standin" / "iphlpapi" / "build.sh", copy], check=True, timeout=120)
    return WindowsPython(copy)
