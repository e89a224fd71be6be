"""Ways for a ping's frames: a visitor's session, or the adapter of the client that runs here."""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from softlan._core import Mac
from softlan.client.library import Peer, Session
from softlan.client.session import SessionConfig
from softlan.control.messages import Role
from softlan.errors import ConfigError, PrivilegeError, SoftlanError
from softlan.observe.local import read_all

__all__ = ["OwnAdapter", "Visitor", "Way"]

_SYSFS = Path("/sys/class/net")
_ANY_PROTOCOL = 0x0003
"""ETH_P_ALL (linux/if_ether.h)."""

_LARGEST = 9216
_WITH_INVITE = 'with the invite a ping needs neither: softlan ping PEER "softlan://..."'


class Way(Protocol):
    """What carries a ping's frames, from `mac`, into a room."""

    mac: Mac
    room: str
    relay: str

    @property
    def peers(self) -> tuple[Peer, ...]:
        """The others in the room."""

    async def send(self, frame: bytes) -> None:
        """Send a frame."""

    def frames(self) -> AsyncIterator[bytes]:
        """Give frames as they come."""


class Visitor:
    """A session of its own."""

    def __init__(self, session: Session, config: SessionConfig) -> None:
        self.mac = session.mac
        self.room = config.room
        self.relay = str(config.relay)
        self._session = session

    @property
    def peers(self) -> tuple[Peer, ...]:
        """The others in the room."""
        return self._session.peers

    async def send(self, frame: bytes) -> None:
        """Send a frame."""
        await self._session.send(frame)

    def frames(self) -> AsyncIterator[bytes]:
        """Give frames as they come."""
        return self._session.frames()


class OwnAdapter:
    """The TAP of a client that runs here: what is sent there takes the player's own way, in the player's name."""

    def __init__(self, status: dict[str, Any]) -> None:
        """Read what the client's status says.

        Raises:
            SoftlanError, ConfigError: it is in no room, or has no TAP.

        """
        self._interface = str(status.get("interface"))
        self.room = str(status.get("room"))
        self.relay = str(status.get("relay"))
        if not status.get("connected"):
            raise SoftlanError(
                f"the client that runs here is not connected to {self.relay}", hint="softlan doctor says why"
            )
        if not (_SYSFS / self._interface / "tun_flags").exists():
            raise ConfigError(
                f"the client that runs here uses {self._interface}, which is no adapter of its own",
                hint=_WITH_INVITE,
            )
        self.mac = Mac(status["mac"])
        self._peers = tuple(
            Peer(told["peer_id"], Role(told["role"]), None if told["mac"] is None else Mac(told["mac"]))
            for told in status.get("peers", [])
        )
        self._socket: socket.socket | None = None

    @classmethod
    def find(cls) -> Self:
        """Find the one client that runs here.

        Raises:
            ConfigError: there is none that this user sees, or there are several.

        """
        clients = [part for part in read_all() if part.part == "client"]
        if not clients or sys.platform != "linux":
            raise ConfigError(
                "no client runs here that this user sees"
                if sys.platform == "linux"
                else "this takes an invite",
                hint='paste the invite, softlan ping PEER "softlan://...", or run this as the client\'s user (sudo)',
            )
        if len(clients) > 1:
            raise ConfigError("several clients run here", hint="say which room: paste the invite behind PEER")
        return cls(clients[0].status)

    @property
    def peers(self) -> tuple[Peer, ...]:
        """The others in the room, as the client knew them when it was asked."""
        return self._peers

    async def __aenter__(self) -> Self:
        """Open the adapter. Raises PrivilegeError, SoftlanError."""
        if sys.platform != "linux":
            raise AssertionError("find() refuses")
        try:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        except PermissionError as error:
            raise PrivilegeError(
                "sending on the client's adapter takes root or CAP_NET_RAW", hint=_WITH_INVITE
            ) from error
        try:
            made.setblocking(False)
            made.bind((self._interface, _ANY_PROTOCOL))
        except OSError as error:
            made.close()
            raise SoftlanError(f"cannot use the adapter {self._interface}: {error.strerror}") from error
        self._socket = made
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        if self._socket is not None:
            self._socket.close()

    async def send(self, frame: bytes) -> None:
        """Send a frame; one the adapter has no place for is lost, as on any line. Raises SoftlanError: the adapter is gone, or down."""
        assert self._socket is not None
        try:
            self._socket.send(frame)
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise self._failure(error) from error

    async def frames(self) -> AsyncIterator[bytes]:
        """Give frames as they come; what this machine sends is among them. Raises SoftlanError: the adapter is gone, or down."""
        assert self._socket is not None
        loop = asyncio.get_running_loop()
        while True:
            try:
                frame = await loop.sock_recv(self._socket, _LARGEST)
            except OSError as error:
                raise self._failure(error) from error
            yield frame

    def _failure(self, error: OSError) -> SoftlanError:
        if error.errno == errno.EMSGSIZE:
            return ConfigError(
                f"a frame of that --size is too long for the adapter {self._interface}",
                hint="its MTU and 14 bytes are the most: see `softlan status`",
            )
        return SoftlanError(
            f"the adapter {self._interface} cannot be used any more: {error.strerror or error}",
            hint="did its client end? `softlan status` says what runs",
        )
