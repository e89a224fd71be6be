"""The terminal of `softlan status --live`: keys in, lines out, and everything as it was in the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from softlan.errors import ConfigError
from softlan.installing import pip_install
from softlan.observe.local import need_local_sockets, read_all

if TYPE_CHECKING:
    from rich.console import Console

    from softlan.observe.live import Screen

__all__ = ["read_keys", "watch"]

_INTERVAL_S = 1.0

_KEYS = {
    "\x1b[A": "up",
    "\x1bOA": "up",
    "\x1b[B": "down",
    "\x1bOB": "down",
    "\x1b[5~": "page-up",
    "\x1b[6~": "page-down",
    "\x1b[H": "home",
    "\x1b[1~": "home",
    "\x1b[F": "end",
    "\x1b[4~": "end",
    "\x03": "ctrl-c",
    "\x04": "ctrl-d",
}
"""What terminals send (xterm control sequences, VT220 keys)."""


def watch() -> None:
    """Show all parts of this machine until the user ends it.

    Raises:
        ConfigError: there is no terminal, or rich is not installed.
        UnsupportedPlatformError: on Windows, where parts have no status sockets.

    """
    need_local_sockets()
    if not sys.stdout.isatty() or not sys.stdin.isatty():
        raise ConfigError("--live needs a terminal", hint="`softlan status --json` is for programs")
    try:
        from rich.console import Console

        from softlan.observe.live import Screen
    except ImportError as error:
        raise ConfigError(
            f"--live needs {error.name}, which is not installed",
            hint=f"install it with: {pip_install('softlan[live]')}",
        ) from error
    console = Console(highlight=False)
    with console.screen(hide_cursor=True), _raw_keys():
        asyncio.run(_watch(console, Screen()))


def read_keys(data: str) -> list[str]:
    """Take apart what a terminal sent: names of keys, or single characters."""
    found = []
    while data:
        sequence = next((known for known in _KEYS if data.startswith(known)), data[0])
        found.append(_KEYS.get(sequence, sequence))
        data = data[len(sequence) :]
    return found


async def _watch(console: Console, screen: Screen) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def draw() -> None:
        _draw(console, screen)

    def keys() -> None:
        data = os.read(sys.stdin.fileno(), 1024).decode(errors="replace")
        # Nothing at all: the terminal is gone.
        if not data or not all(screen.press(key, console.size.height) for key in read_keys(data)):
            ended.set()
        else:
            draw()

    with _handling(loop, keys, draw, ended.set):
        stop = asyncio.ensure_future(ended.wait())
        try:
            while not ended.is_set():
                parts = await asyncio.to_thread(read_all)
                screen.feed(time.monotonic(), time.time(), parts)
                draw()
                await asyncio.wait((stop,), timeout=_INTERVAL_S)
        finally:
            stop.cancel()


def _draw(console: Console, screen: Screen) -> None:
    from rich.control import Control
    from rich.segment import ControlType, Segment, Segments

    width, height = console.size
    segments: list[Segment] = [Control.home().segment]
    for number, line in enumerate(screen.lines(width, height)):
        if number:
            segments.append(Segment.line())
        segments.extend(line.render(console))
        # What the line before this one left behind it.
        segments.append(Control((ControlType.ERASE_IN_LINE, 0)).segment)
    # One write a picture, so that nothing flickers.
    console.print(Segments(segments), end="", soft_wrap=True)


@contextlib.contextmanager
def _handling(
    loop: asyncio.AbstractEventLoop,
    keys: Callable[[], None],
    draw: Callable[[], None],
    end: Callable[[], None],
) -> Iterator[None]:
    """Listen to keys, to changes of the window's size, and to who wants us to end."""
    if sys.platform == "win32":
        raise AssertionError("no signals and no terminals like that there")
    handlers = {signal.SIGWINCH: draw, signal.SIGTERM: end, signal.SIGINT: end, signal.SIGHUP: end}
    loop.add_reader(sys.stdin.fileno(), keys)
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        loop.remove_reader(sys.stdin.fileno())
        for number in handlers:
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def _raw_keys() -> Iterator[None]:
    """Have the terminal send each key at once, without showing it; it is put back in the end."""
    if sys.platform == "win32":
        raise AssertionError("no termios there")
    import termios
    import tty

    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal)
        changed = termios.tcgetattr(terminal)
        # Ctrl-Z is a key like others: who is stopped cannot give the shell its screen and cursor back.
        changed[6][termios.VSUSP] = bytes((os.fpathconf(terminal, "PC_VDISABLE"),))
        termios.tcsetattr(terminal, termios.TCSADRAIN, changed)
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
