"""IP Helper in memory, for scenarios without Windows: the rules that `softlan.windows` relies on, and calls that fail on demand."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any

from scenarios import INTERFACES, ROUTES

from softlan.windows.errors import call_error
from softlan.windows.ip import Address, BestRoute, Family, InterfaceSettings, IpInterface, Route


class MemoryIp:
    """An `IpHelper`."""

    def __init__(self) -> None:
        self.guids: dict[str, int] = {}
        self.sources: dict[int, Address] = {}
        self.automatic: dict[int, int] = {}
        self.rows: dict[tuple[int, Family], IpInterface] = {}
        self.table: list[Route] = []
        self.watchers: list[Callable[[], None]] = []
        self.count, self.fail_at, self.fail_code, self.fail_on = 0, 0, 0, False
        self.paused = False

    def _call(self, name: str) -> None:
        if self.paused:
            return
        self.count += 1
        if self.fail_at and (self.count == self.fail_at or (self.fail_on and self.count > self.fail_at)):
            raise call_error(name, self.fail_code, "do as the test says")

    def best_route(self, destination: Address) -> BestRoute:
        self._call("GetBestRoute2")
        family = Family.of(destination)

        def usable(route: Route) -> bool:
            row = self.rows.get((route.luid, family))
            dead = (
                row is None
                or not row.connected
                or (not route.prefix.prefixlen and row.disable_default_routes)
            )
            return not dead and route.prefix.version == destination.version and destination in route.prefix

        def rank(route: Route) -> tuple[int, int]:
            return -route.prefix.prefixlen, route.metric + self.rows[route.luid, family].metric

        best = min(filter(usable, self.table), key=rank, default=None)
        if best is None:
            raise call_error("GetBestRoute2", 1231, "find a route")
        return BestRoute(destination, self.sources[best.luid], self.rows[best.luid, family].index, best)

    def luid_of_guid(self, guid: str) -> int:
        self._call("ConvertInterfaceGuidToLuid")
        if guid not in self.guids:
            raise call_error("ConvertInterfaceGuidToLuid", 87, "find the adapter")
        return self.guids[guid]

    def index_of_luid(self, luid: int) -> int:
        self._call("ConvertInterfaceLuidToIndex")
        return self.rows[luid, Family.IPV4].index

    def interface(self, luid: int, family: Family) -> IpInterface:
        self._call("GetIpInterfaceEntry")
        if (luid, family) not in self.rows:
            raise call_error("GetIpInterfaceEntry", 1168, "read the interface")
        return self.rows[luid, family]

    def change_interface(self, luid: int, family: Family, settings: InterfaceSettings) -> None:
        row = self.interface(luid, family)
        self._call("SetIpInterfaceEntry")
        named: dict[str, Any] = {
            name: value
            for name in settings.__struct_fields__
            if (value := getattr(settings, name)) is not None
        }
        changed = replace(row, **named)
        if changed.automatic_metric:
            changed = replace(changed, metric=self.automatic[luid])
        self.rows[luid, family] = changed

    def routes(self, family: Family) -> list[Route]:
        self._call("GetIpForwardTable2")
        return [route for route in self.table if Family.of(route.prefix) is family]

    def create_route(self, route: Route) -> None:
        self._call("CreateIpForwardEntry2")
        if any(route.same_key(other) for other in self.table):
            raise call_error("CreateIpForwardEntry2", 5010, "add the route")
        self.table.append(route)
        self._tell()

    def delete_route(self, route: Route) -> None:
        self._call("DeleteIpForwardEntry2")
        left = [other for other in self.table if not route.same_key(other)]
        if len(left) == len(self.table):
            raise call_error("DeleteIpForwardEntry2", 1168, "remove the route")
        self.table = left
        self._tell()

    @contextlib.contextmanager
    def watch_routes(self, changed: Callable[[], None]) -> Iterator[None]:
        self._call("NotifyRouteChange2")
        self.watchers.append(changed)
        try:
            yield
        finally:
            self.watchers.remove(changed)

    def _tell(self) -> None:
        for watcher in self.watchers:
            watcher()


class MemoryWorld:
    """A `World` of it."""

    def __init__(self) -> None:
        self.ip = MemoryIp()
        self.armed = False

    def reset(self) -> None:
        self.ip.__init__()  # type: ignore[misc]
        for guid, luid, index, mtu, metric, ipv6, connected, address in INTERFACES:
            self.ip.guids[guid], self.ip.sources[luid] = luid, IPv4Address(address)
            self.ip.automatic[luid] = metric
            for family in Family if ipv6 else (Family.IPV4,):
                self.ip.rows[luid, family] = IpInterface(
                    luid, index, family, mtu, metric, True, False, connected
                )
        for luid, prefix, length, hop, metric in ROUTES:
            self.ip.table.append(Route(luid, ip_network(f"{prefix}/{length}"), ip_address(hop), metric))

    def arm(self, fail_at: int, code: int = 5, *, on: bool = False) -> None:
        self.armed = fail_at != 0
        self.ip.count, self.ip.fail_at, self.ip.fail_code, self.ip.fail_on = 0, fail_at, code, on

    def pause(self, paused: bool) -> None:
        self.ip.paused = paused

    def calls(self) -> int:
        return self.ip.count

    def state(self) -> Any:
        # A cable is no change of ours.
        return {key: replace(row, connected=True) for key, row in self.ip.rows.items()}, set(self.ip.table)

    def set_interface(self, luid: int, *, connected: bool = True, not_ready: int = 0) -> None:
        for family in Family:
            if (luid, family) in self.ip.rows:
                self.ip.rows[luid, family] = replace(self.ip.rows[luid, family], connected=connected)
