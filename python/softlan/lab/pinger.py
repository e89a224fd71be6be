"""Pings that never stop: what a line did from the first request to the last, to be asked about any stretch of it.

Where `probes.ping` answers "does it work now", this answers "since when does it work again", "what was lost meanwhile" and
"how long did they take". It runs in a thread of its own, so that what the asyncio loop does is not taken for the network's.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import select
import socket
import struct
import time
from dataclasses import dataclass
from typing import Final

from .host import Station
from .packets import echo
from .threads import Threaded

_MARK: Final = struct.Struct("!QI")
"""What a request carries: which pinger sent it, and its number, which the header's 16 bits are too few for."""
_SETTLED_S: Final = 0.3
"""A request without an answer for this long counts as lost where "is it back" is asked."""
_serial = itertools.count(1)


@dataclass(frozen=True)
class Stretch:
    """What was sent in a stretch of time, and the round trips in seconds of what was answered, sorted."""

    sent: int
    trips: tuple[float, ...]

    @property
    def lost(self) -> int:
        """Requests without an answer."""
        return self.sent - len(self.trips)

    def percentile(self, share: float) -> float:
        """Give the round trip in seconds that `share` (0 to 1) of the answered ones are not above; NaN of none."""
        if not self.trips:
            return float("nan")
        return self.trips[min(len(self.trips) - 1, int(len(self.trips) * share))]


class Pinger(Threaded):
    """Sends an echo request every `interval` seconds; what was seen stays after `close`."""

    def __init__(self, source: Station, address: str, *, interval: float = 0.02, size: int = 56) -> None:
        super().__init__("softlan-lab-pinger")
        self.source = source
        self._address = address
        self._interval = interval
        self._filling = bytes(max(0, size - _MARK.size))
        self._mark = os.getpid() << 32 | next(_serial)
        self._sent: list[float] = []
        self._answered: list[float | None] = []
        self._running = True

    def _ask_to_end(self) -> None:
        self._running = False

    def between(self, start: float, end: float) -> Stretch:
        """What was sent from `start` to `end`, in seconds of `time.monotonic`."""
        pairs = [
            (sent, answered)
            for sent, answered in zip(list(self._sent), list(self._answered), strict=False)
            if start <= sent < end
        ]
        trips = sorted(answered - sent for sent, answered in pairs if answered is not None)
        return Stretch(len(pairs), tuple(trips))

    async def back(
        self, since: float, within: float, *, steady: float = 0.3, share: float = 0.8
    ) -> float | None:
        """Seconds from `since` to the first answer after which things stay well; None when not `within` seconds.

        Well is: of what is sent in the next `steady` seconds, `share` (0 to 1) is answered. Only requests sent after
        `since` count.
        """
        while True:
            found = self._back(since, steady, share)
            if found is not None:
                return found if found <= within else None
            if time.monotonic() - since > within + steady + _SETTLED_S:
                return None
            await asyncio.sleep(0.02)

    def _back(self, since: float, steady: float, share: float) -> float | None:
        sent, answered, now = list(self._sent), list(self._answered), time.monotonic()
        for index, (at, came) in enumerate(zip(sent, answered, strict=False)):
            if at < since or came is None:
                continue
            if now < at + steady:
                return None
            after = [
                came
                for moment, came in zip(sent[index:], answered[index:], strict=False)
                if moment < at + steady
            ]
            good = sum(came is not None for came in after)
            if good >= share * len(after):
                return came - since
            if now < at + steady + _SETTLED_S:
                return None
        return None

    def _run(self) -> None:
        with self.source.host.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as icmp:
            icmp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            due = time.monotonic()
            while self._running:
                number = len(self._sent)
                self._answered.append(None)
                self._sent.append(time.monotonic())
                data = _MARK.pack(self._mark, number) + self._filling
                # No route, no interface, a full queue: a lost ping, no more.
                with contextlib.suppress(OSError):
                    icmp.sendto(echo(8, self._mark & 0xFFFF, number & 0xFFFF, data), (self._address, 0))
                due = max(due + self._interval, time.monotonic() - self._interval)
                while (left := due - time.monotonic()) > 0:
                    if select.select([icmp], [], [], left)[0]:
                        self._take(icmp)
            deadline = time.monotonic() + _SETTLED_S
            while (left := deadline - time.monotonic()) > 0 and None in self._answered[-50:]:
                if select.select([icmp], [], [], left)[0]:
                    self._take(icmp)

    def _take(self, icmp: socket.socket) -> None:
        while True:
            try:
                packet = icmp.recv(65535)
            except OSError:
                return
            now = time.monotonic()
            body = packet[(packet[0] & 0x0F) * 4 :]
            if len(body) < 8 + _MARK.size or body[0] != 0:
                continue
            mark, number = _MARK.unpack_from(body, 8)
            if mark == self._mark and number < len(self._answered) and self._answered[number] is None:
                self._answered[number] = now
