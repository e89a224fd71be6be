"""What is done to a machine, to see that it is put back: the same scenarios against IP Helper in memory and against a DLL under Wine.

A `World` is a machine with two network cards and a TAP adapter whose calls can be told to fail. `sweep` fails every call of every
scenario, one after the other, and compares the machine before and after.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any, Protocol

from softlan.errors import SoftlanError
from softlan.windows.ip import Family, InterfaceSettings, Route
from softlan.windows.journal import Journal, recover
from softlan.windows.pin import PinState, RelayPin
from softlan.windows.routes import (
    ScopedDefaultRouteSuppression,
    ScopedHostRoute,
    ScopedInterfaceMetric,
    ScopedInterfaceMtu,
    ScopedRoute,
)
from softlan.windows.undo import Undoer

ETHERNET, WIFI, TAP, TAP_V4_ONLY = 0x6008001000000, 0x47008002000000, 0x35000005000000, 0x35000006000000
TAP_GUID = "{5A7C0000-1111-4222-8333-444455556666}"
RELAY = IPv4Address("203.0.113.9")
ROUTER = IPv4Address("192.168.7.1")
NOWHERE = IPv4Address(0)

INTERFACES = (
    # guid, luid, index, mtu, automatic metric, IPv6, connected, address
    ("{5A7C0001-1111-4222-8333-444455556666}", ETHERNET, 12, 1500, 25, True, True, "192.168.7.20"),
    ("{5A7C0002-1111-4222-8333-444455556666}", WIFI, 9, 1500, 50, True, False, "10.9.0.3"),
    (TAP_GUID, TAP, 17, 1500, 35, True, True, "169.254.10.1"),
    ("{5A7C0003-1111-4222-8333-444455556666}", TAP_V4_ONLY, 18, 1500, 35, False, True, "169.254.10.2"),
)
ROUTES = (
    # luid, prefix, length, next hop, metric
    (ETHERNET, "0.0.0.0", 0, "192.168.7.1", 0),
    (ETHERNET, "192.168.7.0", 24, "0.0.0.0", 256),
    (WIFI, "0.0.0.0", 0, "10.9.0.1", 0),
)

CODES = (2, 5, 31, 87, 1168, 5010)


class World(Protocol):
    """A machine to try things on."""

    ip: Any
    armed: bool

    def reset(self) -> None:
        """Put INTERFACES and ROUTES in place, nothing armed."""

    def arm(self, fail_at: int, code: int = 5, *, on: bool = False) -> None:
        """Let that call fail, counted from 1 from now; `on`: all later ones as well. 0: none."""

    def pause(self, paused: bool) -> None:
        """Count no calls and let none fail for a while."""

    def calls(self) -> int:
        """Count the calls since the last arming."""

    def state(self) -> Any:
        """Everything a change could have changed, comparable."""

    def set_interface(self, luid: int, *, connected: bool = True, not_ready: int = 0) -> None:
        """Pull or plug a cable; or let the next calls answer as for an adapter that is just starting."""


def mtu(world, journal):
    with ScopedInterfaceMtu(world.ip, journal, TAP, 1380) as scope:
        check(world, lambda: world.ip.interface(TAP, Family.IPV4).mtu == 1380)
        scope.change(1400)
        check(world, lambda: world.ip.interface(TAP, Family.IPV6).mtu == 1400)


def mtu_without_ipv6(world, journal):
    with ScopedInterfaceMtu(world.ip, journal, TAP_V4_ONLY, 1380) as scope:
        check(world, lambda: scope.families == (Family.IPV4,))


def metric(world, journal):
    with ScopedInterfaceMetric(world.ip, journal, TAP, 1):
        check(world, lambda: world.ip.interface(TAP, Family.IPV4).metric == 1)
        check(world, lambda: not world.ip.interface(TAP, Family.IPV4).automatic_metric)


def default_route(world, journal):
    with ScopedDefaultRouteSuppression(world.ip, journal, TAP):
        check(world, lambda: world.ip.interface(TAP, Family.IPV4).disable_default_routes)
        check(world, lambda: world.ip.interface(TAP, Family.IPV6).disable_default_routes)


def host_route(world, journal):
    best = world.ip.best_route(RELAY)
    with ScopedHostRoute(world.ip, journal, RELAY, best):
        check(world, lambda: world.ip.best_route(RELAY).route.prefix == IPv4Network(f"{RELAY}/32"))
        check(world, lambda: world.ip.best_route(RELAY).route.next_hop == ROUTER)


def host_route_there_already(world, journal):
    """A route that was there is used, and left there."""
    route = Route(ETHERNET, IPv4Network(f"{RELAY}/32"), ROUTER)
    outside(world, world.ip.create_route, route)
    with contextlib.ExitStack() as stack:
        stack.callback(outside, world, world.ip.delete_route, route)
        with ScopedHostRoute(world.ip, journal, RELAY, route) as scope:
            check(world, lambda: scope.was_there)
        check(world, lambda: any(route.same_key(other) for other in world.ip.routes(Family.IPV4)))


def ipv6_route(world, journal):
    route = Route(ETHERNET, IPv6Network("2001:db8::9/128"), IPv6Address("fe80::1"))
    with ScopedRoute(world.ip, journal, route):
        check(world, lambda: any(route.same_key(other) for other in world.ip.routes(Family.IPV6)))


def pin(world, journal):
    """The pin is lost, comes back, and moves to another network with the machine."""
    relay_pin = RelayPin(world.ip, journal, TAP)
    with contextlib.closing(relay_pin):
        relay_pin.pin(RELAY)
        first = relay_pin.route
        check(world, lambda: relay_pin.check() is PinState.HELD)
        outside(world, world.ip.delete_route, first)
        relay_pin.check()
        check(world, lambda: relay_pin.state() is PinState.HELD)
        # The LAN behind the TAP has the relay's network, and a more specific route would be needed to beat the pin.
        lan = Route(TAP, IPv4Network("203.0.113.0/24"), NOWHERE)
        outside(world, world.ip.create_route, lan)
        try:
            relay_pin.check()
            check(world, lambda: relay_pin.state() is PinState.HELD)
            outside(world, world.ip.delete_route, first)
            check(world, lambda: relay_pin.state() is PinState.THROUGH_ADAPTER)
            relay_pin.check()
            check(world, lambda: relay_pin.state() is PinState.HELD)
        finally:
            outside(world, world.ip.delete_route, lan)
        world.set_interface(ETHERNET, connected=False)
        world.set_interface(WIFI, connected=True)
        relay_pin.check()
        check(world, lambda: relay_pin.route is not None and relay_pin.route.luid == WIFI)
        check(world, lambda: relay_pin.state() is PinState.HELD)


def everything(world, journal):
    """What a client does, in its order."""
    with contextlib.ExitStack() as stack:
        relay_pin = stack.enter_context(contextlib.closing(RelayPin(world.ip, journal, TAP)))
        relay_pin.pin(RELAY)
        stack.enter_context(ScopedInterfaceMtu(world.ip, journal, TAP, 1416))
        stack.enter_context(ScopedInterfaceMetric(world.ip, journal, TAP, 1))
        stack.enter_context(ScopedDefaultRouteSuppression(world.ip, journal, TAP))
        for prefix in ("255.255.255.255/32", "224.0.0.0/4"):
            stack.enter_context(ScopedRoute(world.ip, journal, Route(TAP, IPv4Network(prefix), NOWHERE)))
        check(world, lambda: relay_pin.state() is PinState.HELD)


def reset_by_windows(world, journal):
    """A restarted adapter has its former settings; `ensure` sets it up again, and leaving puts back what was there first."""
    with ScopedInterfaceMtu(world.ip, journal, TAP, 1380) as scope:
        outside(world, world.ip.change_interface, TAP, Family.IPV4, InterfaceSettings(mtu=1500))
        again = scope.ensure()
        check(world, lambda: again and not scope.ensure())


SCENARIOS = {
    function.__name__: function
    for function in (
        *(mtu, mtu_without_ipv6, metric, default_route, host_route, host_route_there_already, ipv6_route),
        *(pin, everything, reset_by_windows),
    )
}


class Broken(AssertionError):
    """A check within a scenario does not hold."""


def check(world, holds) -> None:
    """Look whether something holds, unless calls are failing, which checks would feel as well."""
    if not world.armed and not holds():
        raise Broken(f"line {holds.__code__.co_firstlineno} of {Path(__file__).name}")


def outside(world: World, call: Callable[..., None], *arguments: object) -> None:
    """Make a call on somebody else's behalf: it is neither counted nor made to fail."""
    world.pause(True)
    try:
        call(*arguments)
    finally:
        world.pause(False)


