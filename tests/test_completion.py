"""Shell completion, asked the way the shells ask."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from softlan.lab.testing import need

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


WORDS = [
    (["softlan", "re"], "relay"),
    (["softlan", "relay", "--max-peers-p"], "--max-peers-per-room"),
    (["softlan", "relay", "--congestion", "ca"], "calm"),
    (["softlan", "config", "show", "g"], "gateway"),
]


@pytest.mark.parametrize(("words", "expected"), WORDS)
def test_bash_completes(words, expected):
    assert expected in completed_by_bash(words)


def asked(*command: str) -> str:
    """What a shell says, with softlan in its path."""
    environment = {**os.environ, "PATH": f"{SOFTLAN.parent}{os.pathsep}{os.environ['PATH']}", "TERM": "dumb"}
    return subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment, timeout=60
    ).stdout


@pytest.mark.parametrize(("words", "expected"), WORDS)
def test_fish_completes(words, expected, tmp_path):
    need("fish")
    script = tmp_path / "softlan.fish"
    script.write_text(softlan("completion", "fish"))
    said = asked("fish", "--no-config", "-c", f"source {script}; complete -C '{' '.join(words)}'")
    assert expected in [line.split("\t")[0] for line in said.splitlines()]


@pytest.mark.parametrize(("words", "expected"), WORDS)
def test_zsh_completes(words, expected, tmp_path):
    """As installed: found in fpath by compinit; a zsh of its own is typed to, and the Tab key pressed."""
    need("zsh")
    (tmp_path / "_softlan").write_text(softlan("completion", "zsh"))
    typing = f"""
        zmodload zsh/zpty
        zpty -b shell zsh -f -i
        tell() {{ zpty -w shell "$1" }}
        tell 'PS1=; unset zle_bracketed_paste'
        tell 'fpath=({tmp_path} $fpath); autoload -Uz compinit; compinit -u -d {tmp_path}/dump'
        tell 'show() {{ print -r -- "ty""ped<$BUFFER>" }}; zle -N show; bindkey "^I" complete-word "^X" show'
        said=
        wait_for() {{ local piece; repeat 600 {{ while zpty -r -t shell piece; do said+=$piece; done
            [[ $said == *${{~1}}* ]] && return 0; sleep 0.05 }}; print -r -- $said; return 1 }}
        tell 'print re""ady'
        wait_for ready || exit 3
        zpty -n -w shell $'{" ".join(words)}\\t\\x18'
        wait_for 'typed<*>' || exit 4
        print -r -- $said
    """
    said = asked("zsh", "-f", "-c", typing)
    assert f"typed<{' '.join([*words[:-1], expected])}" in said
