"""The client's adapter on Linux: a TAP of its own, or an existing interface for machines without /dev/net/tun.

A TAP disappears with its last file descriptor, so the kernel itself cleans up after a crash. One that was there before (`ip tuntap add`)
stays, and gets back what it was given for the time of play. An existing interface is used as it is.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from softlan._core import MIN_TAP_MTU, CoreError, Mac, PacketSocket, TapDevice
from softlan.errors import InterfaceError, PrivilegeError, SoftlanError, UnsupportedPlatformError
from softlan.observe.events import Event
from softlan.observe.logs import log_event

__all__ = ["AttachedAdapter", "TapAdapter", "port_error", "try_adapter"]

logger = logging.getLogger(__name__)

_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_SIOCGIFMTU, _SIOCSIFMTU = 0x8921, 0x8922
_SIOCSIFHWADDR, _SIOCGIFHWADDR = 0x8924, 0x8927
"""linux/sockios.h."""
_IFREQ_FLAGS, _IFREQ_MTU, _IFREQ_HWADDR = "16sH22x", "16si20x", "16s16s8x"
"""struct ifreq with ifr_name and ifr_flags, ifr_mtu or ifr_hwaddr, 40 bytes (linux/if.h)."""
_IFF_UP = 0x1
"""linux/if.h."""

_HINTS = {
    "no-privilege": "run it as root (sudo), or give it the capabilities CAP_NET_ADMIN and CAP_NET_RAW",
    "no-tun-device": "load the tun module (`modprobe tun`); in a container, pass /dev/net/tun in, or use --attach",
    "name-taken": "another program has an interface of that name: choose another with --tap",
    "interface-missing": "`ip link` lists the interfaces of this machine",
    "interface-down": "bring it up first: `ip link set dev NAME up`",
    "not-ethernet": "choose a wired Ethernet interface, a bridge or a veth",
}


def port_error(error: CoreError) -> SoftlanError:
    """Turn the core's error about a device into one that says what to do next."""
    kind, message = error.args
    hint = _HINTS.get(kind)
    if kind == "no-privilege":
        return PrivilegeError(message, hint=hint)
    return InterfaceError(message, hint=hint)


def _require_linux() -> None:
    if sys.platform != "linux":
        raise UnsupportedPlatformError(f"softlan has no network adapter for {sys.platform} yet")


class TapAdapter:
    """A TAP with the client's MAC, up, and gone when closed; one that was there before is then as it was."""

    def __init__(self, name: str | None, mac: Mac, mtu: int) -> None:
        """Create it, or take over a persistent one of that name that nobody uses.

        Raises:
            PrivilegeError, InterfaceError: with what to do about it.
            UnsupportedPlatformError: not on Linux.

        """
        _require_linux()
        self._former = None if name is None else _Former.of(name)
        try:
            self._device = TapDevice.create(name, mac, mtu)
        except CoreError as error:
            self._put_back()
            raise port_error(error) from error

    @property
    def name(self) -> str:
        """The interface's name."""
        return self._device.name

    @property
    def device(self) -> TapDevice:
        """What a bridge takes."""
        return self._device

    @property
    def next_step(self) -> str:
        """Have an address: nothing on Linux asks for one by itself, as Windows does."""
        by_hand = f"`ip address add 192.168.88.23/24 dev {self.name}`"
        return f"give it an address: by DHCP from the LAN (the address alone, not its router), or by hand, like {by_hand}"

    def set_mtu(self, mtu: int) -> None:
        """Change the IP MTU, in bytes."""
        _set_mtu(self.name, mtu)

    def relay_moved(self, relay: str) -> None:
        """Leave routes alone: they are the administrator's on Linux."""

    def close(self) -> None:
        """Remove the TAP, unless a bridge has it, which then does. One that was there before stays, as it was."""
        self._device.close()
        self._put_back()

    def _put_back(self) -> None:
        former, self._former = self._former, None
        if former is not None:
            former.put_back()


