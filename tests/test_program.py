"""How a softlan program ends where standard streams are missing (closed by a shell, or not there, as with pythonw) or cannot be written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def without(closed: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `softlan WORDS` with a stream closed, `>&-` for instance."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "softlan", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--version"], 0),
        (["relay", "--config", "/dev/null", "--cert", "nothing.pem", "--key", "nothing.pem"], 2),
        (["capture", "-", "--part", "nobody"], 1),
        (["doctor", "--json", "--room", "A"], 2),
    ],
)
def test_the_status_is_the_commands_own(closed: str, words: list[str], status: int) -> None:
    ended = without(closed, *words)
    assert (ended.returncode, "Traceback" in ended.stderr) == (status, False), ended.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_doctor_whom_nobody_hears_judges_all_the_same(closed: str, tmp_path: Path) -> None:
    heard = without("", "doctor", "--identity", str(tmp_path / "identity.json"))
    ended = without(closed, "doctor", "--identity", str(tmp_path / "identity.json"))
    assert (ended.returncode, "Traceback" in ended.stderr) == (heard.returncode, False), ended.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /dev/full for certain")
def test_a_full_disk_under_the_output_is_told_in_words() -> None:
    ended = without(">/dev/full", "status", "--json")
    assert (ended.returncode, ended.stderr) == (
        1,
        "error: the output cannot be written: No space left on device\n",
    )
