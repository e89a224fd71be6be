"""The profile of the network behind an adapter: public or private, which decides what Windows' firewall lets in (netlistmgr.h).

A LAN party comes up as an unidentified, public network, on which the firewall hides this machine from the others. The Network List
Manager is a COM interface; its methods are called here by their place in the interface, without a library for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from ctypes import POINTER, byref, c_int32, c_uint32, c_void_p
from typing import Any

from softlan.windows.errors import ERROR_NOT_FOUND, WindowsCallError, call_error, require_windows
from softlan.windows.ip import IpHelper
from softlan.windows.journal import Journal
from softlan.windows.routes import ScopedChange
from softlan.windows.structs import GUID
from softlan.windows.undo import CategoryUndo

__all__ = ["PRIVATE", "NetworkList", "ScopedPrivateNetwork"]

PUBLIC, PRIVATE, DOMAIN = 0, 1, 2
"""NLM_NETWORK_CATEGORY."""

_CLSID_NETWORK_LIST_MANAGER = "{DCB00C01-570F-4A9B-8D69-199FDBA5723B}"
_IID_NETWORK_LIST_MANAGER = "{DCB00000-570F-4A9B-8D69-199FDBA5723B}"
_CLSCTX_ALL = 0x17
_S_FALSE = 1

# Places in the interfaces' tables of methods; IDispatch takes the first seven. tests/windows/test_layout.py compares them with the header.
RELEASE = 2
MANAGER_GET_NETWORK = 8
MANAGER_GET_NETWORK_CONNECTIONS = 9
ENUM_NEXT = 8
CONNECTION_GET_NETWORK = 7
CONNECTION_GET_ADAPTER_ID = 12
NETWORK_GET_NETWORK_ID = 11
NETWORK_GET_CATEGORY = 18
NETWORK_SET_CATEGORY = 19


class NetworkList:
    """The Network List Manager. Every method raises WindowsCallError; ERROR_NOT_FOUND: no such network, or not yet."""

    def network_of(self, adapter: str) -> str:
        """Find the network an adapter is connected to; both by GUID. It takes Windows seconds to make up its mind."""
        with _manager() as manager, manager.get(MANAGER_GET_NETWORK_CONNECTIONS) as connections:
            while (connection := connections.next()) is not None:
                with connection:
                    if str(connection.guid(CONNECTION_GET_ADAPTER_ID)) == adapter.upper():
                        with connection.get(CONNECTION_GET_NETWORK) as network:
                            return str(network.guid(NETWORK_GET_NETWORK_ID))
        raise call_error(
            "INetworkListManager::GetNetworkConnections", ERROR_NOT_FOUND, "find the network of the adapter"
        )

    def category(self, network: str) -> int:
        """Read a network's profile."""
        found = c_int32()
        with _manager() as manager, manager.get(MANAGER_GET_NETWORK, GUID.parse(network)) as it:
            it.call(NETWORK_GET_CATEGORY, (POINTER(c_int32),), byref(found))
        return found.value

    def set_category(self, network: str, category: int) -> None:
        """Change a network's profile. Windows remembers it for this network."""
        with _manager() as manager, manager.get(MANAGER_GET_NETWORK, GUID.parse(network)) as it:
            it.call(NETWORK_SET_CATEGORY, (c_int32,), category)


class ScopedPrivateNetwork(ScopedChange):
    """The adapter's network is private for as long as the block lasts; a domain's network is left alone.

    Windows identifies a network only after its link came up, so nothing may be there to change yet: `ensure` tries again.
    """

    what = "the private network profile"

    def __init__(self, ip: IpHelper, journal: Journal, networks: NetworkList, adapter: str) -> None:
        super().__init__(ip, journal)
        self._networks = networks
        self._adapter = adapter
        self.done = False

    def _enter(self) -> None:
        self.ensure()

    def ensure(self) -> bool:
        """Make the network private if it is known by now; say whether it was changed. Raises WindowsCallError otherwise."""
        if self.done:
            return False
        try:
            network = self._networks.network_of(self._adapter)
        except WindowsCallError as error:
            if error.code == ERROR_NOT_FOUND:
                return False
            raise
        before = self._networks.category(network)
        if before == PUBLIC:
            record = CategoryUndo(network, before, PRIVATE)
            self._note(record)
            try:
                self._networks.set_category(network, PRIVATE)
            except WindowsCallError:
                self._drop(record)
                raise
        self.done = True
        return before == PUBLIC


