"""The C structures of IP Helper as ctypes, laid out as on 64-bit Windows whatever system this runs on.

Field names are those of netioapi.h, ws2ipdef.h and guiddef.h, so that they can be looked up. Types have explicit widths: `ULONG`
has 32 bits on Windows, where ctypes' `c_ulong` has 64 on Linux. tests/windows/test_layout.py compares every offset with what a C
compiler makes of the headers.
"""

from __future__ import annotations

import ctypes
import uuid
from ctypes import Structure, c_int32, c_uint8, c_uint16, c_uint32, c_uint64
from ipaddress import IPv4Address, IPv6Address, ip_network

from softlan.windows.ip import Address, Family, Network

__all__ = [
    "GUID",
    "IP_ADDRESS_PREFIX",
    "MIB_IPFORWARD_ROW2",
    "MIB_IPFORWARD_TABLE2",
    "MIB_IPINTERFACE_ROW",
    "SOCKADDR_INET",
]

INFINITE = 0xFFFFFFFF
"""Lifetimes of routes that do not expire."""

MIB_IPPROTO_NETMGMT = 3
"""NL_ROUTE_PROTOCOL (nldef.h): set by a program, as `route add` does."""


class GUID(Structure):
    """16 bytes (guiddef.h)."""

    _fields_ = (("Data1", c_uint32), ("Data2", c_uint16), ("Data3", c_uint16), ("Data4", c_uint8 * 8))

    @classmethod
    def parse(cls, text: str) -> GUID:
        """Read `{xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx}`. Raises ValueError for anything else."""
        return cls.from_buffer_copy(uuid.UUID(text).bytes_le)

    def __str__(self) -> str:
        """Print it in braces, in upper case, as the registry does."""
        return f"{{{uuid.UUID(bytes_le=bytes(self))}}}".upper()


class SOCKADDR_INET(Structure):  # noqa: N801 - Windows' name
    """An address of either family, 28 bytes (ws2ipdef.h): the fields of SOCKADDR_IN6.

    An IPv4 address (SOCKADDR_IN) lies where the flow information of IPv6 does, in network byte order. Ports and flows are unused here.
    """

    si_family: int
    sin6_port: int
    sin6_flowinfo: int
    sin6_scope_id: int

    _fields_ = (
        ("si_family", c_uint16),
        ("sin6_port", c_uint16),
        ("sin6_flowinfo", c_uint32),
        ("sin6_addr", c_uint8 * 16),
        ("sin6_scope_id", c_uint32),
    )

    @classmethod
    def of(cls, address: Address) -> SOCKADDR_INET:
        """Lay out an address. A zone is left out: rows name their interface by LUID."""
        made = cls(si_family=Family.of(address))
        if isinstance(address, IPv4Address):
            made.sin6_flowinfo = int.from_bytes(address.packed, "little")
        else:
            made.sin6_addr[:] = list(address.packed)
        return made

    def address(self) -> Address:
        """Read the address. Raises ValueError for another family than the two."""
        if Family(self.si_family) is Family.IPV4:
            return IPv4Address(self.sin6_flowinfo.to_bytes(4, "little"))
        return IPv6Address(bytes(self.sin6_addr))


class IP_ADDRESS_PREFIX(Structure):  # noqa: N801 - Windows' name
    """A destination prefix, 32 bytes (netioapi.h)."""

    Prefix: SOCKADDR_INET
    PrefixLength: int

    _fields_ = (("Prefix", SOCKADDR_INET), ("PrefixLength", c_uint8))

    @classmethod
    def of(cls, network: Network) -> IP_ADDRESS_PREFIX:
        """Lay out a network."""
        return cls(Prefix=SOCKADDR_INET.of(network.network_address), PrefixLength=network.prefixlen)

    def network(self) -> Network:
        """Read the network; bits beyond the prefix, which routes should not have, are left out."""
        return ip_network((self.Prefix.address(), self.PrefixLength), strict=False)


