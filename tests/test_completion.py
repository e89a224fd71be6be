"""Shell completion, asked the way the shells ask."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from softlan.lab.testing import must_have_all

pytestmark = pytest.mark.slow

SOFTLAN = Path(sys.executable).with_name("softlan")


def softlan(*arguments: str) -> str:
    return subprocess.run(
        [SOFTLAN, *arguments], capture_output=True, text=True, check=True, timeout=60
    ).stdout


def completed_by_bash(words: list[str]) -> list[str]:
    """Complete the last of `words` in a real bash, with the script sourced."""
    script = f"""
        source <({SOFTLAN} completion bash)
        COMP_WORDS=({" ".join(f'"{word}"' for word in words)}); COMP_CWORD={len(words) - 1}
        _softlan_completion softlan; printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    environment = {**os.environ, "PATH": f"{SOFTLAN.parent}{os.pathsep}{os.environ['PATH']}"}
    ended = subprocess.run(
        ["bash", "--norc", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        timeout=60,
    )
    return ended.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["softlan", "re"], "relay"),
        (["softlan", "relay", "--max-p"], "--max-peers-per-room"),
        (["softlan", "relay", "--congestion", "c"], "calm"),
        (["softlan", "config", "show", "g"], "gateway"),
    ],
)
def test_bash_completes(words, expected):
    assert expected in completed_by_bash(words)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_take_the_script(shell, tmp_path):
    script = tmp_path / "softlan"
    script.write_text(softlan("completion", shell))
    assert "_SOFTLAN_COMPLETE" in script.read_text()
    if shutil.which(shell) is None:
        if must_have_all():
            pytest.fail(f"{shell} is not installed", pytrace=False)
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n", script], check=True, timeout=60)
