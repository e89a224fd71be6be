"""IP Helper (iphlpapi.dll) through ctypes: each call by its MSDN name, its rows turned into the values of `softlan.windows.ip`.

Interfaces are named by LUID throughout, because an index changes when an adapter restarts. Calls that change something need
administrator rights; without them Windows answers ERROR_ACCESS_DENIED, which arrives as `WindowsPrivilegeError`.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Callable, Iterator
from ctypes import POINTER, byref, c_int32, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p
from typing import Any

from softlan.errors import UnsupportedPlatformError
from softlan.windows.errors import call_error, require_windows
from softlan.windows.ip import Address, BestRoute, Family, InterfaceSettings, IpInterface, Route
from softlan.windows.structs import (
    GUID,
    INFINITE,
    IP_ADDRESS_PREFIX,
    MIB_IPFORWARD_ROW2,
    MIB_IPINTERFACE_ROW,
    MIB_IPPROTO_NETMGMT,
    SOCKADDR_INET,
    TABLE_OFFSET,
)

__all__ = ["Iphlpapi"]

_NO_ERROR = 0

_PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "ConvertInterfaceGuidToLuid": (POINTER(GUID), POINTER(c_uint64)),
    "ConvertInterfaceLuidToIndex": (POINTER(c_uint64), POINTER(c_uint32)),
    "GetBestRoute2": (
        POINTER(c_uint64),
        c_uint32,
        POINTER(SOCKADDR_INET),
        POINTER(SOCKADDR_INET),
        c_uint32,
        POINTER(MIB_IPFORWARD_ROW2),
        POINTER(SOCKADDR_INET),
    ),
    "GetIpInterfaceEntry": (POINTER(MIB_IPINTERFACE_ROW),),
    "SetIpInterfaceEntry": (POINTER(MIB_IPINTERFACE_ROW),),
    "CreateIpForwardEntry2": (POINTER(MIB_IPFORWARD_ROW2),),
    "DeleteIpForwardEntry2": (POINTER(MIB_IPFORWARD_ROW2),),
    "GetIpForwardTable2": (c_uint16, POINTER(c_void_p)),
    "NotifyRouteChange2": (c_uint16, c_void_p, c_void_p, c_uint8, POINTER(c_void_p)),
    "CancelMibChangeNotify2": (c_void_p,),
}
"""Parameters of the calls that return a Win32 error (netioapi.h); the initialisers and FreeMibTable return nothing."""

_VOID_PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "InitializeIpInterfaceEntry": (POINTER(MIB_IPINTERFACE_ROW),),
    "InitializeIpForwardEntry": (POINTER(MIB_IPFORWARD_ROW2),),
    "FreeMibTable": (c_void_p,),
}


class Iphlpapi:
    """The real `IpHelper`. Raises UnsupportedPlatformError where there is no Windows, or one without these calls."""

    def __init__(self) -> None:
        require_windows("IP Helper (iphlpapi.dll)")
        self._library = _load()

    def best_route(self, destination: Address) -> BestRoute:
        """GetBestRoute2, unconstrained. Raises WindowsCallError, ERROR_NETWORK_UNREACHABLE among others."""
        row, source = MIB_IPFORWARD_ROW2(), SOCKADDR_INET()
        wanted = SOCKADDR_INET.of(destination)
        self._call(
            "GetBestRoute2",
            f"find the route to {destination}",
            None,
            0,
            None,
            byref(wanted),
            0,
            byref(row),
            byref(source),
        )
        return BestRoute(destination, source.address(), row.InterfaceIndex, _route(row))

    def luid_of_guid(self, guid: str) -> int:
        """ConvertInterfaceGuidToLuid."""
        luid = c_uint64()
        self._call(
            "ConvertInterfaceGuidToLuid",
            f"find the network adapter {guid}",
            byref(GUID.parse(guid)),
            byref(luid),
        )
        return luid.value

    def index_of_luid(self, luid: int) -> int:
        """ConvertInterfaceLuidToIndex."""
        index = c_uint32()
        self._call(
            "ConvertInterfaceLuidToIndex",
            f"find the index of interface {luid:#x}",
            byref(c_uint64(luid)),
            byref(index),
        )
        return index.value

    def interface(self, luid: int, family: Family) -> IpInterface:
        """GetIpInterfaceEntry."""
        row = self._row(luid, family)
        return IpInterface(
            luid=luid,
            index=row.InterfaceIndex,
            family=family,
            mtu=row.NlMtu,
            metric=row.Metric,
            automatic_metric=bool(row.UseAutomaticMetric),
            disable_default_routes=bool(row.DisableDefaultRoutes),
            connected=bool(row.Connected),
        )

    def change_interface(self, luid: int, family: Family, settings: InterfaceSettings) -> None:
        """GetIpInterfaceEntry, then SetIpInterfaceEntry with what is to be changed."""
        row = self._row(luid, family)
        if settings.mtu is not None:
            row.NlMtu = settings.mtu
        if settings.metric is not None:
            row.Metric = settings.metric
        if settings.automatic_metric is not None:
            row.UseAutomaticMetric = settings.automatic_metric
        if settings.disable_default_routes is not None:
            row.DisableDefaultRoutes = settings.disable_default_routes
        if family is Family.IPV4:
            # What Get fills in here, Set refuses with ERROR_INVALID_PARAMETER (MSDN, SetIpInterfaceEntry, remarks).
            row.SitePrefixLength = 0
        self._call("SetIpInterfaceEntry", f"change {family.name} of interface {luid:#x}", byref(row))

    def routes(self, family: Family) -> list[Route]:
        """GetIpForwardTable2, FreeMibTable."""
        table = c_void_p()
        self._call("GetIpForwardTable2", "read the routing table", family, byref(table))
        assert table.value is not None
        try:
            count = c_uint32.from_address(table.value).value
            rows = (MIB_IPFORWARD_ROW2 * count).from_address(table.value + TABLE_OFFSET)
            return [_route(row) for row in rows]
        finally:
            self._library.FreeMibTable(table)

    def create_route(self, route: Route) -> None:
        """CreateIpForwardEntry2. The route is not kept over a restart of Windows (MSDN)."""
        self._call("CreateIpForwardEntry2", f"add the route {route}", byref(self._forward_row(route)))

    def delete_route(self, route: Route) -> None:
        """DeleteIpForwardEntry2."""
        self._call("DeleteIpForwardEntry2", f"remove the route {route}", byref(self._forward_row(route)))

    @contextlib.contextmanager
    def watch_routes(self, changed: Callable[[], None]) -> Iterator[None]:
        """NotifyRouteChange2, CancelMibChangeNotify2 (which waits for callbacks that are running)."""
        if sys.platform != "win32":
            raise AssertionError("checked before")
        callback = ctypes.WINFUNCTYPE(None, c_void_p, c_void_p, c_int32)(lambda *_: changed())
        handle = c_void_p()
        self._call(
            "NotifyRouteChange2",
            "watch the routing table",
            0,
            ctypes.cast(callback, c_void_p),
            None,
            0,
            byref(handle),
        )
        try:
            yield
        finally:
            self._library.CancelMibChangeNotify2(handle)

    def _row(self, luid: int, family: Family) -> MIB_IPINTERFACE_ROW:
        row = MIB_IPINTERFACE_ROW()
        self._library.InitializeIpInterfaceEntry(byref(row))
        row.Family, row.InterfaceLuid = family, luid
        self._call("GetIpInterfaceEntry", f"read {family.name} of interface {luid:#x}", byref(row))
        return row

    def _forward_row(self, route: Route) -> MIB_IPFORWARD_ROW2:
        row = MIB_IPFORWARD_ROW2()
        self._library.InitializeIpForwardEntry(byref(row))
        row.InterfaceLuid = route.luid
        row.DestinationPrefix = IP_ADDRESS_PREFIX.of(route.prefix)
        row.NextHop = SOCKADDR_INET.of(route.next_hop)
        row.SitePrefixLength = 0
        row.Metric = route.metric
        row.Protocol = MIB_IPPROTO_NETMGMT
        row.ValidLifetime = row.PreferredLifetime = INFINITE
        return row

    def _call(self, name: str, doing: str, *arguments: object) -> None:
        code = getattr(self._library, name)(*arguments)
        if code != _NO_ERROR:
            raise call_error(name, code, doing)


def _load() -> Any:
    if sys.platform != "win32":
        raise AssertionError("checked before")
    library = ctypes.WinDLL("iphlpapi")
    missing = [name for name in (*_PROTOTYPES, *_VOID_PROTOTYPES) if not hasattr(library, name)]
    if missing:
        raise UnsupportedPlatformError(
            f"this system's iphlpapi.dll has no {missing[0]}",
            hint="softlan needs Windows 10 or newer; Wine will not do",
        )
    for name, parameters in _PROTOTYPES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = parameters, c_uint32
    for name, parameters in _VOID_PROTOTYPES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = parameters, None
    return library


def _route(row: MIB_IPFORWARD_ROW2) -> Route:
    return Route(row.InterfaceLuid, row.DestinationPrefix.network(), row.NextHop.address(), row.Metric)
