"""Knocks at a relay's UDP port and measures the way there, without a connection, keys or rights.

Each knock that is answered shows reach, a round trip, loss, and with the Don't Fragment bit the path's MTU; `softlan.knock` says what a
knock is. Everything here blocks; run it in a thread.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from softlan.knock import ID_SIZE, LEAST_PAYLOAD, Outcome, error_codes, knock_packet, outcome_of, read_answer

__all__ = [
    "FULL_PAYLOAD",
    "Line",
    "PathMtu",
    "Reach",
    "measure_line",
    "measure_mtu",
    "next_sizes",
    "reach",
]

FULL_PAYLOAD = 1472
"""What a path of 1500 bytes carries over IPv4 (RFC 791, RFC 768), and the most softlan's own QUIC tries."""

_KNOCKS_S = (0.0, 0.25, 0.6, 1.1, 1.7)
"""When `reach` knocks."""

_LADDER = (1472, 1452, 1444, 1432, 1412, 1392, 1372, 1352, 1332, 1292, 1272, 1252, 1232, 1200)
"""UDP payloads tried first: those of paths people have (Ethernet, IPv6, PPPoE, WireGuard, tunnels, IPv6's least)."""

_MTU_TRIES = 4
_MTU_WAIT_S = 0.25
_LINGER_S = 1.0
"""How long `measure_line` waits for what is under way in the end."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What one address did. `rtt_s` and `versions` when it answered, `why` in the system's words when it did not."""

    address: str
    outcome: Outcome
    rtt_s: float | None = None
    versions: tuple[int, ...] = ()
    why: str = ""
    waited_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Line:
    """Round trips of knocks in the order they were sent, in seconds; None for those that did not come back."""

    seconds: float
    trips: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class PathMtu:
    """The largest UDP payload that arrived whole, in bytes; None: not even QUIC's least did, with Don't Fragment set.

    `headers` are the bytes of IP and UDP header; `here` says that it is this machine's own interface that takes no more.
    """

    payload: int | None
    headers: int
    here: bool = False


def reach(address: tuple[str, int], *, within_s: float = 2.5) -> Reach:
    """Knock at an address (IP, port) until something happens, for `within_s` at most."""
    told = _show(address)
    start = time.perf_counter()
    sent: dict[bytes, float] = {}
    left = list(_KNOCKS_S)
    try:
        with _open(address) as knocker:
            _allow_fragments(knocker)
            while (now := time.perf_counter() - start) < within_s:
                if left and now >= left[0]:
                    left.pop(0)
                    own_id = os.urandom(ID_SIZE)
                    sent[own_id] = now
                    knocker.send(knock_packet(own_id, LEAST_PAYLOAD))
                packet = _receive(knocker, min(left[0] - now if left else within_s - now, within_s - now))
                if packet is None:
                    continue
                answer = read_answer(packet)
                if answer is None or answer[0] not in sent:
                    return Reach(told, Outcome.NOT_QUIC)
                trip = time.perf_counter() - start - sent[answer[0]]
                return Reach(told, Outcome.ANSWERED, trip, answer[1])
    except OSError as error:
        return Reach(told, outcome_of(error), why=error.strerror or str(error))
    return Reach(told, Outcome.SILENT, waited_s=within_s)


def measure_line(address: tuple[str, int], seconds: float, *, interval_s: float = 0.025) -> Line:
    """Knock every `interval_s` for so many seconds and see what comes back. Raises OSError: it cannot even be sent."""
    count = max(1, round(seconds / interval_s))
    sent: dict[bytes, tuple[int, float]] = {}
    trips: list[float | None] = [None] * count
    with _open(address) as knocker:
        _allow_fragments(knocker)
        start = time.perf_counter()
        ended = start + count * interval_s + _LINGER_S
        number = missing = 0
        while (now := time.perf_counter()) < ended:
            due = start + number * interval_s
            if number < count and now >= due:
                own_id = os.urandom(ID_SIZE)
                sent[own_id] = number, time.perf_counter()
                number, missing = number + 1, missing + 1
                knocker.send(knock_packet(own_id, LEAST_PAYLOAD))
                continue
            if number == count and not missing:
                break
            packet = _receive(knocker, max(0.0, (due if number < count else ended) - now))
            answer = None if packet is None else read_answer(packet)
            if answer is not None and (found := sent.pop(answer[0], None)) is not None:
                trips[found[0]] = time.perf_counter() - found[1]
                missing -= 1
    return Line(count * interval_s, tuple(trips))


