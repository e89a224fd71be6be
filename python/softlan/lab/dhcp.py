"""A small DHCP server for the lab's LAN and a DHCP client for its players, enough for discover-offer-request-ack.

Sources: RFC 2131 (protocol), RFC 2132 (options). The client speaks raw frames, as real ones do: its interface has no
address yet, and the machine's other interface must not lend it one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from .frames import FramePort
from .host import Station
from .packets import BROADCAST, parse_udp, udp_frame

SERVER_PORT: Final = 67
CLIENT_PORT: Final = 68
_COOKIE: Final = b"\x63\x82\x53\x63"
DISCOVER: Final = 1
OFFER: Final = 2
REQUEST: Final = 3
ACK: Final = 5
_SUBNET_MASK: Final = 1
_REQUESTED_ADDRESS: Final = 50
_LEASE_SECONDS: Final = 51
_MESSAGE_TYPE: Final = 53
_SERVER_ID: Final = 54


@dataclass(frozen=True)
class Message:
    """One BOOTP message with its DHCP options, as far as the lab needs it."""

    reply: bool
    transaction: int
    hardware: bytes
    """The client's MAC, 6 bytes."""
    your_address: str = "0.0.0.0"  # noqa: S104 - "none yet", RFC 2131 table 1
    options: dict[int, bytes] = field(default_factory=dict)

    @property
    def kind(self) -> int:
        """DISCOVER, OFFER, ...; 0 when it has no message type."""
        return (self.options.get(_MESSAGE_TYPE) or b"\0")[0]

    def encode(self) -> bytes:
        """Give the UDP payload: 236 bytes of fixed fields, the cookie, the options; the broadcast flag is set."""
        fixed = struct.pack(
            "!BBBBIHH4s4s4s4s16s192s",
            *(2 if self.reply else 1, 1, 6, 0, self.transaction, 0, 0x8000),
            *(bytes(4), socket.inet_aton(self.your_address), bytes(4), bytes(4)),
            *(self.hardware.ljust(16, b"\0"), b""),
        )
        options = b"".join(bytes((code, len(value))) + value for code, value in self.options.items())
        return fixed + _COOKIE + options + b"\xff"

    @classmethod
    def decode(cls, data: bytes) -> Message | None:
        """Give the message in a UDP payload; None when it is none."""
        if len(data) < 240 or data[236:240] != _COOKIE:
            return None
        options: dict[int, bytes] = {}
        at = 240
        while at < len(data) and data[at] != 0xFF:
            if data[at] == 0:
                at += 1
                continue
            if at + 1 >= len(data):
                break
            options[data[at]] = data[at + 2 : at + 2 + data[at + 1]]
            at += 2 + data[at + 1]
        transaction = struct.unpack_from("!I", data, 4)[0]
        return cls(data[0] == 2, transaction, data[28:34], socket.inet_ntoa(data[16:20]), options)


@dataclass(frozen=True)
class Lease:
    """What a server gave."""

    address: str
    prefix: int
    server: str
    seconds: float
    """How long it took to get it."""

    @property
    def cidr(self) -> str:
        """Give "192.168.88.100/24"."""
        return f"{self.address}/{self.prefix}"


class DhcpServer:
    """Gives out addresses of its station's /24, from `first` on, one for each MAC and always the same."""

    def __init__(self, station: Station, *, first: int = 100, last: int = 199) -> None:
        self.station = station
        self.leases: dict[bytes, str] = {}
        self._range = range(first, last + 1)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: object, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def start(self) -> None:
        """Start serving on the running asyncio loop. Raises `OSError` when the port is taken."""
        made = self.station.host.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self.station.interface.encode() + b"\0")
        made.bind(("", SERVER_PORT))
        self._task = asyncio.create_task(self._serve(made))

    async def stop(self) -> None:
        """Stop serving."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _serve(self, made: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with made:
            while True:
                data, _ = await loop.sock_recvfrom(made, 2048)
                asked = Message.decode(data)
                answer = None if asked is None or asked.reply else self._answer(asked)
                if answer is not None:
                    with contextlib.suppress(OSError):  # an interface that is down: the client asks again
                        await loop.sock_sendto(made, answer.encode(), ("255.255.255.255", CLIENT_PORT))

    def _answer(self, asked: Message) -> Message | None:
        kinds = {DISCOVER: OFFER, REQUEST: ACK}
        mine = socket.inet_aton(self.station.address)
        if asked.kind not in kinds or asked.options.get(_SERVER_ID, mine) != mine:
            return None
        address = self.leases.get(asked.hardware)
        if address is None:
            taken = set(self.leases.values())
            network = self.station.address.rsplit(".", 1)[0]
            free = (f"{network}.{host}" for host in self._range if f"{network}.{host}" not in taken)
            address = next(free, None)
            if address is None:
                return None
            self.leases[asked.hardware] = address
        options = {
            _MESSAGE_TYPE: bytes([kinds[asked.kind]]),
            _SERVER_ID: mine,
            _LEASE_SECONDS: struct.pack("!I", 3600),
            _SUBNET_MASK: b"\xff\xff\xff\0",
        }
        return Message(True, asked.transaction, asked.hardware, address, options)


async def lease(station: Station, within: float = 8.0) -> Lease | None:
    """Asks for an address on the station's interface, without setting it; None when no server answered in time.

    It asks anew every second, as the network may still be coming up.
    """
    start = time.monotonic()
    transaction = int.from_bytes(os.urandom(4), "big")
    with FramePort(station, promiscuous=False) as port:

        def send(options: dict[int, bytes]) -> None:
            message = Message(False, transaction, station.mac, options=options)
            source, destination = ("0.0.0.0", CLIENT_PORT), ("255.255.255.255", SERVER_PORT)  # noqa: S104
            port.send(udp_frame((BROADCAST, station.mac), source, destination, message.encode()))

        async def answer(kind: int, seconds: float) -> Message | None:
            async for frame in port.frames(seconds):
                packet = parse_udp(frame)
                if packet is None or packet.source[1] != SERVER_PORT or packet.destination[1] != CLIENT_PORT:
                    continue
                message = Message.decode(packet.payload)
                if message and message.reply and message.transaction == transaction and message.kind == kind:
                    return message
            return None

        while (left := start + within - time.monotonic()) > 0:
            send({_MESSAGE_TYPE: bytes([DISCOVER])})
            offer = await answer(OFFER, min(left, 1.0))
            if offer is None or _SERVER_ID not in offer.options:
                continue
            server = offer.options[_SERVER_ID]
            wanted = socket.inet_aton(offer.your_address)
            send({_MESSAGE_TYPE: bytes([REQUEST]), _REQUESTED_ADDRESS: wanted, _SERVER_ID: server})
            ack = await answer(ACK, 1.0)
            if ack is not None:
                mask = int.from_bytes(ack.options.get(_SUBNET_MASK, b"\xff\xff\xff\0"), "big")
                prefix = mask.bit_count()
                return Lease(ack.your_address, prefix, socket.inet_ntoa(server), time.monotonic() - start)
    return None


def rogue_offer(station: Station) -> bytes:
    """Give the frame of a DHCP server where none should be: an offer to everyone, from `station`'s own MAC."""
    options = {_MESSAGE_TYPE: bytes([OFFER]), _SERVER_ID: socket.inet_aton("192.168.88.66")}
    message = Message(True, 0x0BAD_0BAD, b"\x02\0\0\0\0\x66", "192.168.88.166", options)
    source, destination = ("192.168.88.66", SERVER_PORT), ("255.255.255.255", CLIENT_PORT)
    return udp_frame((BROADCAST, station.mac), source, destination, message.encode())
