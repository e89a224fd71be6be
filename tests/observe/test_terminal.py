"""`softlan status --live` in a real terminal (tmux): drawn, resized, scrolled, ended, and the terminal as it was."""

import contextlib
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from softlan.lab.testing import need

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
LIVE = f"{shlex.quote(sys.executable)} -m softlan status --live"


class Terminal:
    """A tmux server of its own with one window."""

    def __init__(self, name: str, directory: Path, command: str, width: int, height: int) -> None:
        self._tmux = ["tmux", "-L", name, "-f", "/dev/null"]
        self._environment = {
            **os.environ,
            "SOFTLAN_RUNTIME_DIR": str(directory),
            "LC_ALL": "C.UTF-8",
            "TERM": "xterm",
        }
        self.tmux("new-session", "-d", "-x", str(width), "-y", str(height), command)

    def tmux(self, *words: str) -> str:
        done = subprocess.run(
            [*self._tmux, *words],
            env=self._environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=20,
        )
        return done.stdout

    def screen(self, *, codes: bool = False) -> list[str]:
        return self.tmux("capture-pane", "-p", *(["-e"] if codes else [])).splitlines()

    def until(self, condition, within: float = 30.0) -> list[str]:
        deadline = time.monotonic() + within
        while not condition(lines := self.screen()):
            if time.monotonic() > deadline:
                pytest.fail("the terminal shows\n" + "\n".join(lines))
            time.sleep(0.1)
        return lines


@pytest.fixture
def relay(tmp_path):
    """A synthetic relay's status socket in a directory of its own."""
    directory = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, str(HERE / "synthetic.py")],
        env={**os.environ, "SOFTLAN_RUNTIME_DIR": str(directory)},
    )
    try:
        deadline = time.monotonic() + 60
        while not list(directory.glob("*.status")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield directory
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def terminal(relay, tmp_path):
    need("tmux")
    made = []

    def make(command: str, width: int = 100, height: int = 30) -> Terminal:
        made.append(Terminal(f"softlan-test-{os.getpid()}-{len(made)}", relay, command, width, height))
        return made[-1]

    yield make
    for one in made:
        with contextlib.suppress(subprocess.CalledProcessError):
            one.tmux("kill-server")


def test_a_window_of_the_live_view(terminal, tmp_path):
    before = shlex.quote(str(tmp_path / "stty"))
    # Rows and columns are on stty's first line, and change.
    settings = "stty -a | tail -n +2"
    window = terminal(
        f"{settings} > {before}; {LIVE}; echo ended with $?; {settings} | cmp - {before} && echo as it was; sleep 60"
    )
    lines = window.until(lambda lines: any("200 peers in 30 rooms" in line for line in lines))
    assert lines[0].startswith("relay  listens on")
    assert lines[-1].startswith("q end")
    assert any(line.startswith("  client 1") for line in lines)

    window.tmux("send-keys", "End")
    window.until(lambda lines: "of 236" in lines[-1] and "1-29" not in lines[-1])
    window.tmux("send-keys", "Home", "p")
    window.until(lambda lines: "show peers" in lines[-1] and not any("client" in line for line in lines))

    window.tmux("resize-window", "-x", "60", "-y", "12")
    lines = window.until(lambda lines: len(lines) == 12 and lines[-1].startswith("q end"))
    assert all(len(line) <= 60 for line in lines)
    window.tmux("resize-window", "-x", "120", "-y", "40")
    window.until(
        lambda lines: len(lines) == 40 and lines[-1].startswith("q end") and lines[0].startswith("relay")
    )

    window.tmux("send-keys", "q")
    lines = window.until(lambda lines: "as it was" in lines)
    assert "ended with 0" in lines
    assert not any("200 peers" in line for line in lines), "what was on the screen before is there again"


def test_without_colours(terminal):
    plain = terminal(f"NO_COLOR=1 {LIVE}")
    plain.until(lambda lines: any("200 peers in 30 rooms" in line for line in lines))
    coloured = terminal(f"env -u NO_COLOR {LIVE}")
    coloured.until(lambda lines: any("200 peers in 30 rooms" in line for line in lines))
    red, green = "\x1b[31m", "\x1b[32m"
    assert not any(code in line for code in (red, green) for line in plain.screen(codes=True))
    assert any(
        green in line or "\x1b[1;32m" in line or ";32m" in line for line in coloured.screen(codes=True)
    )


def test_it_ends_with_ctrl_c(terminal):
    window = terminal(f"trap true INT; {LIVE}; echo ended with $?; sleep 60")
    window.until(lambda lines: any("200 peers in 30 rooms" in line for line in lines))
    window.tmux("send-keys", "C-c")
    window.until(lambda lines: "ended with 0" in lines)


def test_ctrl_z_does_not_leave_it_half_way(terminal):
    # An interactive shell, which is what would take the terminal when it stops.
    window = terminal("PS1='$ ' sh -i")
    window.until(lambda lines: "$" in lines)
    window.tmux("send-keys", f"{LIVE}; echo ended with $?", "Enter")
    window.until(lambda lines: any("200 peers in 30 rooms" in line for line in lines))
    window.tmux("send-keys", "C-z", "p")
    window.until(lambda lines: "show peers" in lines[-1])
    window.tmux("send-keys", "q")
    lines = window.until(lambda lines: "ended with 0" in lines)
    assert not any("200 peers" in line for line in lines)


def test_it_needs_a_terminal(relay):
    done = subprocess.run(
        [sys.executable, "-m", "softlan", "status", "--live"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "needs a terminal" in done.stderr
