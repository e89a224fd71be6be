"""Notices early that nothing can come of joining: nobody listens at the relay's port, or there is no way there.

A session's own socket ignores what ICMP says, for whoever sees a connection's ports could end it with such a word. Before the first join
there is nothing to end: an attacker on the path can make a handshake fail anyhow (RFC 9000 section 21.1.1.3). So this asks beside it,
then alone, with knocks from sockets of its own; a session that was in its room once goes on looking for its relay whatever anybody
says. Each knock has a port of its own, and the kernel tells it only what quotes its packet (RFC 8085 section 5.2). The relay has time to
answer all the same, and one answer ends the doubt for good.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from softlan.config import parse_host_port
from softlan.knock import ID_SIZE, LEAST_PAYLOAD, Outcome, knock_packet, known_outcome

__all__ = ["Barred", "Doubt", "barred"]

_FIRST_KNOCK_S = 0.25
_PAUSE_S = 0.5
"""Before the first knock, and before each other: a relay that answers at once is never knocked at. Few, because machines limit the ICMP
they send (Linux: six at once, then one a second to an address), and the session's own first packets use some of it up."""

_PATIENCE_S = 1.5
"""From the first knock that failed: a relay that is just being started, and a route that is just being set, get this long."""

_TELLING = (Outcome.REFUSED, Outcome.FORBIDDEN, Outcome.UNREACHABLE)
"""Of several addresses' failures the first of these is told."""


@dataclass(frozen=True, slots=True)
class Barred:
    """Why an address (`IP:PORT`) cannot be reached: refused, forbidden or unreachable, in the system's words too."""

    address: str
    outcome: Outcome
    why: str


@dataclass(slots=True)
class Doubt:
    """What the knocks at one address came to so far. Pure: time, in seconds, is an argument."""

    address: str
    answered: bool = False
    since: float | None = None
    last: Barred | None = None

    def failed(self, error: OSError, now: float) -> None:
        """Take note of an error of a knock's socket."""
        outcome = known_outcome(error)
        if (
            outcome is None
        ):  # about this packet's length for instance, or a system's own oddities: nothing about the way
            return
        self.since = now if self.since is None else self.since
        self.last = Barred(self.address, outcome, error.strerror or str(error))

    def verdict(self, now: float) -> Barred | None:
        """Say why the address cannot be reached, once that is beyond doubt."""
        if self.answered or self.since is None or now - self.since < _PATIENCE_S:
            return None
        return self.last


async def barred(addresses: Sequence[str]) -> Barred:
    """Return once every one of `addresses` is beyond doubt out of reach; wait for good otherwise. Meant to be cancelled."""
    async with asyncio.TaskGroup() as group:
        watches = [group.create_task(_watch(address)) for address in addresses]
    return min((watch.result() for watch in watches), key=lambda one: _TELLING.index(one.outcome))


async def _watch(address: str) -> Barred:
    doubt = Doubt(address)
    with contextlib.ExitStack() as open_knocks:
        for pause_s in itertools.chain((_FIRST_KNOCK_S,), itertools.repeat(_PAUSE_S)):
            await asyncio.sleep(pause_s)
            if (verdict := doubt.verdict(time.monotonic())) is not None:
                return verdict
            if not doubt.answered:
                await _knock(doubt, open_knocks)
    raise AssertionError("there is always another pause")


async def _knock(doubt: Doubt, open_knocks: contextlib.ExitStack) -> None:
    """Knock once; what comes of it is written down until `open_knocks` closes."""
    where = parse_host_port(doubt.address)
    loop = asyncio.get_running_loop()
    try:
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Listener(doubt), remote_addr=(where.host, where.port)
        )
    except OSError as error:
        doubt.failed(error, time.monotonic())
        return
    except (
        NotImplementedError
    ):  # an event loop without datagrams: then nothing is known, and the time limit holds
        return
    open_knocks.callback(transport.close)
    transport.sendto(knock_packet(os.urandom(ID_SIZE), LEAST_PAYLOAD))


class _Listener(asyncio.DatagramProtocol):
    """Writes down what becomes of one knock."""

    def __init__(self, doubt: Doubt) -> None:
        self._doubt = doubt

    def datagram_received(self, _data: bytes, _sender: Any) -> None:
        self._doubt.answered = True

    def error_received(self, error: Exception) -> None:
        if isinstance(error, OSError):
            self._doubt.failed(error, time.monotonic())
