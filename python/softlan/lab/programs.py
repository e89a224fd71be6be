"""Programs that run on the lab's machines for longer: started, watched by the events in their log, stopped, killed.

What a program writes is kept line by line. Lines that are JSON objects with an `event` are events (softlan's own
`--log-format json`); a lab waits for them by name. Programs end with the lab, whatever happens to it (see `inside`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from .host import Host
from .namespaces import LabError

_INSIDE: Final = str(Path(__file__).with_name("inside.py"))
_LINES: Final = 20_000
"""How much of a program's output is kept."""
_IN_WORDS: Final = frozenset({"ts", "level", "event", "message"})


@dataclass(frozen=True)
class Event:
    """One JSON line of a program's log."""

    name: str
    fields: Mapping[str, Any]
    at: float
    """When the lab read it, in seconds of `time.monotonic`."""


@dataclass
class Program:
    """A program on a machine. Make it, `await start()`, and `await stop()` in the end."""

    host: Host
    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.events: list[Event] = []
        self.lines: deque[str] = deque(maxlen=_LINES)
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._news = asyncio.Condition()

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        """Its process id. Raises `LabError` before `start`."""
        if self._process is None:
            raise LabError(f"{self.name} is not running")
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit status; negative: the signal that ended it; None: it runs."""
        return None if self._process is None else self._process.returncode

    async def start(self) -> None:
        """Start it. A command that cannot be run shows as exit status 127 and in the log."""
        if self.running:
            raise LabError(f"{self.name} runs already")
        fd = self.host.namespace.fd
        # A pipe of our own rather than asyncio's: with those, `wait` would wait for grandchildren that hold them too.
        reading, writing = os.pipe()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", _INSIDE, str(fd), "--", *self.command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                env={**os.environ, **self.environment},
                pass_fds=[fd],
                start_new_session=True,
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        loop = asyncio.get_running_loop()
        stream = asyncio.StreamReader(limit=1 << 20)
        file = os.fdopen(reading, "rb", buffering=0)
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), file)
        self._reader = asyncio.create_task(self._read(stream, transport))

    async def _read(self, stream: asyncio.StreamReader, transport: asyncio.ReadTransport) -> None:
        while True:
            try:
                raw = await stream.readline()
            except ValueError:  # a line above the limit: asyncio has thrown it away
                continue
            if not raw:
                break
            line = raw.decode(errors="replace").rstrip("\n")
            self.lines.append(line)
            event = _event(line)
            if event is not None:
                async with self._news:
                    self.events.append(event)
                    self._news.notify_all()
        transport.close()
        async with self._news:
            self._news.notify_all()

    def mark(self) -> int:
        """Give a place in the log, for `event(..., since=mark)`: what comes after now."""
        return len(self.events)

    def found(self, name: str, since: int = 0, **fields: object) -> list[Event]:
        """Give the events of that name, with those values in their fields, that the log holds."""
        return [
            event
            for event in self.events[since:]
            if event.name == name and all(event.fields.get(key) == value for key, value in fields.items())
        ]

    async def event(self, name: str, within: float = 15.0, *, since: int = 0, **fields: object) -> Event:
        """Give the first event of that name and those fields after `since`, waited for.

        Raises `LabError` with the end of the log when it does not come within `within` seconds or the program ends.
        """
        deadline = time.monotonic() + within
        while True:
            if found := self.found(name, since, **fields):
                return found[0]
            left = deadline - time.monotonic()
            if self._reader is None or self._reader.done():
                await self.wait(5)
                raise LabError(
                    f"{self.name} ended with {self.returncode} before `{name}`; its log:\n{self.tail()}"
                )
            if left <= 0:
                raise LabError(f"{self.name} did not say `{name}` in {within:g} s; its log:\n{self.tail()}")
            async with self._news:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left, 1.0)):
                        await self._news.wait()

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once, without a chance to say goodbye (SIGKILL)."""
        self.send_signal(signal.SIGKILL)

    async def wait(self, within: float) -> int:
        """Its exit status once it has ended. Raises `LabError` when it has not within `within` seconds."""
        if self._process is None:
            raise LabError(f"{self.name} was never started")
        try:
            async with asyncio.timeout(within):
                status = await self._process.wait()
        except TimeoutError:
            raise LabError(f"{self.name} still ran after {within:g} s; its log:\n{self.tail()}") from None
        # What it started itself and left behind (it led a session of its own) would hold its output open.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        if self._reader is not None:
            await self._reader
        return status

    async def stop(self, number: int = signal.SIGTERM, within: float = 5.0) -> int | None:
        """Asks it to end and gives its exit status; kills it when it does not within `within` seconds."""
        if self._process is None:
            return None
        if self.running:
            self.send_signal(number)
        try:
            return await self.wait(within)
        except LabError:
            self.kill()
            return await self.wait(10)

    def tail(self, count: int = 25) -> str:
        """Give the last lines of what it wrote, events in words."""
        lines = [f"  {self.name} | {_words(line)}" for line in list(self.lines)[-count:]]
        return "\n".join(lines) or f"  {self.name} | (nothing)"


def _words(line: str) -> str:
    event = _event(line)
    if event is None:
        return line
    fields = {key: value for key, value in event.fields.items() if key not in _IN_WORDS}
    told = " ".join(f"{key}={value}" for key, value in fields.items() if value is not None)
    time_of_day = str(event.fields.get("ts", ""))[11:23]
    return f"{time_of_day} {event.name}: {event.fields.get('message', '')} [{told}]"[:400]


def _event(line: str) -> Event | None:
    if not line.startswith("{"):
        return None
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    name = fields.get("event") if isinstance(fields, dict) else None
    return Event(name, fields, time.monotonic()) if isinstance(name, str) else None
