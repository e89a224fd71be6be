"""What players and games do, in plain Python: ping, broadcast discovery, a TCP transfer.

A fresh machine may have none of the usual tools; these need nothing but sockets on the lab's machines. The end-to-end
tests use the real tools beside them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from .host import Station
from .packets import echo

IP_MTU_DISCOVER: Final = 10  # linux/in.h
IP_PMTUDISC_PROBE: Final = 3
"""Don't fragment, and mind the interface's MTU only."""
_GAME: Final = b"softlan-lab who is there?"
_ident = itertools.count(os.getpid())


@dataclass(frozen=True)
class PingResult:
    """Echo requests sent, replies that came back, and the round trips of those in seconds."""

    sent: int
    round_trips: tuple[float, ...]

    @property
    def received(self) -> int:
        """How many were answered."""
        return len(self.round_trips)

    @property
    def good(self) -> bool:
        """Whether every one was answered."""
        return self.received == self.sent

    def __bool__(self) -> bool:
        """Raise `TypeError`: what is neither all nor nothing is not true or false, and `assert await ann.ping(ben)` held always."""
        raise TypeError("a ping is not true or false; ask .good (all answered) or .received (how many)")

    def __str__(self) -> str:
        if not self.round_trips:
            return f"0/{self.sent}"
        return f"{self.received}/{self.sent}, {median(self.round_trips) * 1000:.2f} ms"


async def ping(
    source: Station,
    address: str,
    count: int = 5,
    *,
    size: int = 56,
    interval: float = 0.05,
    within: float = 2.0,
    whole: bool = False,
) -> PingResult:
    """Send `count` echo requests with `size` bytes of data each; `whole` forbids to fragment them.

    `within` seconds is how long it waits for answers after the last request. Raises `OSError` EMSGSIZE for a `whole`
    packet above the interface's MTU.
    """
    loop = asyncio.get_running_loop()
    ident = next(_ident) & 0xFFFF
    data = bytes(index & 0xFF for index in range(size))
    sent: dict[int, float] = {}
    trips: dict[int, float] = {}
    with source.host.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as icmp:
        icmp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        if whole:
            icmp.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)

        async def collect() -> None:
            while len(trips) < count:
                packet = await loop.sock_recv(icmp, 65535)
                now = time.monotonic()
                body = packet[(packet[0] & 0x0F) * 4 :]
                if len(body) < 8 or body[0] != 0:
                    continue
                their_ident, sequence = struct.unpack_from("!HH", body, 4)
                if their_ident == ident and sequence in sent and body[8:] == data:
                    trips.setdefault(sequence, now - sent[sequence])

        collector = asyncio.create_task(collect())
        try:
            for sequence in range(count):
                sent[sequence] = time.monotonic()
                # A missing ARP answer shows as EHOSTUNREACH of an earlier packet: a lost ping, no more.
                with contextlib.suppress(ConnectionError):
                    try:
                        await loop.sock_sendto(icmp, echo(8, ident, sequence, data), (address, 0))
                    except OSError as failure:
                        if failure.errno not in _UNREACHED:
                            raise
                await asyncio.sleep(interval)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within):
                    await collector
        finally:
            collector.cancel()
            await asyncio.gather(collector, return_exceptions=True)
    return PingResult(count, tuple(trips[sequence] for sequence in sorted(trips)))


_UNREACHED: Final = frozenset({113, 101, 100, 105})
"""EHOSTUNREACH, ENETUNREACH, ENETDOWN, ENOBUFS."""


async def first_reply(source: Station, address: str, within: float) -> float | None:
    """Seconds until a ping is answered, trying every 50 ms; None when none was within `within` seconds.

    The way there may take longer than the pause between two tries.
    """
    start = time.monotonic()
    tries: set[asyncio.Task[PingResult]] = set()
    try:
        while time.monotonic() - start < within:
            tries.add(asyncio.create_task(ping(source, address, 1, interval=0, within=1.0)))
            ended, tries = await asyncio.wait(tries, timeout=0.05, return_when=asyncio.FIRST_COMPLETED)
            if any(one.result().received for one in ended):
                return time.monotonic() - start
            if ended:
                await asyncio.sleep(0.05)
        return None
    finally:
        for one in tries:
            one.cancel()
        await asyncio.gather(*tries, return_exceptions=True)


async def discover(
    seeker: Station, others: Sequence[Station], *, port: int = 27015, within: float = 2.0
) -> dict[str, float]:
    """Look for games as a LAN browser does: `seeker` asks at 255.255.255.255, whoever of `others` hears it answers.

    Gives the seconds each answer took, by the station's name; asks again twice within `within` seconds.
    """
    loop = asyncio.get_running_loop()
    names = {station.address: station.name for station in others}
    found: dict[str, float] = {}
    start = time.monotonic()
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(_game_socket(station, port)) for station in others]
        browser = stack.enter_context(_game_socket(seeker, 0))

        async def serve(server: socket.socket) -> None:
            while True:
                data, source = await loop.sock_recvfrom(server, 2048)
                if data == _GAME:
                    await loop.sock_sendto(server, b"here: " + data, source)

        async def browse() -> None:
            while len(found) < len(names):
                _, (address, _) = await loop.sock_recvfrom(browser, 2048)
                if address in names:
                    found.setdefault(names[address], time.monotonic() - start)

        tasks = [asyncio.create_task(serve(server)) for server in servers]
        browsing = asyncio.create_task(browse())
        try:
            for _ in range(3):
                await loop.sock_sendto(browser, _GAME, ("255.255.255.255", port))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(within / 3):
                        await asyncio.shield(browsing)
                    break
        finally:
            for task in [*tasks, browsing]:
                task.cancel()
            await asyncio.gather(*tasks, browsing, return_exceptions=True)
    return found


def _game_socket(station: Station, port: int) -> socket.socket:
    made = station.host.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    # 255.255.255.255 leaves by one interface: a player's machine has two, and a game asks for the LAN's.
    made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, station.interface.encode() + b"\0")
    made.bind(("", port))
    return made


@dataclass(frozen=True)
class TransferResult:
    """Bytes that arrived whole and in order, and the seconds they took."""

    bytes: int
    seconds: float

    @property
    def megabits(self) -> float:
        """Mbit/s of TCP payload."""
        return self.bytes * 8 / self.seconds / 1e6 if self.seconds else 0.0

    def __str__(self) -> str:
        return f"{self.bytes / 1e6:.1f} MB at {self.megabits:.0f} Mbit/s"


async def transfer(
    source: Station, sink: Station, *, seconds: float = 1.5, within: float = 15.0
) -> TransferResult:
    """Send over TCP from `source` to `sink` for about `seconds` and counts what arrives until the end of stream.

    Raises `TimeoutError` when it has not ended after `within` seconds, `OSError` when the connection fails.
    """
    loop = asyncio.get_running_loop()
    block = bytes(range(256)) * 256
    listener = sink.host.socket(socket.AF_INET, socket.SOCK_STREAM)
    sender = source.host.socket(socket.AF_INET, socket.SOCK_STREAM)
    with listener, sender:
        listener.bind((sink.address, 0))
        listener.listen(1)

        async def receive() -> TransferResult:
            accepted, _ = await loop.sock_accept(listener)
            total, start = 0, time.monotonic()
            buffer = bytearray(1 << 18)
            with accepted:
                while (count := await loop.sock_recv_into(accepted, buffer)) > 0:
                    total += count
                await loop.sock_sendall(accepted, struct.pack("!Q", total))
            return TransferResult(total, time.monotonic() - start)

        async with asyncio.timeout(within):
            receiving = asyncio.create_task(receive())
            try:
                await loop.sock_connect(sender, listener.getsockname())
                deadline, total = time.monotonic() + seconds, 0
                while time.monotonic() < deadline:
                    await loop.sock_sendall(sender, block)
                    total += len(block)
                sender.shutdown(socket.SHUT_WR)
                told = struct.unpack("!Q", await loop.sock_recv(sender, 8))[0]
                result = await receiving
            finally:
                receiving.cancel()
                await asyncio.gather(receiving, return_exceptions=True)
    if not total == told == result.bytes:
        raise OSError(f"{total} bytes were sent, {result.bytes} arrived, {told} were confirmed")
    return result