def measure_mtu(address: tuple[str, int], *, rtt_s: float) -> PathMtu | None:
    """Find the largest payload that arrives with Don't Fragment set; None where this system cannot set it."""
    headers = 48 if ":" in address[0] else 28  # RFC 8200, RFC 791; RFC 768
    with _open(address) as knocker:
        if not _forbid_fragments(knocker):
            return None
        too_long: set[int] = set()

        def arrives(sizes: Iterable[int]) -> set[int]:
            wanted = [size for size in sizes if not any(size >= refused for refused in too_long)]
            return _which_arrive(knocker, wanted, too_long, max(_MTU_WAIT_S, 2 * rtt_s))

        lower, upper = 0, FULL_PAYLOAD + 1
        sizes: Sequence[int] = _LADDER
        while sizes:
            found = arrives(sizes)
            lower = max(found, default=lower)
            if not lower:
                return PathMtu(None, headers, bool(too_long))
            upper = min((size for size in (*sizes, upper) if size > lower), default=upper)
            sizes = next_sizes(lower, upper)
    return PathMtu(lower, headers, upper in too_long)


def next_sizes(lower: int, upper: int) -> list[int]:
    """Choose up to eight sizes strictly between one that arrives and one that does not; none when nothing is between. Pure."""
    between = upper - lower - 1
    steps = min(8, between)
    return sorted({lower + 1 + between * step // steps for step in range(steps)})


def _which_arrive(
    knocker: socket.socket, sizes: Sequence[int], too_long: set[int], wait_s: float
) -> set[int]:
    arrived: set[int] = set()
    sent: dict[bytes, int] = {}
    for _ in range(_MTU_TRIES):
        for size in sizes:
            if size in arrived or size in too_long:
                continue
            own_id = os.urandom(ID_SIZE)
            sent[own_id] = size
            try:
                knocker.send(knock_packet(own_id, size))
            except OSError as error:
                if error.errno not in _TOO_LONG:
                    raise
                too_long.add(size)
        until = time.perf_counter() + wait_s
        while (left := until - time.perf_counter()) > 0 and not set(sizes) <= arrived | too_long:
            try:
                packet = _receive(knocker, left)
            except OSError as error:
                # A router's word that a packet was too long, about one of those sent before.
                if error.errno in _TOO_LONG:
                    continue
                raise
            answer = None if packet is None else read_answer(packet)
            if answer is not None and answer[0] in sent:
                arrived.add(sent[answer[0]])
        if set(sizes) <= arrived | too_long:
            break
    return arrived


def _open(address: tuple[str, int]) -> socket.socket:
    """Give a connected UDP socket, to which the system tells ICMP's errors."""
    knocker = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        knocker.connect(address)
    except BaseException:
        knocker.close()
        raise
    return knocker


def _receive(knocker: socket.socket, within_s: float) -> bytes | None:
    readable, _, _ = select.select([knocker], [], [], max(0.0, within_s))
    return knocker.recv(2048) if readable else None


def _show(address: tuple[str, int]) -> str:
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


# linux/in.h, linux/in6.h: level, option, value. PROBE sets Don't Fragment and forgets what was learned of the path.
_DONT, _PROBE = 0, 3
_LINUX = {socket.AF_INET: (socket.IPPROTO_IP, 10), socket.AF_INET6: (41, 23)}
# ws2ipdef.h: IP_DONTFRAGMENT, IPV6_DONTFRAG.
_WINDOWS = {socket.AF_INET: (0, 14), socket.AF_INET6: (41, 14)}


def _allow_fragments(knocker: socket.socket) -> None:
    """Reaching the relay is one question, the path's MTU another."""
    if sys.platform == "linux":
        level, option = _LINUX[knocker.family]
        knocker.setsockopt(level, option, _DONT)


def _forbid_fragments(knocker: socket.socket) -> bool:
    level, option = (_WINDOWS if sys.platform == "win32" else _LINUX)[knocker.family]
    if sys.platform not in ("linux", "win32"):
        return False
    try:
        knocker.setsockopt(level, option, 1 if sys.platform == "win32" else _PROBE)
    except OSError:
        return False
    return True


_TOO_LONG = error_codes("MSGSIZE")
