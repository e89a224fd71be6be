"""The machine behind the stand-in TAP driver: a real Linux kernel in place of Windows' own IP stack.

The stand-in driver's wire is UDP on the loopback of the machine that runs Wine. This joins it to a TAP adapter of another network
namespace, so that what a player does there goes through softlan's Windows client.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import struct
from types import TracebackType
from typing import Self

from softlan.lab import Player
from softlan.lab.host import Host, Station

FRAME = 4096
_TUNSETIFF = 0x400454CA  # linux/if_tun.h
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000


class Desk:
    """A host whose interface `lan0` is the other end of adapter 0's wire; an asynchronous context manager."""

    def __init__(self, windows: Host, mac: bytes, *, standin_port: int) -> None:
        self.windows = windows
        self.host = Host("desk")
        self.player = Player(Station(self.host, "lan0", mac))
        self.port = standin_port
        self._wire = windows.socket()
        self._wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._wire.bind(("127.0.0.1", standin_port + 2))
        self._commands = windows.socket()
        self._tap = self.host.call(_make_tap)
        self.host.ip(f"link set lan0 address {mac.hex(':')}", "link set lan0 up")

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        loop.add_reader(self._wire, self._from_wire)
        loop.add_reader(self._tap, self._to_wire)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._wire)
        loop.remove_reader(self._tap)
        os.close(self._tap)
        self._wire.close()
        self._commands.close()
        self.host.close()

    async def command(self, words: str, within: float = 5.0) -> str:
        """Tell the stand-in driver something (tapdriver.c has the list); gives its answer."""
        loop = asyncio.get_running_loop()
        await loop.sock_sendto(self._commands, words.encode(), ("127.0.0.1", self.port))
        answer, _ = await asyncio.wait_for(loop.sock_recvfrom(self._commands, 512), within)
        return answer.decode()

    async def counts(self) -> dict[str, int]:
        """What the stand-in driver has counted of adapter 0."""
        return {
            name: int(value)
            for name, _, value in (word.partition("=") for word in (await self.command("count 0")).split())
        }

    def _from_wire(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
            while True:
                os.write(self._tap, self._wire.recv(FRAME))

    def _to_wire(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
            while True:
                self._wire.sendto(os.read(self._tap, FRAME), ("127.0.0.1", self.port + 1))


def _make_tap() -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", b"lan0", _IFF_TAP | _IFF_NO_PI))
    return fd
