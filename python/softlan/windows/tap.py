"""An open TAP-Windows6 adapter: its control codes (row T4), and errors that say what to do.

Frames are the core's (`softlan._core.WindowsTap`); this module asks the driver questions and tells it that the cable is in.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

from softlan._core import CoreError, Mac
from softlan.errors import InterfaceError, PrivilegeError, SoftlanError
from softlan.windows.errors import require_windows
from softlan.windows.registry import InstalledAdapter

if TYPE_CHECKING:
    if sys.platform == "win32":
        from softlan._core import WindowsTap
    else:
        WindowsTap: TypeAlias = Any

__all__ = ["DriverVersion", "Tap", "driver_warning", "tap_error"]


def control_code(function: int) -> int:
    """CTL_CODE(FILE_DEVICE_UNKNOWN, function, METHOD_BUFFERED, FILE_ANY_ACCESS) (winioctl.h), as tap-windows.h defines its codes."""
    return 0x22 << 16 | function << 2


GET_MAC = control_code(1)
GET_VERSION = control_code(2)
GET_MTU = control_code(3)
SET_MEDIA_STATUS = control_code(6)

MEDIA_CONNECTED = struct.pack("<I", 1)
MEDIA_DISCONNECTED = struct.pack("<I", 0)
ON_REOPEN = (SET_MEDIA_STATUS, MEDIA_CONNECTED)
"""What the core sends after it had to open the device again, as after a sleep."""

FIRST_FIXED = (9, 27)
"""The first version without CVE-2024-1305 (integer overflow in the write path, CVSS 9.8)."""


@dataclass(frozen=True, slots=True, order=True)
class DriverVersion:
    """The driver's version, as GET_VERSION gives it."""

    major: int
    minor: int

    def __str__(self) -> str:
        """Print it."""
        return f"{self.major}.{self.minor}"


def driver_warning(version: DriverVersion) -> tuple[str, str] | None:
    """Say what is wrong with a driver, and what to do; None: nothing. Pure."""
    if (version.major, version.minor) >= FIRST_FIXED:
        return None
    return (
        f"the TAP-Windows6 driver {version} has a security hole, CVE-2024-1305: what a player sends can crash this"
        " machine or run code in its kernel",
        "install version 9.27 or newer; softlan never writes a frame long enough to trigger the hole",
    )


_HINTS = {
    "adapter-missing": "the adapter may be disabled: look at it in `ncpa.cpl`, and enable it",
    "adapter-busy": "another program has the adapter (OpenVPN, or another softlan): stop it, or choose another adapter"
    " with --adapter; `tapctl create --name softlan` makes one",
    "no-privilege": "start softlan from a terminal that was opened with `Run as administrator`",
}


def tap_error(error: CoreError, name: str) -> SoftlanError:
    """Turn the core's error about an adapter into one that says what to do next."""
    kind, message = error.args
    kinds = {
        "adapter-missing": f"the adapter {name!r} cannot be opened: it is not running ({message})",
        "adapter-busy": f"the adapter {name!r} is in use by another program",
        "no-privilege": f"opening the adapter {name!r} takes administrator rights",
    }
    error_type = PrivilegeError if kind == "no-privilege" else InterfaceError
    return error_type(kinds.get(kind, f"the adapter {name!r} failed: {message}"), hint=_HINTS.get(kind))


class Tap:
    """An adapter this process has alone. Its link is down until `connect_media`, and again once closed."""

    def __init__(self, adapter: InstalledAdapter, device: WindowsTap) -> None:
        self.adapter = adapter
        self.device = device

    @classmethod
    def open(cls, adapter: InstalledAdapter) -> Tap:
        """Open it.

        Raises:
            InterfaceError, PrivilegeError: missing, in use, or not allowed.
            UnsupportedPlatformError: not on Windows.

        """
        require_windows("TAP-Windows6")
        try:
            return cls(adapter, _open_device(adapter.device_path))
        except CoreError as error:
            raise tap_error(error, adapter.name) from error

    def mac(self) -> Mac:
        """Ask for the MAC the driver sends with (TAP_WIN_IOCTL_GET_MAC, 6 bytes)."""
        return Mac.from_bytes(self._ask(GET_MAC, bytes(6), 6))

    def version(self) -> DriverVersion:
        """Ask for the driver's version (TAP_WIN_IOCTL_GET_VERSION: major, minor, debug; 12 bytes)."""
        major, minor, _debug = struct.unpack("<III", self._ask(GET_VERSION, bytes(12), 12))
        return DriverVersion(major, minor)

    def mtu(self) -> int:
        """Ask for the driver's MTU in bytes (TAP_WIN_IOCTL_GET_MTU), which is not the IP interface's."""
        (mtu,) = struct.unpack("<I", self._ask(GET_MTU, bytes(4), 4))
        return int(mtu)

    def connect_media(self, connected: bool = True) -> None:
        """Plug the cable in, or pull it (TAP_WIN_IOCTL_SET_MEDIA_STATUS)."""
        self._ask(SET_MEDIA_STATUS, MEDIA_CONNECTED if connected else MEDIA_DISCONNECTED, 4)

    def close(self) -> None:
        """Give the adapter up; its link goes down. Twice does no harm."""
        self.device.close()

    def __enter__(self) -> Tap:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _ask(self, code: int, data: bytes, size: int) -> bytes:
        try:
            answer: bytes = self.device.ioctl(code, data, size)
        except CoreError as error:
            raise tap_error(error, self.adapter.name) from error
        if len(answer) != size:
            raise InterfaceError(
                f"the driver of {self.adapter.name!r} answered {len(answer)} bytes to control code {code:#x}, not {size}",
                hint="is it really TAP-Windows6? Install version 9.27 or newer",
            )
        return answer


def _open_device(path: str) -> WindowsTap:
    if sys.platform == "win32":
        from softlan._core import WindowsTap

        return WindowsTap.open(path, on_reopen=ON_REOPEN)
    raise AssertionError("checked before")