def run_clean(world: World, name: str, directory: Path) -> dict[str, Any]:
    """Run a scenario with nothing failing; gives the number of calls and the complaints."""
    world.reset()
    before = world.state()
    world.arm(0)
    error = run_once(world, name, directory)
    complaints = [] if error is None else [f"failed: {error!r}"]
    if world.state() != before:
        complaints.append("the machine is not as before")
    if list(directory.glob("*.json")):
        complaints.append("the journal is still there")
    return {"calls": world.calls(), "complaints": complaints}


def run_once(world: World, name: str, directory: Path) -> Exception | None:
    """Run a scenario as a client would: a journal around it."""
    shutil.rmtree(directory, ignore_errors=True)
    undoer = Undoer(world.ip, sleep=lambda _: None)
    try:
        with Journal(directory, undoer) as journal:
            SCENARIOS[name](world, journal)
    except (SoftlanError, Broken) as error:
        return error
    return None


def sweep(world: World, name: str, directory: Path) -> list[str]:
    """Let each call fail once, with each code; gives what is not as before afterwards."""
    world.reset()
    before = world.state()
    world.arm(0)
    run_once(world, name, directory)
    complaints = []
    for number in range(1, world.calls() + 1):
        for code in CODES:
            world.reset()
            world.arm(number, code)
            run_once(world, name, directory)
            world.arm(0)
            if world.state() != before:
                complaints.append(f"call {number} failing with {code}: the machine is not as before")
            if list(directory.glob("*.json")):
                complaints.append(f"call {number} failing with {code}: the journal is still there")
    return complaints


def crash_sweep(world: World, name: str, directory: Path) -> list[str]:
    """Let everything fail from each call on, as for a client that is killed there, then let the next start recover."""
    world.reset()
    before = world.state()
    world.arm(0)
    run_once(world, name, directory)
    complaints = []
    for number in range(1, world.calls() + 1):
        world.reset()
        world.arm(number, 5, on=True)
        run_once(world, name, directory)
        world.arm(0)
        recover(directory, Undoer(world.ip, sleep=lambda _: None))
        if world.state() != before:
            complaints.append(f"dead from call {number} on: the next start does not put the machine right")
        if list(directory.glob("*.json")):
            complaints.append(f"dead from call {number} on: the journal is still there after the next start")
    return complaints
