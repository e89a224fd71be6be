"""What a player sees: the real command on a real terminal."""

from __future__ import annotations

import os
import pty
import re
import socket
import subprocess
import sys
from pathlib import Path

ANY_ADAPTER = (
    "import runpy, softlan.client.linux as linux; linux.try_adapter = lambda *_: 'softlan0';"
    " runpy.run_module('softlan', run_name='__main__')"
)
"""softlan, as if this user might make adapters: no room is entered here, so none is made."""


def seen(*words: str) -> tuple[int, str]:
    """Run `softlan WORDS` on a terminal of its own; give its exit status and all that stood there."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "NO_COLOR": "1", "SOFTLAN_CLIENT_CONFIG": os.devnull}
    with subprocess.Popen(
        [sys.executable, "-c", ANY_ADAPTER, *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
    ) as process:
        os.close(theirs)
        said = b""
        try:
            while data := os.read(ours, 65536):
                said += data
        except OSError:  # EIO: nobody has the terminal open any more
            pass
        os.close(ours)
        return process.wait(60), said.decode().replace("\r\n", "\n")


def test_sentences_and_no_names_of_events(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    invite = f"softlan://127.0.0.1:{port}/ROOM1?pin={'A' * 43}"
    status, said = seen("join", invite, "--identity", str(tmp_path / "identity"))
    lines = said.splitlines()
    assert status == 1
    assert re.fullmatch(r"\d\d:\d\d:\d\d  made a new identity, to be known again by: \S+", lines[0]), said
    assert re.fullmatch(rf"\d\d:\d\d:\d\d  connecting to 127\.0\.0\.1:{port}", lines[1]), said
    assert lines[2:] == [
        f"error: nothing listens at 127.0.0.1:{port}: the machine there refused the packet",
        "hint: check the port; the relay may be stopped, or a router forwards the port to the wrong machine",
    ]


def test_a_line_that_is_missing_is_asked_for() -> None:
    status, said = seen("join")
    assert status == 2
    assert 'Paste the line you were given, "softlan://...", in double quotes.' in said
