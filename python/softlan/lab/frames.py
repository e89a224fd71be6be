"""Raw Ethernet frames on a station's interface: sent as they are, received with their VLAN tags put back.

The kernel takes the outermost tag off before a packet socket sees a frame and tells it beside the frame
(PACKET_AUXDATA, linux/if_packet.h); a frame listener has to know both, or tagged frames look untagged.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import Final, Self

from .host import Station

ETH_P_ALL: Final = 0x0003
SOL_PACKET: Final = 263
PACKET_ADD_MEMBERSHIP: Final = 1
PACKET_AUXDATA: Final = 8
PACKET_IGNORE_OUTGOING: Final = 23
PACKET_MR_PROMISC: Final = 1
TP_STATUS_VLAN_VALID: Final = 1 << 4
TP_STATUS_VLAN_TPID_VALID: Final = 1 << 6
_AUXDATA: Final = struct.Struct(
    "=IIIHHHH"
)  # struct tpacket_auxdata: status, len, snaplen, mac, net, tci, tpid
_LARGEST: Final = 65536 + 64


class FramePort:
    """A packet socket on a station's interface. Frames that wait unread are dropped by the kernel beyond 4 MiB."""

    def __init__(self, station: Station, *, promiscuous: bool = True) -> None:
        """Open it. Raises `OSError` (ENODEV, ENETDOWN, EPERM)."""
        self.station = station

        def make() -> socket.socket:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            index = socket.if_nametoindex(station.interface)
            made.setblocking(False)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            made.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
            made.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
            if promiscuous:
                request = struct.pack("=iHH8s", index, PACKET_MR_PROMISC, 0, b"")
                made.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, request)
            made.bind((station.interface, ETH_P_ALL))
            return made

        self._socket = station.host.call(make)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; the kernel ends its promiscuous membership."""
        self._socket.close()

    def send(self, frame: bytes) -> None:
        """Send one frame as it is. Raises `OSError` (EMSGSIZE above MTU + 14, EINVAL below 14 bytes)."""
        self._socket.send(frame)

    def receive_now(self) -> bytes | None:
        """Give the next frame that waits, or None."""
        try:
            data, extras, _, _ = self._socket.recvmsg(_LARGEST, socket.CMSG_SPACE(_AUXDATA.size))
        except BlockingIOError:
            return None
        for level, kind, value in extras:
            if level == SOL_PACKET and kind == PACKET_AUXDATA and len(value) >= _AUXDATA.size:
                status, _, _, _, _, tci, tpid = _AUXDATA.unpack_from(value)
                if status & TP_STATUS_VLAN_VALID:
                    outer = tpid if status & TP_STATUS_VLAN_TPID_VALID else 0x8100
                    return data[:12] + struct.pack("!HH", outer, tci) + data[12:]
        return data

    def discard(self) -> int:
        """Throws away what waits and says how many frames that were."""
        count = 0
        while self.receive_now() is not None:
            count += 1
        return count

    async def receive(self, within: float) -> bytes | None:
        """Give the next frame, or None when none came within `within` seconds."""
        deadline = time.monotonic() + within
        loop = asyncio.get_running_loop()
        while (frame := self.receive_now()) is None:
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            readable = loop.create_future()
            loop.add_reader(self._socket, _wake, readable)
            try:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await readable
            finally:
                loop.remove_reader(self._socket)
        return frame

    async def frames(self, seconds: float) -> AsyncIterator[bytes]:
        """Give the frames that come within the next `seconds`."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            frame = await self.receive(left)
            if frame is not None:
                yield frame

    async def expect(self, wanted: Callable[[bytes], bool], within: float = 5.0) -> bytes | None:
        """Give the first frame for which `wanted` is true, or None when none came within `within` seconds."""
        async for frame in self.frames(within):
            if wanted(frame):
                return frame
        return None

    async def seen(self, frames: Iterable[bytes], within: float = 2.0) -> list[bytes]:
        """Which of `frames` arrive, byte for byte, within `within` seconds; ends early when all have."""
        missing = list(frames)
        found: list[bytes] = []
        async for frame in self.frames(within):
            if frame in missing:
                missing.remove(frame)
                found.append(frame)
                if not missing:
                    break
        return found


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
