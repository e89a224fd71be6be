"""The stand-in iphlpapi.dll as a `World`: set up and looked at by its own functions, used by softlan's real code. Runs under Wine."""

from __future__ import annotations

import ctypes
import json
from typing import Any

from scenarios import INTERFACES, ROUTES

from softlan.windows.iphlpapi import Iphlpapi

_BUFFER = 1 << 16


class Standin:
    """The DLL's functions for tests."""

    def __init__(self) -> None:
        self._library = ctypes.WinDLL("iphlpapi")
        if not hasattr(self._library, "StandinReset"):
            raise RuntimeError("Wine's own iphlpapi is loaded: is WINEDLLOVERRIDES=iphlpapi=n set?")

    def reset(self) -> None:
        """Forget everything."""
        self._library.StandinReset()

    def add_interface(  # noqa: PLR0917 - a row of INTERFACES
        self,
        guid: str,
        luid: int,
        index: int,
        mtu: int,
        metric: int,
        ipv6: bool,
        connected: bool,
        address: str,
    ) -> None:
        """Install a network card."""
        add = self._library.StandinAddInterface
        add.argtypes = (
            *(ctypes.c_char_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint32),
            *(ctypes.c_int32, ctypes.c_int32, ctypes.c_char_p),
        )
        _check(add(guid.encode(), luid, index, mtu, metric, ipv6, connected, address.encode()))

    def set_interface(
        self, luid: int, *, connected: bool = True, not_ready: int = 0, ipv6: bool = True
    ) -> None:
        """Pull or plug a cable, and more."""
        change = self._library.StandinSetInterface
        change.argtypes = (ctypes.c_uint64, ctypes.c_int32, ctypes.c_uint32, ctypes.c_int32)
        _check(change(luid, connected, not_ready, ipv6))

    def add_route(self, luid: int, prefix: str, length: int, next_hop: str, metric: int) -> None:
        """Put a route into the table."""
        add = self._library.StandinAddRoute
        add.argtypes = (ctypes.c_uint64, ctypes.c_char_p, ctypes.c_uint8, ctypes.c_char_p, ctypes.c_uint32)
        _check(add(luid, prefix.encode(), length, next_hop.encode(), metric))

    def arm(self, fail_at: int, code: int, *, on: bool) -> None:
        """Count from 0; let a call fail."""
        self._library.StandinArm(fail_at, code, int(on))

    def pause(self, paused: bool) -> None:
        """Count nothing, fail nothing."""
        self._library.StandinPause(int(paused))

    def unprivileged(self, unprivileged: bool) -> None:
        """Take the administrator's rights away."""
        self._library.StandinUnprivileged(int(unprivileged))

    def calls(self) -> int:
        """Count the calls since arming."""
        return int(self._library.StandinCalls())

    def dump(self) -> Any:
        """Show interfaces, routes and tables not given back."""
        return json.loads(self._text("StandinDump"))

    def journal(self) -> list[str]:
        """Show the calls since arming, by name."""
        return self._text("StandinJournal").splitlines()

    def _text(self, name: str) -> str:
        buffer = ctypes.create_string_buffer(_BUFFER)
        _check(getattr(self._library, name)(buffer, _BUFFER))
        return buffer.value.decode()


class StandinWorld:
    """A `World`."""

    def __init__(self) -> None:
        self.standin = Standin()
        self.ip = Iphlpapi()
        self.armed = False

    def reset(self) -> None:
        self.standin.reset()
        for interface in INTERFACES:
            self.standin.add_interface(*interface)
        for route in ROUTES:
            self.standin.add_route(*route)

    def arm(self, fail_at: int, code: int = 5, *, on: bool = False) -> None:
        self.armed = fail_at != 0
        self.standin.arm(fail_at, code, on=on)

    def pause(self, paused: bool) -> None:
        self.standin.pause(paused)

    def calls(self) -> int:
        return self.standin.calls()

    def state(self) -> Any:
        found = self.standin.dump()
        found["routes"].sort(key=str)
        return found

    def set_interface(self, luid: int, *, connected: bool = True, not_ready: int = 0) -> None:
        self.standin.set_interface(luid, connected=connected, not_ready=not_ready)


def _check(code: int) -> None:
    if code != 0:
        raise RuntimeError(f"the stand-in says {code}")
