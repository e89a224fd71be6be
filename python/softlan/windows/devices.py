"""Administrator rights, and restarting a network adapter, which is how it takes a new MAC (cfgmgr32.h).

The device is disabled without CM_DISABLE_PERSIST: should softlan die in between, the journal enables it at the next start, and so does
a restart of Windows.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, byref, c_uint32, c_wchar_p

from softlan.errors import PrivilegeError
from softlan.windows.errors import (
    ERROR_ACCESS_DENIED,
    ERROR_GEN_FAILURE,
    ERROR_NOT_FOUND,
    call_error,
    require_windows,
)
from softlan.windows.journal import Journal
from softlan.windows.undo import AdapterUndo

__all__ = ["enable_device", "require_administrator", "restart_device"]

_CM_DISABLE_UI_NOT_OK = 4

_CONFIG_ERRORS = {0x05: ERROR_NOT_FOUND, 0x0D: ERROR_NOT_FOUND, 0x33: ERROR_ACCESS_DENIED}
"""CONFIGRET to Win32: CR_INVALID_DEVNODE, CR_NO_SUCH_DEVNODE, CR_ACCESS_DENIED."""


def require_administrator() -> None:
    """Raise PrivilegeError without administrator rights, which routes and MTUs take; UnsupportedPlatformError elsewhere."""
    require_windows("the Windows client")
    if sys.platform == "win32" and not ctypes.windll.shell32.IsUserAnAdmin():
        raise PrivilegeError(
            "softlan changes routes and the adapter's MTU, which takes administrator rights",
            hint="right-click Terminal or Command Prompt, choose `Run as administrator`, and start softlan there",
        )


def restart_device(journal: Journal, instance: str) -> None:
    """Disable a device and enable it again (CM_Disable_DevNode, CM_Enable_DevNode).

    Raises:
        WindowsCallError: Windows refused; the device is enabled as far as that is in our hands.

    """
    _call("CM_Locate_DevNodeW", instance)  # Without the device there is nothing to write down.
    record = AdapterUndo(instance)
    journal.add(record)
    try:
        _call("CM_Disable_DevNode", instance, _CM_DISABLE_UI_NOT_OK)
    finally:
        journal.take_back(record)


def enable_device(instance: str) -> None:
    """Enable a device; one that is enabled stays so. Raises WindowsCallError."""
    _call("CM_Enable_DevNode", instance, 0)


def _call(name: str, instance: str, *flags: int) -> None:
    """Call a function with the device's node and `flags`; CM_Locate_DevNodeW finds the node, and comes first in any case."""
    require_windows("the device manager")
    if sys.platform != "win32":
        raise AssertionError("checked before")
    library = ctypes.WinDLL("cfgmgr32")
    node = c_uint32()
    library.CM_Locate_DevNodeW.argtypes = (POINTER(c_uint32), c_wchar_p, c_uint32)
    _check("CM_Locate_DevNodeW", instance, library.CM_Locate_DevNodeW(byref(node), instance, 0))
    if flags:
        function = getattr(library, name)
        function.argtypes = (c_uint32, c_uint32)
        _check(name, instance, function(node, *flags))


def _check(name: str, instance: str, result: int) -> None:
    if result != 0:
        code = _CONFIG_ERRORS.get(result, ERROR_GEN_FAILURE)
        raise call_error(name, code, f"restart the device {instance} (CONFIGRET {result:#x})")
