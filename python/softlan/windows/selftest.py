"""`softlan client --self-test`: everything softlan does to a Windows machine, tried out and put back, with a verdict for each thing.

It needs no relay. The host route is tried with an address that is nobody's (TEST-NET-1, RFC 5737).
"""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import TypeVar

import click

from softlan.errors import SoftlanError
from softlan.windows.devices import require_administrator
from softlan.windows.errors import WindowsCallError
from softlan.windows.ip import Family, IpInterface, Route
from softlan.windows.machine import Machine, open_machine, wait_for_interface
from softlan.windows.pin import PinState, RelayPin
from softlan.windows.profile import ScopedPrivateNetwork
from softlan.windows.registry import choose_adapter, installed_adapters
from softlan.windows.routes import (
    ScopedChange,
    ScopedDefaultRouteSuppression,
    ScopedInterfaceMetric,
    ScopedInterfaceMtu,
    ScopedRoute,
)
from softlan.windows.tap import Tap, driver_warning

__all__ = ["Report", "self_test"]

T = TypeVar("T")

_NOBODY = IPv4Address("192.0.2.1")
_TEST_MTU = 1380
_TEST_METRIC = 7
_LINK_S = 10.0


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """What must be the same before and after."""

    interfaces: tuple[IpInterface | None, ...]
    routes: frozenset[Route]


class Report:
    """Verdicts, one line each on stdout, and their count."""

    def __init__(self, say: Callable[[str], None] = click.echo) -> None:
        self._say = say
        self.failures = 0

    def good(self, name: str, found: object = "") -> None:
        """Something works."""
        self._line("ok", name, str(found))

    def warn(self, name: str, why: str) -> None:
        """Something is not as it should be, and can be lived with."""
        self._line("warn", name, why)

    def bad(self, name: str, error: object) -> None:
        """Something does not work."""
        self.failures += 1
        self._line("FAIL", name, str(error))
        if isinstance(error, SoftlanError) and error.hint:
            self._line("", "", f"hint: {error.hint}")

    def attempt(self, name: str, what: Callable[[], T], show: Callable[[T], object] = str) -> T | None:
        """Do something and report on it; None when it failed."""
        try:
            done = what()
        except SoftlanError as error:
            self.bad(name, error)
            return None
        self.good(name, show(done))
        return done

    def perform(self, name: str, what: Callable[[], object]) -> bool:
        """Do something that has nothing to show; says whether it worked."""
        return self.attempt(name, lambda: (what(), True), lambda _: "") is not None

    def require(self, name: str, holds: bool, found: object = "") -> None:
        """Report on something that is so or not."""
        (self.good if holds else self.bad)(name, found)

    def _line(self, verdict: str, name: str, found: str) -> None:
        self._say(f"{verdict:<5}{name:<34}{found}".rstrip())


def self_test(wanted: str | None, report: Report | None = None) -> int:
    """Try everything with the adapter called `wanted`; gives 0 when all of it works, 1 otherwise."""
    report = report or Report()
    report.good("Windows", f"{platform.version()}, Python {platform.python_version()}")
    with contextlib.suppress(_Over):
        _go_on(report.perform("administrator rights", require_administrator) or None)
        with contextlib.ExitStack() as stack:
            machine = _go_on(
                report.attempt(
                    "journal",
                    lambda: stack.enter_context(open_machine()),
                    lambda m: f"{m.recovered} old changes put right",
                )
            )
            adapters = _go_on(
                report.attempt(
                    "TAP-Windows6 adapters",
                    installed_adapters,
                    lambda a: ", ".join(x.name for x in a) or "none",
                )
            )
            adapter = _go_on(
                report.attempt(
                    "the adapter", lambda: choose_adapter(adapters, wanted), lambda a: f"{a.name} {a.guid}"
                )
            )
            tap = _go_on(
                report.attempt(
                    "open the device", lambda: stack.enter_context(Tap.open(adapter)), lambda _: ""
                )
            )
            _try_driver(report, tap)
            luid = _go_on(
                report.attempt(
                    "its IP interface",
                    lambda: wait_for_interface(machine.ip, adapter.guid),
                    lambda found: f"ifindex {machine.ip.index_of_luid(found)}, LUID {found:#x}",
                )
            )
            before = _snapshot(machine, luid)
            _try_scopes(report, machine, luid)
            _try_pin(report, machine, luid)
            _try_link(report, machine, tap, luid)
            after = _snapshot(machine, luid)
            report.require("settings are as before", after.interfaces == before.interfaces)
            report.require("routes are as before", _ours(after, luid) == _ours(before, luid))
            report.require("journal is empty", not machine.journal.records)
    report_line = "all good" if not report.failures else f"{report.failures} of the above do not work"
    click.echo(report_line)
    return 0 if not report.failures else 1


class _Over(Exception):
    """The rest makes no sense."""


