"""What `softlan demo` shows: a list of checks that fills with verdicts, and a small table of traffic below it.

On a terminal it is redrawn in place with plain ANSI sequences (ECMA-48). Elsewhere, and with NO_COLOR set
(no-color.org), each finished check is one line without any sequences.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Final, Self, TextIO

_UP_AND_CLEAR: Final = "\x1b[{}A\r\x1b[J"
_HIDE: Final = "\x1b[?25l"
_SHOW: Final = "\x1b[?25h"
_FRAMES: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_PERIOD_S: Final = 0.1


class State(Enum):
    """Where a check stands."""

    WAITING = "waiting"
    RUNNING = "running"
    GOOD = "good"
    BAD = "bad"


@dataclass
class Row:
    """One check on the screen."""

    title: str
    state: State = State.WAITING
    figure: str = ""
    seconds: float = 0.0


class Screen:
    """Shows rows and a traffic table; an asynchronous context manager that gives the terminal back as it was."""

    def __init__(self, titles: Sequence[str], out: TextIO | None = None) -> None:
        self.rows = [Row(title) for title in titles]
        self.table: list[Sequence[str]] = []
        self._out = out or sys.stdout
        self._live = (
            self._out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        )
        self._drawn = 0
        self._spinner = itertools.cycle(_FRAMES)
        self._ticker: asyncio.Task[None] | None = None
        self._started = 0.0

    async def __aenter__(self) -> Self:
        if self._live:
            self._out.write(_HIDE)
            self._ticker = asyncio.create_task(self._tick())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: object, trace: TracebackType | None
    ) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticker
            self._draw()
            self._out.write(_SHOW)
            self._out.flush()

    def say(self, *lines: str) -> None:
        """Print lines that stay, above everything redrawn."""
        self._erase()
        self._out.write("".join(f"{line}\n" for line in lines))
        self._out.flush()

    def start(self, row: Row) -> None:
        """Show that a check runs."""
        row.state = State.RUNNING
        self._started = time.monotonic()

    def finish(self, row: Row, good: bool, figure: str) -> None:
        """Show a check's verdict."""
        row.state = State.GOOD if good else State.BAD
        row.figure = figure
        row.seconds = time.monotonic() - self._started
        if not self._live:
            self._out.write(self._line(row, "ok  " if good else "FAIL") + "\n")
            self._out.flush()

    def finish_table(self) -> None:
        """Print the table where it was not shown all the time."""
        if not self._live:
            self._out.write("".join(f"{line}\n" for line in self._table_lines()))
            self._out.flush()

    async def _tick(self) -> None:
        while True:
            self._draw()
            await asyncio.sleep(_PERIOD_S)

    def _erase(self) -> None:
        if self._drawn:
            self._out.write(_UP_AND_CLEAR.format(self._drawn))
            self._drawn = 0

    def _draw(self) -> None:
        width = shutil.get_terminal_size().columns
        spin = next(self._spinner)
        marks = {
            State.WAITING: "\x1b[2m·\x1b[0m",
            State.RUNNING: f"\x1b[36m{spin}\x1b[0m",
            State.GOOD: "\x1b[32m✓\x1b[0m",
            State.BAD: "\x1b[31m✗\x1b[0m",
        }
        lines = [f"{marks[row.state]}{self._line(row, '')[: width - 2]}" for row in self.rows]
        lines += [line[: width - 1] for line in self._table_lines()]
        self._erase()
        self._out.write("".join(f"{line}\n" for line in lines))
        self._out.flush()
        self._drawn = len(lines)

    def _line(self, row: Row, mark: str) -> str:
        width = max(len(other.title) for other in self.rows)
        took = f"{row.seconds:4.1f} s" if row.state in (State.GOOD, State.BAD) else ""
        figure = row.figure.replace("\n", "; ")
        return f"{mark} {row.title:<{width}} {took:>6}  {figure}".rstrip()

    def _table_lines(self) -> list[str]:
        if not self.table:
            return []
        widths = [max(len(line[column]) for line in self.table) for column in range(len(self.table[0]))]
        lines = [
            "  "
            + line[0].ljust(widths[0])
            + "".join(f"  {cell:>{w}}" for cell, w in zip(line[1:], widths[1:], strict=True))
            for line in self.table
        ]
        return ["", *lines]
