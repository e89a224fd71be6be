"""Under Wine: softlan's calls of IP Helper one by one, against what the stand-in iphlpapi.dll enforces. JSON on stdout."""

from __future__ import annotations

import ctypes
import json
import logging
import threading
import traceback
from collections.abc import Callable
from ctypes import byref
from ipaddress import IPv4Address, IPv4Network

from scenarios import ETHERNET, NOWHERE, RELAY, ROUTER, TAP, TAP_GUID, TAP_V4_ONLY
from standin_world import StandinWorld

from softlan.windows.errors import WindowsCallError, WindowsPrivilegeError
from softlan.windows.ip import Family, InterfaceSettings, Route
from softlan.windows.machine import wait_for_interface
from softlan.windows.structs import MIB_IPINTERFACE_ROW

logging.disable(logging.CRITICAL)
CHECKS: dict[str, Callable[[StandinWorld], None]] = {}


def check(function: Callable[[StandinWorld], None]) -> Callable[[StandinWorld], None]:
    """Add a function to the checks, by its name."""
    CHECKS[function.__name__] = function
    return function


def refused(code: int, call: Callable[[], object]) -> WindowsCallError:
    """Say that a call must fail with a code."""
    try:
        call()
    except WindowsCallError as error:
        found = error
    else:
        raise AssertionError(f"not refused with {code}")
    assert found.code == code, found
    return found


@check
def best_route(world: StandinWorld) -> None:
    best = world.ip.best_route(RELAY)
    assert best.source == IPv4Address("192.168.7.20")
    assert best.index == 12
    assert best.route == Route(ETHERNET, IPv4Network("0.0.0.0/0"), ROUTER, 0)
    near = world.ip.best_route(IPv4Address("192.168.7.99"))
    assert near.route == Route(ETHERNET, IPv4Network("192.168.7.0/24"), NOWHERE, 256)


@check
def no_route(world: StandinWorld) -> None:
    world.set_interface(ETHERNET, connected=False)
    error = refused(1231, lambda: world.ip.best_route(RELAY))
    assert error.hint


@check
def guid_to_luid_to_index(world: StandinWorld) -> None:
    luid = world.ip.luid_of_guid(TAP_GUID)
    assert (luid, world.ip.index_of_luid(luid)) == (TAP, 17)
    refused(87, lambda: world.ip.luid_of_guid("{00000000-0000-0000-0000-000000000001}"))


@check
def site_prefix_length(world: StandinWorld) -> None:
    """What Get gives, Set refuses for IPv4; softlan's change goes through."""
    library = ctypes.WinDLL("iphlpapi")
    row = MIB_IPINTERFACE_ROW()
    library.InitializeIpInterfaceEntry(byref(row))
    row.Family, row.InterfaceLuid = Family.IPV4, TAP
    assert library.GetIpInterfaceEntry(byref(row)) == 0
    assert row.SitePrefixLength == 64
    assert library.SetIpInterfaceEntry(byref(row)) == 87
    world.ip.change_interface(TAP, Family.IPV4, InterfaceSettings(mtu=1400))
    assert world.ip.interface(TAP, Family.IPV4).mtu == 1400


@check
def a_change_leaves_the_rest(world: StandinWorld) -> None:
    before = world.ip.interface(TAP, Family.IPV4)
    world.ip.change_interface(TAP, Family.IPV4, InterfaceSettings(metric=3, automatic_metric=False))
    after = world.ip.interface(TAP, Family.IPV4)
    assert (after.metric, after.automatic_metric, after.mtu, after.index) == (
        3,
        False,
        before.mtu,
        before.index,
    )


@check
def no_ipv6(world: StandinWorld) -> None:
    refused(1168, lambda: world.ip.interface(TAP_V4_ONLY, Family.IPV6))


@check
def no_such_interface(world: StandinWorld) -> None:
    refused(2, lambda: world.ip.interface(0x99, Family.IPV4))


@check
def mtu_out_of_range(world: StandinWorld) -> None:
    refused(87, lambda: world.ip.change_interface(TAP, Family.IPV6, InterfaceSettings(mtu=1279)))
    assert world.ip.interface(TAP, Family.IPV6).mtu == 1500


@check
def not_an_administrator(world: StandinWorld) -> None:
    world.standin.unprivileged(True)
    error = refused(5, lambda: world.ip.change_interface(TAP, Family.IPV4, InterfaceSettings(mtu=1400)))
    assert isinstance(error, WindowsPrivilegeError)
    assert "SetIpInterfaceEntry failed with error 5 (" in str(error)
    assert "Run as administrator" in str(error.hint)
    refused(5, lambda: world.ip.create_route(Route(TAP, IPv4Network("224.0.0.0/4"), NOWHERE)))


@check
def a_route_twice(world: StandinWorld) -> None:
    route = Route(ETHERNET, IPv4Network("203.0.113.9/32"), ROUTER)
    world.ip.create_route(route)
    refused(5010, lambda: world.ip.create_route(route))
    assert route in world.ip.routes(Family.IPV4)
    world.ip.delete_route(route)
    refused(1168, lambda: world.ip.delete_route(route))


@check
def tables_are_given_back(world: StandinWorld) -> None:
    for _ in range(5):
        world.ip.routes(Family.IPV4)
        world.ip.routes(Family.IPV6)
    assert world.standin.dump()["tables"] == 0


@check
def route_changes_are_told(world: StandinWorld) -> None:
    told = threading.Event()
    route = Route(TAP, IPv4Network("224.0.0.0/4"), NOWHERE)
    with world.ip.watch_routes(told.set):
        world.ip.create_route(route)
        assert told.wait(10)
    told.clear()
    world.ip.delete_route(route)
    assert not told.wait(0.2)


@check
def an_adapter_that_is_starting(world: StandinWorld) -> None:
    world.set_interface(TAP, not_ready=3)
    assert wait_for_interface(world.ip, TAP_GUID) == TAP


def main() -> None:
    """Print one object: a traceback, or null, for each check."""
    world = StandinWorld()
    report: dict[str, str | None] = {}
    for name, function in CHECKS.items():
        world.reset()
        world.arm(0)
        try:
            function(world)
            report[name] = None
        except Exception:
            report[name] = traceback.format_exc()
    print("RESULT " + json.dumps(report))


main()