def _go_on(found: T | None) -> T:
    if found is None:
        raise _Over
    return found


def _try_driver(report: Report, tap: Tap) -> None:
    version = report.attempt("driver version", tap.version)
    if version is not None and (warning := driver_warning(version)) is not None:
        report.warn("driver", f"{warning[0]}; {warning[1]}")
    report.attempt("driver MAC", tap.mac)
    report.attempt("driver MTU", tap.mtu)


def _try_scopes(report: Report, machine: Machine, luid: int) -> None:
    ip, journal = machine.ip, machine.journal

    def mtu() -> None:
        report.require("the IP MTU holds", _v4(machine, luid).mtu == _TEST_MTU)

    def metric() -> None:
        now = _v4(machine, luid)
        report.require("the metric holds", (now.metric, now.automatic_metric) == (_TEST_METRIC, False))

    def suppression() -> None:
        report.require("the suppression holds", _v4(machine, luid).disable_default_routes)

    _try_scope(report, "set the IP MTU", ScopedInterfaceMtu(ip, journal, luid, _TEST_MTU), mtu)
    _try_scope(report, "set the metric", ScopedInterfaceMetric(ip, journal, luid, _TEST_METRIC), metric)
    suppress = ScopedDefaultRouteSuppression(ip, journal, luid)
    _try_scope(report, "suppress the default route", suppress, suppression)


def _try_pin(report: Report, machine: Machine, luid: int) -> None:
    pin = RelayPin(machine.ip, machine.journal, luid)
    way = report.attempt(
        "best route to a relay",
        lambda: machine.ip.best_route(_NOBODY),
        lambda found: f"{found.route}, from {found.source}, ifindex {found.index}",
    )
    if way is None:
        return

    def set_pin() -> Route | None:
        pin.pin(_NOBODY)
        return pin.route

    try:
        if report.attempt("pin the relay's route", set_pin) is not None:
            report.require("the pin holds", pin.state() is PinState.HELD, pin.state())
    finally:
        report.perform("remove the pin", pin.close)


def _try_link(report: Report, machine: Machine, tap: Tap, luid: int) -> None:
    started = time.monotonic()
    if not report.perform("plug the cable in", tap.connect_media):
        return
    try:
        while not _v4(machine, luid).connected and time.monotonic() - started < _LINK_S:
            time.sleep(0.1)
        up = _v4(machine, luid).connected
        report.require("Windows sees the link", up, f"after {time.monotonic() - started:.1f} s")
        _try_routes(report, machine, luid)
        _try_profile(report, machine, tap)
    except WindowsCallError as error:
        report.bad("the adapter's IP interface", error)
    finally:
        report.perform("pull the cable", lambda: tap.connect_media(False))


def _try_routes(report: Report, machine: Machine, luid: int) -> None:
    for prefix in ("255.255.255.255/32", "224.0.0.0/4"):
        route = Route(luid, IPv4Network(prefix), IPv4Address(0))
        scope = ScopedRoute(machine.ip, machine.journal, route)

        def look(scope: ScopedRoute = scope) -> None:
            was_there = "was there before" if scope.was_there else ""
            report.require("the route holds", not scope.ensure(), was_there)

        _try_scope(report, f"route {prefix}", scope, look)


def _try_profile(report: Report, machine: Machine, tap: Tap) -> None:
    name = "private network profile"
    private = ScopedPrivateNetwork(machine.ip, machine.journal, machine.networks, tap.adapter.guid)

    def look() -> None:
        if not private.done:
            report.warn(name, "Windows has not identified the network yet; a session tries again")

    _try_scope(report, name, private, look)


def _try_scope(report: Report, name: str, scope: ScopedChange, look: Callable[[], None]) -> None:
    """Report on entering and leaving a scope, and look at what holds within; what cannot be entered is not looked at."""
    with contextlib.ExitStack() as stack:
        if not report.perform(name, lambda: stack.enter_context(scope)):
            return
        try:
            look()
        except WindowsCallError as error:
            report.bad(f"{name}: look at it", error)
        try:
            stack.close()
        except WindowsCallError as error:
            report.bad(f"{name}: put back", error)


def _v4(machine: Machine, luid: int) -> IpInterface:
    return machine.ip.interface(luid, Family.IPV4)


def _snapshot(machine: Machine, luid: int) -> _Snapshot:
    interfaces: list[IpInterface | None] = []
    for family in Family:
        try:
            interfaces.append(machine.ip.interface(luid, family))
        except WindowsCallError:
            interfaces.append(None)
    return _Snapshot(tuple(interfaces), frozenset(machine.ip.routes(Family.IPV4)))


def _ours(snapshot: _Snapshot, luid: int) -> set[Route]:
    """The routes that could be softlan's doing; others come and go with the weather."""
    return {route for route in snapshot.routes if route.luid == luid or _NOBODY in route.prefix}