class AttachedAdapter:
    """An existing interface, used through a packet socket: the far end of a veth pair whose near end is the player's.

    Its MTU is left alone: a veth drops what is longer than its MTU on arrival as well, and the LAN's full-size frames, which
    a TAP takes, would be lost. What is above the room's MTU travels in fragments.
    """

    def __init__(self, name: str) -> None:
        """Open it.

        Raises:
            PrivilegeError, InterfaceError: with what to do about it.
            UnsupportedPlatformError: not on Linux.

        """
        _require_linux()
        self.name = name
        try:
            self._device = PacketSocket.open(name)
        except CoreError as error:
            raise port_error(error) from error

    @property
    def device(self) -> PacketSocket:
        """What a bridge takes."""
        return self._device

    @property
    def next_step(self) -> None:
        """Nothing here: the player is at the other end."""

    def set_mtu(self, mtu: int) -> None:
        """Leave the MTU alone."""

    def relay_moved(self, relay: str) -> None:
        """Leave routes alone."""

    def close(self) -> None:
        """Give it up; the kernel ends promiscuous mode with the socket."""
        self._device.close()


def try_adapter(tap: str | None, attach: str | None, mac: Mac) -> str:
    """Make the adapter a client would use, a TAP or the interface `attach`, and give it up at once; gives its name.

    The kernel removes a TAP with its last descriptor, so it is gone when this returns, or as it was if it was there before.

    Raises:
        PrivilegeError, InterfaceError: with what to do about it.
        UnsupportedPlatformError: not on Linux.

    """
    tried = AttachedAdapter(attach) if attach is not None else TapAdapter(tap, mac, MIN_TAP_MTU)
    name = tried.name
    tried.close()
    return name


@dataclass(frozen=True, slots=True)
class _Former:
    """What an interface was like before a client used it."""

    name: str
    index: int
    mac: bytes
    """struct sockaddr with the link address, 16 bytes."""
    mtu: int
    up: bool

    @classmethod
    def of(cls, name: str) -> _Former | None:
        """Look at an interface; None: there is none of that name."""
        try:
            # First, because it knows no name that is too long, where the others cut it.
            index = socket.if_nametoindex(name)
            mac, mtu = _ask(name, _SIOCGIFHWADDR, _IFREQ_HWADDR), _ask(name, _SIOCGIFMTU, _IFREQ_MTU)
            flags = _ask(name, _SIOCGIFFLAGS, _IFREQ_FLAGS)
        except (OSError, ValueError):
            return None
        return cls(name, index, mac, mtu, bool(flags & _IFF_UP))

    def put_back(self) -> None:
        """Make the interface as it was, where it is not; what cannot be is told in the log."""
        now = _Former.of(self.name)
        if now is None or now.index != self.index:
            return  # It has gone meanwhile, whatever has its name.
        if now.up and not self.up:
            with self._told_if_stuck("down"):
                flags = _ask(self.name, _SIOCGIFFLAGS, _IFREQ_FLAGS)
                _tell(self.name, _SIOCSIFFLAGS, _IFREQ_FLAGS, flags & ~_IFF_UP)
        if now.mtu != self.mtu:
            with self._told_if_stuck(f"MTU {self.mtu}"):
                _tell(self.name, _SIOCSIFMTU, _IFREQ_MTU, self.mtu)
        if now.mac != self.mac:
            with self._told_if_stuck("MAC address"):
                _tell(self.name, _SIOCSIFHWADDR, _IFREQ_HWADDR, self.mac)

    @contextlib.contextmanager
    def _told_if_stuck(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            words = f"could not put back what {self.name} was ({what}): {error.strerror}"
            log_event(logger, Event.SETTING_STUCK, words, interface=self.name)


def _set_mtu(name: str, mtu: int) -> None:
    try:
        _tell(name, _SIOCSIFMTU, _IFREQ_MTU, mtu)
    except OSError as error:
        raise InterfaceError(f"cannot set the MTU of {name} to {mtu}: {error.strerror}") from error


def _ask(name: str, number: int, layout: str) -> Any:
    """Ask the kernel for one thing about an interface. Raises `OSError`."""
    answer = _ioctl(number, struct.pack("16s24x", name.encode()))
    return struct.unpack(layout, answer)[1]


def _tell(name: str, number: int, layout: str, value: int | bytes) -> None:
    """Set one thing about an interface. Raises `OSError`."""
    _ioctl(number, struct.pack(layout, name.encode(), value))


def _ioctl(number: int, request: bytes) -> bytes:
    if sys.platform == "win32":
        raise AssertionError("no adapter of this module is ever made there")
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        return fcntl.ioctl(control, number, request)