class MIB_IPINTERFACE_ROW(Structure):  # noqa: N801 - Windows' name
    """An IP interface, 168 bytes (netioapi.h). `InterfaceLuid` is NET_LUID.Value (ifdef.h)."""

    Family: int
    InterfaceLuid: int
    InterfaceIndex: int
    UseAutomaticMetric: int
    SitePrefixLength: int
    Metric: int
    NlMtu: int
    Connected: int
    DisableDefaultRoutes: int

    _fields_ = (
        ("Family", c_uint16),
        ("InterfaceLuid", c_uint64),
        ("InterfaceIndex", c_uint32),
        ("MaxReassemblySize", c_uint32),
        ("InterfaceIdentifier", c_uint64),
        ("MinRouterAdvertisementInterval", c_uint32),
        ("MaxRouterAdvertisementInterval", c_uint32),
        ("AdvertisingEnabled", c_uint8),
        ("ForwardingEnabled", c_uint8),
        ("WeakHostSend", c_uint8),
        ("WeakHostReceive", c_uint8),
        ("UseAutomaticMetric", c_uint8),
        ("UseNeighborUnreachabilityDetection", c_uint8),
        ("ManagedAddressConfigurationSupported", c_uint8),
        ("OtherStatefulConfigurationSupported", c_uint8),
        ("AdvertiseDefaultRoute", c_uint8),
        ("RouterDiscoveryBehavior", c_int32),
        ("DadTransmits", c_uint32),
        ("BaseReachableTime", c_uint32),
        ("RetransmitTime", c_uint32),
        ("PathMtuDiscoveryTimeout", c_uint32),
        ("LinkLocalAddressBehavior", c_int32),
        ("LinkLocalAddressTimeout", c_uint32),
        ("ZoneIndices", c_uint32 * 16),  # ScopeLevelCount (nldef.h)
        ("SitePrefixLength", c_uint32),
        ("Metric", c_uint32),
        ("NlMtu", c_uint32),
        ("Connected", c_uint8),
        ("SupportsWakeUpPatterns", c_uint8),
        ("SupportsNeighborDiscovery", c_uint8),
        ("SupportsRouterDiscovery", c_uint8),
        ("ReachableTime", c_uint32),
        ("TransmitOffload", c_uint8),  # NL_INTERFACE_OFFLOAD_ROD, eight one-bit flags
        ("ReceiveOffload", c_uint8),
        ("DisableDefaultRoutes", c_uint8),
    )


class MIB_IPFORWARD_ROW2(Structure):  # noqa: N801 - Windows' name
    """A route, 104 bytes (netioapi.h)."""

    InterfaceLuid: int
    InterfaceIndex: int
    DestinationPrefix: IP_ADDRESS_PREFIX
    NextHop: SOCKADDR_INET
    SitePrefixLength: int
    Metric: int
    Loopback: int

    _fields_ = (
        ("InterfaceLuid", c_uint64),
        ("InterfaceIndex", c_uint32),
        ("DestinationPrefix", IP_ADDRESS_PREFIX),
        ("NextHop", SOCKADDR_INET),
        ("SitePrefixLength", c_uint8),
        ("ValidLifetime", c_uint32),
        ("PreferredLifetime", c_uint32),
        ("Metric", c_uint32),
        ("Protocol", c_int32),
        ("Loopback", c_uint8),
        ("AutoconfigureAddress", c_uint8),
        ("Publish", c_uint8),
        ("Immortal", c_uint8),
        ("Age", c_uint32),
        ("Origin", c_int32),
    )


class MIB_IPFORWARD_TABLE2(Structure):  # noqa: N801 - Windows' name
    """The routing table's head (netioapi.h); `NumEntries` rows follow at offset 8, as the compiler aligns them."""

    NumEntries: int

    _fields_ = (("NumEntries", c_uint32), ("Table", MIB_IPFORWARD_ROW2 * 1))


TABLE_OFFSET = ctypes.sizeof(MIB_IPFORWARD_TABLE2) - ctypes.sizeof(MIB_IPFORWARD_ROW2)
"""Where the first row of the routing table lies: 8."""
