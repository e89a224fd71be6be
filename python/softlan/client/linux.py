"""The client's adapter on Linux: a TAP of its own, or an existing interface for machines without /dev/net/tun.

A TAP disappears with its last file descriptor, so the kernel itself cleans up after a crash. An existing interface is used as it is.
"""

from __future__ import annotations

import socket
import struct
import sys

from softlan._core import MIN_TAP_MTU, CoreError, Mac, PacketSocket, TapDevice
from softlan.errors import InterfaceError, PrivilegeError, SoftlanError, UnsupportedPlatformError

__all__ = ["AttachedAdapter", "TapAdapter", "port_error", "try_adapter"]

_SIOCSIFMTU = 0x8922
"""linux/sockios.h."""
_IFREQ_MTU = "16si20x"
"""struct ifreq with ifr_name and ifr_mtu, 40 bytes (linux/if.h)."""

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
    """A TAP with the client's MAC, up, and gone when closed."""

    def __init__(self, name: str | None, mac: Mac, mtu: int) -> None:
        """Create it.

        Raises:
            PrivilegeError, InterfaceError: with what to do about it.
            UnsupportedPlatformError: not on Linux.

        """
        _require_linux()
        try:
            self._device = TapDevice.create(name, mac, mtu)
        except CoreError as error:
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
        """Remove the TAP, unless a bridge has it, which then does."""
        self._device.close()


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

    The kernel removes a TAP with its last descriptor, so it is gone when this returns.

    Raises:
        PrivilegeError, InterfaceError: with what to do about it.
        UnsupportedPlatformError: not on Linux.

    """
    tried = AttachedAdapter(attach) if attach is not None else TapAdapter(tap, mac, MIN_TAP_MTU)
    name = tried.name
    tried.close()
    return name


def _set_mtu(name: str, mtu: int) -> None:
    if sys.platform == "win32":
        raise AssertionError("no adapter of this module is ever made there")
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            fcntl.ioctl(control, _SIOCSIFMTU, struct.pack(_IFREQ_MTU, name.encode(), mtu))
        except OSError as error:
            raise InterfaceError(f"cannot set the MTU of {name} to {mtu}: {error.strerror}") from error
