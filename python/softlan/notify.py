"""Tells systemd how a service does, as sd_notify(3) describes it: datagrams of `NAME=value` lines on the socket it names.

Where there is no systemd, nothing happens. A message that cannot be sent is let go: a service does not stop over it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

from softlan.observe.events import Event
from softlan.observe.logs import log_event

__all__ = ["Notifier", "Service"]

logger = logging.getLogger(__name__)

_STATUS_S = 10.0
"""How often the status line is renewed where there is no watchdog."""


class Notifier:
    """The way to the service manager; `watchdog_s` is how long it waits for a sign of life, None without a watchdog."""

    def __init__(self, address: str | None, watchdog_s: float | None = None) -> None:
        self.address = address
        self.watchdog_s = watchdog_s

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] = os.environ, *, pid: int | None = None
    ) -> Notifier:
        """Read NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID (sd_watchdog_enabled(3))."""
        watchdog = environment.get("WATCHDOG_USEC", "")
        ours = environment.get("WATCHDOG_PID", "") in ("", str(os.getpid() if pid is None else pid))
        enabled = ours and watchdog.isdecimal() and int(watchdog) > 0
        return cls(environment.get("NOTIFY_SOCKET") or None, int(watchdog) / 1e6 if enabled else None)

    def tell(self, **fields: object) -> None:
        """Send one message, such as `READY=1`."""
        family: Any = getattr(socket, "AF_UNIX", None)
        if self.address is None or family is None:
            return
        text = "\n".join(f"{name}={' '.join(str(value).split())}" for name, value in fields.items())
        # "@" stands for the NUL of an abstract address (unix(7)).
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        with (
            contextlib.suppress(OSError),
            socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out,
        ):
            out.setblocking(False)
            out.sendto(text.encode(), address)


class Service:
    """A running part, as its service manager sees it; an asynchronous context manager around the part's work.

    `answers` is given half the watchdog's time in seconds and says whether the data plane still works; a part whose data plane does
    not is not vouched for, and the service manager starts it anew. `describe` is the status line.
    """

    def __init__(
        self,
        answers: Callable[[float], Awaitable[bool]],
        describe: Callable[[], str],
        notifier: Notifier | None = None,
    ) -> None:
        self._answers = answers
        self._describe = describe
        self._notifier = Notifier.from_environment() if notifier is None else notifier
        self._beating: asyncio.Task[None] | None = None

    def ready(self) -> None:
        """Say that the part does its work, for the first time or again."""
        self._notifier.tell(READY=1, STATUS=self._describe())

    @contextlib.contextmanager
    def reloading(self) -> Iterator[None]:
        """Say that the part reads its files again, and that it is ready afterwards, whatever came of it: systemd waits for that."""
        self._notifier.tell(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)
        try:
            yield
        finally:
            self.ready()

    def stopping(self) -> None:
        """Say that the part has begun to end."""
        self._notifier.tell(STOPPING=1, STATUS="going down")

    async def __aenter__(self) -> Service:
        """Begin to give signs of life."""
        if self._notifier.address is not None:
            self._beating = asyncio.create_task(self._beat())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say that it is over, and stop."""
        if self._beating is not None:
            self.stopping()
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)

    async def _beat(self) -> None:
        watchdog = self._notifier.watchdog_s
        interval = _STATUS_S if watchdog is None else watchdog / 2
        while True:
            if watchdog is None:
                self._notifier.tell(STATUS=self._describe())
            elif await self._answers(interval / 2):
                self._notifier.tell(WATCHDOG=1, STATUS=self._describe())
            else:
                log_event(
                    logger,
                    Event.SERVICE_STALLED,
                    f"the data plane did not answer within {interval / 2:g} s; the service manager is not told that all is well",
                )
            await asyncio.sleep(interval if watchdog is None else interval / 2)
