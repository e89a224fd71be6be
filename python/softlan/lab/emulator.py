"""A seeded bad link for UDP: rate, delay, jitter, a tail-drop buffer, random loss, a path MTU between two machines.

Kernels in containers and small VMs often lack the netem qdisc. This is a relay of datagrams in between, in plain Python:
whoever sends to the near address reaches the target from the far machine and gets the answers back, as through a NAT.

    link = UdpLink(near=cafe, listen=("203.0.113.20", 443), far=cafe, target=("203.0.113.1", 443),
                   up=Shape(rate=20e6, delay=0.01, buffer=300_000, loss=0.005), seed=7)
    with link: ...

Limits: about 20 to 40 thousand datagrams a second for both directions together (one thread, and the GIL is shared with
the program it runs in), so some 200 Mbit/s of full-size packets; delays are exact to about 0.2 ms. Only jitter reorders.
The same seed gives the same losses for the same sequence of datagrams, not for the same wall clock.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import random
import select
import socket
import time
from dataclasses import dataclass
from typing import Final

from .host import Host
from .threads import Threaded

_IP_UDP_HEADERS: Final = 28
"""Bytes of an IPv4 and a UDP header (RFC 791, RFC 768)."""
_FLOW_IDLE_S: Final = 60.0
_BATCH: Final = 32
"""Datagrams read from one socket before another's turn."""
_BUFFER: Final = 4 << 20


@dataclass(frozen=True)
class Shape:
    """What one direction of a link does to what it carries."""

    rate: float | None = None
    """Bits per second, IP and UDP headers included; None: as fast as it goes."""
    delay: float = 0.0
    """Seconds from the end of sending to arrival."""
    jitter: float = 0.0
    """Seconds by which each datagram's delay may be longer or shorter, evenly spread; later ones then overtake earlier ones."""
    buffer: int = 300_000
    """Bytes that may wait for the rate; what comes on top is dropped (tail drop)."""
    loss: float = 0.0
    """Probability of a random loss, 0 to 1."""
    mtu: int = 1500
    """Bytes of an IP packet; larger ones are dropped without a word."""


@dataclass
class Tally:
    """What became of the datagrams of one direction."""

    carried: int = 0
    lost: int = 0
    overflowed: int = 0
    too_big: int = 0


class Direction:
    """One direction as a pure machine: datagrams go in with a time, and come out with the time they arrive."""

    def __init__(self, shape: Shape, seed: int) -> None:
        self.shape = shape
        self.tally = Tally()
        self._random = random.Random(seed)  # noqa: S311 - a repeatable run is the point
        self._free_at = 0.0

    def offer(self, now: float, payload: int) -> float | None:
        """Give the time at which a datagram of `payload` bytes that enters now arrives; None when it is lost."""
        shape = self.shape
        size = payload + _IP_UDP_HEADERS
        if size > shape.mtu:
            self.tally.too_big += 1
            return None
        if self._random.random() < shape.loss:
            self.tally.lost += 1
            return None
        sent = now
        if shape.rate is not None:
            backlog = max(0.0, self._free_at - now) * shape.rate / 8
            if backlog + size > shape.buffer:
                self.tally.overflowed += 1
                return None
            sent = max(now, self._free_at) + size * 8 / shape.rate
            self._free_at = sent
        self.tally.carried += 1
        if not shape.jitter:
            return sent + shape.delay
        return sent + max(0.0, shape.delay + shape.jitter * (2 * self._random.random() - 1))


@dataclass
class _Flow:
    """One sender on the near side, with the far socket that speaks for it."""

    sender: tuple[str, int]
    far: socket.socket
    used: float


