"""What softlan reads and changes of Windows' IP configuration, as plain values, and the seam to whoever does it.

`IpHelper` is implemented by `softlan.windows.iphlpapi`; tests have one in memory. Names follow netioapi.h.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Protocol, TypeAlias

import msgspec

__all__ = [
    "Address",
    "BestRoute",
    "Family",
    "InterfaceSettings",
    "IpHelper",
    "IpInterface",
    "Network",
    "Route",
    "host_network",
    "plain_address",
]

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network


class Family(IntEnum):
    """ADDRESS_FAMILY as Windows numbers it (ws2def.h); not the numbers of other systems."""

    IPV4 = 2
    IPV6 = 23

    @classmethod
    def of(cls, value: Address | Network) -> Family:
        """Tell which family an address or network belongs to."""
        return cls.IPV4 if value.version == 4 else cls.IPV6


class InterfaceSettings(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Some settings of an IP interface (MIB_IPINTERFACE_ROW); None: not meant.

    `mtu` is NlMtu in bytes. `metric` counts only while `automatic_metric` (UseAutomaticMetric) is off.
    """

    mtu: int | None = None
    metric: int | None = None
    automatic_metric: bool | None = None
    disable_default_routes: bool | None = None


@dataclass(frozen=True, slots=True)
class IpInterface:
    """One network adapter as IPv4 or IPv6 sees it. `connected`: it has a link."""

    luid: int
    index: int
    family: Family
    mtu: int
    metric: int
    automatic_metric: bool
    disable_default_routes: bool
    connected: bool

    def agrees(self, settings: InterfaceSettings) -> bool:
        """Say whether the interface has these settings.

        A metric that Windows chooses by itself is not compared: it changes with the link's speed.
        """
        wanted = {
            "mtu": settings.mtu,
            "automatic_metric": settings.automatic_metric,
            "metric": None if settings.automatic_metric else settings.metric,
            "disable_default_routes": settings.disable_default_routes,
        }
        return all(value is None or value == getattr(self, name) for name, value in wanted.items())

    def current(self, settings: InterfaceSettings) -> InterfaceSettings:
        """Take the present values of what `settings` names; the metric never without whether it is automatic."""
        metric = settings.metric is not None or settings.automatic_metric is not None
        return InterfaceSettings(
            mtu=None if settings.mtu is None else self.mtu,
            metric=self.metric if metric else None,
            automatic_metric=self.automatic_metric if metric else None,
            disable_default_routes=None
            if settings.disable_default_routes is None
            else self.disable_default_routes,
        )


@dataclass(frozen=True, slots=True)
class Route:
    """A row of the routing table (MIB_IPFORWARD_ROW2). Interface, prefix and next hop are its key.

    `next_hop` is the unspecified address where the destination is on the link itself. `metric` is the route's own offset; the
    interface's metric comes on top.
    """

    luid: int
    prefix: Network
    next_hop: Address
    metric: int = 0

    def same_key(self, other: Route) -> bool:
        """Say whether both are the same row, whatever their metrics."""
        return (self.luid, self.prefix, self.next_hop) == (other.luid, other.prefix, other.next_hop)

    @property
    def on_link(self) -> bool:
        """Whether there is no router in between."""
        return self.next_hop.is_unspecified

    def __str__(self) -> str:
        """Print it for a person."""
        via = "on link" if self.on_link else f"via {self.next_hop}"
        return f"{self.prefix} {via}"


@dataclass(frozen=True, slots=True)
class BestRoute:
    """How this machine reaches `destination` now (GetBestRoute2; row R1). `index` is the interface's, good until it restarts."""

    destination: Address
    source: Address
    index: int
    route: Route

    @property
    def luid(self) -> int:
        """The interface's LUID, good for as long as the adapter is installed."""
        return self.route.luid


class IpHelper(Protocol):
    """What softlan asks of IP Helper. Every method raises WindowsCallError with the call and its code."""

    def best_route(self, destination: Address) -> BestRoute:
        """Say how `destination` is reached."""

    def luid_of_guid(self, guid: str) -> int:
        """Translate an adapter's GUID, in braces, to its LUID (row R2)."""

    def index_of_luid(self, luid: int) -> int:
        """Translate a LUID to the interface index of now (row R2)."""

    def interface(self, luid: int, family: Family) -> IpInterface:
        """Read an IP interface. ERROR_NOT_FOUND: the adapter has not that family, or not yet."""

    def change_interface(self, luid: int, family: Family, settings: InterfaceSettings) -> None:
        """Change what `settings` names and nothing else."""

    def routes(self, family: Family) -> list[Route]:
        """Read the routing table."""

    def create_route(self, route: Route) -> None:
        """Add a route. ERROR_OBJECT_ALREADY_EXISTS: one with that key is there."""

    def delete_route(self, route: Route) -> None:
        """Remove a route by its key. ERROR_NOT_FOUND: there is none."""

    def watch_routes(self, changed: Callable[[], None]) -> AbstractContextManager[None]:
        """Call `changed`, on any thread, after each change of the routing table, until the context is left."""


def host_network(address: Address) -> Network:
    """Give the prefix that holds one address alone."""
    return ip_network(address)


def plain_address(text: str) -> Address:
    """Read an address as a socket names it: without a zone, and IPv4 where it is IPv4 mapped into IPv6 (RFC 4291, 2.5.5.2)."""
    address = ip_address(text.partition("%")[0])
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address
