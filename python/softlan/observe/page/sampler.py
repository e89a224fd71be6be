"""Takes a snapshot of the relay now and then, and keeps it as the bytes that watchers get: a watcher more costs the relay nothing."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import msgspec

from softlan import __version__
from softlan.observe.events import Event
from softlan.observe.logs import log_event
from softlan.observe.overview import Overview

__all__ = ["INTERVAL_S", "Sampler"]

logger = logging.getLogger(__name__)

INTERVAL_S = 2.0


class Sampler:
    """Feeds an overview from `snapshot` and tells it as JSON."""

    def __init__(self, snapshot: Callable[[], Mapping[str, Any]]) -> None:
        self._snapshot = snapshot
        self._overview = Overview()
        self._started = time.monotonic()
        self._state = b""
        self.sample()

    @property
    def state(self) -> bytes:
        """The latest view of the relay."""
        return self._state

    def history(self) -> bytes:
        """Tell the curves up to now: of the whole relay, and of each room that is open."""
        return msgspec.json.encode(
            {
                "interval_s": INTERVAL_S,
                "points": list(self._overview.points),
                "rooms": {code: list(points) for code, points in self._overview.room_points.items()},
            }
        )

    def sample(self) -> None:
        """Take a snapshot now."""
        now = time.monotonic()
        snapshot = self._snapshot()
        view = self._overview.feed(now, time.time(), snapshot)
        told = msgspec.to_builtins(view)
        told.update(
            version=__version__,
            listen=snapshot.get("listen"),
            uptime_s=round(now - self._started, 1),
            interval_s=INTERVAL_S,
        )
        self._state = msgspec.json.encode(told)

    async def run(self) -> NoReturn:
        """Take snapshots until cancelled. One that fails leaves the view as it was; the first of several in a row is told."""
        failing = False
        while True:
            await asyncio.sleep(INTERVAL_S)
            try:
                self.sample()
            except Exception as error:  # a fault in a snapshot must not end the page
                if not failing:
                    words = f"cannot take a snapshot for the page, which shows the one before: {error}"
                    log_event(logger, Event.FAULT, words, exc_info=error)
                failing = True
            else:
                failing = False