class UdpLink(Threaded):
    """The link at work. What is under way at `close` is lost."""

    def __init__(
        self,
        *,
        near: Host,
        listen: tuple[str, int],
        far: Host,
        target: tuple[str, int],
        up: Shape,
        down: Shape | None = None,
        seed: int = 1,
    ) -> None:
        """Listen on machine `near`, speak to `target` from machine `far`; `down` is as `up` when not given."""
        super().__init__("softlan-lab-link")
        self.up = Direction(up, seed)
        self.down = Direction(down or up, seed + 1)
        self._target = target
        self._far = far
        self._near = near.socket()
        self._near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._near.bind(listen)
        self._flows: dict[tuple[str, int], _Flow] = {}
        self._by_socket: dict[int, _Flow] = {}
        self._forgetful = False
        # Heaps by time of arrival; the number keeps the order of what arrives at the same moment.
        self._to_far: list[tuple[float, int, _Flow, bytes]] = []
        self._to_near: list[tuple[float, int, _Flow, bytes]] = []
        self._taken = itertools.count()
        self._stop, self._stopped = os.pipe()

    def _ask_to_end(self) -> None:
        os.write(self._stopped, b"x")

    def close(self) -> None:
        """Stop carrying, and give up the sockets."""
        super().close()
        for flow in self._flows.values():
            flow.far.close()
        self._near.close()
        os.close(self._stop)
        os.close(self._stopped)

    def reshape(self, *, up: Shape | None = None, down: Shape | None = None) -> None:
        """Change what the link does from the next datagram on."""
        if up is not None:
            self.up.shape = up
        if down is not None:
            self.down.shape = down

    def forget(self) -> None:
        """Forget all senders, as a restarted NAT does: the target sees them come from new ports from then on."""
        self._forgetful = True

    def _run(self) -> None:
        sockets: list[int] = [self._stop, self._near.fileno()]
        while True:
            readable, _, _ = select.select(sockets, [], [], self._deliver())
            if self._stop in readable:
                return
            if self._forgetful:
                self._forgetful = False
                self._drop(list(self._flows.values()))
            for number in readable:
                if number == self._near.fileno():
                    self._take_near()
                elif number in self._by_socket:
                    self._take_far(self._by_socket[number])
            sockets = [self._stop, self._near.fileno(), *self._by_socket]

    def _deliver(self) -> float:
        """Send what has arrived, and give the seconds until the next does."""
        now = time.monotonic()
        for queue in (self._to_far, self._to_near):
            while queue and queue[0][0] <= now:
                _, _, flow, data = heapq.heappop(queue)
                # A full socket or a port nobody listens on: on a real line that is a lost packet too.
                with contextlib.suppress(OSError):
                    if queue is self._to_far:
                        flow.far.send(data)
                    else:
                        self._near.sendto(data, flow.sender)
        waiting = [queue[0][0] for queue in (self._to_far, self._to_near) if queue]
        return max(0.0, min(waiting) - now) if waiting else 1.0

    def _take_near(self) -> None:
        for _ in range(_BATCH):
            try:
                data, sender = self._near.recvfrom(65535)
            except OSError:
                return
            now = time.monotonic()
            flow = self._flows.get(sender) or self._open(sender, now)
            flow.used = now
            arrival = self.up.offer(now, len(data))
            if arrival is not None:
                heapq.heappush(self._to_far, (arrival, next(self._taken), flow, data))

    def _take_far(self, flow: _Flow) -> None:
        for _ in range(_BATCH):
            try:
                data = flow.far.recv(65535)
            except OSError:
                return
            now = time.monotonic()
            flow.used = now
            arrival = self.down.offer(now, len(data))
            if arrival is not None:
                heapq.heappush(self._to_near, (arrival, next(self._taken), flow, data))

    def _open(self, sender: tuple[str, int], now: float) -> _Flow:
        self._drop([flow for flow in self._flows.values() if now - flow.used > _FLOW_IDLE_S])
        far = self._far.socket()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        far.connect(self._target)
        flow = _Flow(sender, far, now)
        self._flows[sender] = flow
        self._by_socket[far.fileno()] = flow
        return flow

    def _drop(self, flows: list[_Flow]) -> None:
        for flow in flows:
            del self._flows[flow.sender]
            del self._by_socket[flow.far.fileno()]
            flow.far.close()