class _Interface:
    """A COM interface pointer, released when its block is left."""

    def __init__(self, pointer: c_void_p) -> None:
        self._pointer = pointer

    def call(self, place: int, types: tuple[Any, ...], *arguments: object) -> int:
        """Call the method at `place`; gives its HRESULT, raises WindowsCallError for a failure."""
        if sys.platform != "win32":
            raise AssertionError("only after _manager")
        table = ctypes.cast(self._pointer, POINTER(POINTER(c_void_p))).contents
        method = ctypes.WINFUNCTYPE(c_int32, c_void_p, *types)(table[place] or 0)
        return _checked(f"method {place} of the network list", method(self._pointer, *arguments))

    def get(self, place: int, *arguments: GUID) -> _Interface:
        """Call a method that takes GUIDs by value and gives another interface."""
        found = c_void_p()
        self.call(place, (*[GUID] * len(arguments), POINTER(c_void_p)), *arguments, byref(found))
        if not found.value:
            # S_FALSE: the call went well and found nothing.
            raise call_error(
                f"method {place} of the network list", ERROR_NOT_FOUND, "use the network profile"
            )
        return _Interface(found)

    def guid(self, place: int) -> GUID:
        """Call a method that gives a GUID."""
        found = GUID()
        self.call(place, (POINTER(GUID),), byref(found))
        return found

    def next(self) -> _Interface | None:
        """Take the next of an enumeration; None at its end."""
        found, count = c_void_p(), c_uint32()
        types = (c_uint32, POINTER(c_void_p), POINTER(c_uint32))
        ended = self.call(ENUM_NEXT, types, 1, byref(found), byref(count)) == _S_FALSE or count.value == 0
        return None if ended else _Interface(found)

    def __enter__(self) -> _Interface:
        return self

    def __exit__(self, *_: object) -> None:
        if sys.platform == "win32":
            table = ctypes.cast(self._pointer, POINTER(POINTER(c_void_p))).contents
            ctypes.WINFUNCTYPE(c_uint32, c_void_p)(table[RELEASE] or 0)(self._pointer)


@contextlib.contextmanager
def _manager() -> Iterator[_Interface]:
    """Make a Network List Manager, with COM ready on this thread for as long (CoInitializeEx, CoCreateInstance)."""
    require_windows("the Network List Manager")
    if sys.platform != "win32":
        raise AssertionError("checked before")
    ole32 = ctypes.WinDLL("ole32")
    ole32.CoCreateInstance.argtypes = (POINTER(GUID), c_void_p, c_uint32, POINTER(GUID), POINTER(c_void_p))
    ole32.CoCreateInstance.restype = c_int32
    ready = (
        ole32.CoInitializeEx(None, 0) >= 0
    )  # Otherwise somebody has made it ready in another mode, which will do.
    try:
        found = c_void_p()
        wanted = (GUID.parse(_CLSID_NETWORK_LIST_MANAGER), GUID.parse(_IID_NETWORK_LIST_MANAGER))
        result = ole32.CoCreateInstance(byref(wanted[0]), None, _CLSCTX_ALL, byref(wanted[1]), byref(found))
        _checked("CoCreateInstance", result)
        with _Interface(found) as manager:
            yield manager
    finally:
        if ready:
            ole32.CoUninitialize()


def _checked(call: str, result: int) -> int:
    if result >= 0:
        return result
    code = result & 0xFFFF_FFFF
    # HRESULT_FROM_WIN32 (winerror.h): facility 7 carries a Win32 code.
    raise call_error(call, code & 0xFFFF if code >> 16 == 0x8007 else code, "use the network profile")
