"""The relay's route, pinned to the interface that leads to it without softlan's own adapter (row X2).

Once the adapter is up the LAN's routes come with it, and one of them may cover the relay's address: the tunnel would then run
through itself. A host route is the most specific there is, so it wins against them all; it is looked after while the session lasts,
because Windows drops routes when a cable is pulled or a laptop moves to another network, and keeps this one when its router is gone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

from softlan.errors import InterfaceError, SoftlanError
from softlan.observe.events import Event
from softlan.observe.logs import log_event
from softlan.windows.errors import WindowsCallError
from softlan.windows.ip import Address, BestRoute, Family, IpHelper, IpInterface, Route, host_network
from softlan.windows.journal import Journal
from softlan.windows.routes import ScopedHostRoute

__all__ = ["PinState", "RelayPin", "judge_pin", "underlay_route"]

logger = logging.getLogger(__name__)


class PinState(StrEnum):
    """How the relay is reached now, compared with how it should be."""

    HELD = "held"
    MOVED = "moved"
    """As it should have been: the machine has another way out by now, and this one may lead nowhere."""
    LOST = "lost"
    """By another route, which at least is not the adapter's."""
    THROUGH_ADAPTER = "through-adapter"
    """Through softlan's own adapter: nothing gets out."""
    OFFLINE = "offline"
    """By no route at all; the machine may be between two networks."""


def judge_pin(pinned: Route, best: BestRoute | None, adapter_luid: int) -> PinState:
    """Say what the best route of now makes of a pinned one. Pure; None: Windows knows no route."""
    if best is None:
        return PinState.OFFLINE
    if best.luid == adapter_luid:
        return PinState.THROUGH_ADAPTER
    # On the link itself the next hop may be given as unspecified or as the destination.
    same_hop = best.route.next_hop == pinned.next_hop or (
        pinned.on_link and best.route.next_hop == best.destination
    )
    if best.luid == pinned.luid and best.route.prefix == pinned.prefix and same_hop:
        return PinState.HELD
    return PinState.LOST


def underlay_route(
    routes: Iterable[Route], metrics: Mapping[int, int], destination: Address, adapter_luid: int
) -> Route | None:
    """Choose the route Windows would take if there were no such adapter. Pure.

    `metrics` holds the metric of each connected interface by LUID; routes of others are dead. The longest prefix wins, then the lowest
    sum of both metrics (MSDN, "Automatic Metric feature").
    """
    usable = [
        route
        for route in routes
        if route.luid != adapter_luid and route.luid in metrics and destination in route.prefix
    ]
    return min(usable, key=lambda r: (-r.prefix.prefixlen, r.metric + metrics[r.luid]), default=None)


class RelayPin:
    """Keeps one relay address pinned: `pin` it, `check` it now and then, `close` in the end."""

    def __init__(self, ip: IpHelper, journal: Journal, adapter_luid: int) -> None:
        self._ip = ip
        self._journal = journal
        self._adapter_luid = adapter_luid
        self._scope: ScopedHostRoute | None = None
        self._destination: Address | None = None
        self._besides: Route | None = None
        """The way there would have been without the pin when it was made."""
        self._said: str | None = None

    @property
    def route(self) -> Route | None:
        """The pinned route; None: nothing is pinned, or nothing has to be."""
        return None if self._scope is None else self._scope.route

    def pin(self, destination: Address) -> None:
        """Pin the relay at `destination`; one that is pinned already stays, another address takes its place.

        A relay on this very machine needs no pin: the loopback interface is nobody's LAN.

        Raises:
            InterfaceError: there is no way to the relay but through the adapter.
            WindowsCallError: Windows refused, for want of administrator rights among others.

        """
        if destination == self._destination:
            return
        if destination.is_loopback:
            self.close()
            self._destination = destination
        else:
            self._pin_by(destination, self._way(destination))

    def state(self) -> PinState:
        """Compare the present route with the pinned one."""
        if self._scope is None or self._destination is None:
            return PinState.HELD
        found = judge_pin(self._scope.route, self._best(self._destination), self._adapter_luid)
        return PinState.MOVED if found is PinState.HELD and self._moved_to() is not None else found

    def check(self) -> PinState:
        """See to it that the pin holds: add it again, or pin to the network the machine has moved to. Gives the state found.

        Never raises for what Windows refuses now: that is logged, and the next check tries again.
        """
        found = self.state()
        if found in (PinState.MOVED, PinState.LOST, PinState.THROUGH_ADAPTER):
            try:
                self._mend(found)
            except SoftlanError as error:
                if str(error) != self._said:  # The next check finds the same a few seconds later.
                    self._said = str(error)
                    message = f"cannot pin the route to the relay again: {error}"
                    log_event(logger, Event.ROUTE_LOST, message, state=found)
                return found
        self._said = None
        return found

    def close(self) -> None:
        """Remove the pin; twice does no harm."""
        scope, self._scope, self._destination = self._scope, None, None
        if scope is not None:
            scope.__exit__(None, None, None)

    def _mend(self, found: PinState) -> None:
        destination, scope = self._destination, self._scope
        assert destination is not None
        assert scope is not None
        way = (self._moved_to() if found is PinState.MOVED else None) or self._way(destination)
        if _same_way(way, scope.route):
            if scope.ensure():
                log_event(
                    logger,
                    Event.ROUTE_PINNED,
                    f"the route to the relay was gone, and is pinned again: {scope.route}",
                )
            elif found is PinState.THROUGH_ADAPTER:
                raise InterfaceError(f"the route {scope.route} is there, but Windows does not follow it")
            return
        self._pin_by(destination, way)

    def _pin_by(self, destination: Address, way: Route) -> None:
        """Enter the new pin first, then leave the old one, so that there is always one."""
        scope = ScopedHostRoute(self._ip, self._journal, destination, way)
        scope.__enter__()
        former, self._scope, self._destination = self._scope, scope, destination
        self._besides = self._way_besides(scope.route)
        log_event(
            logger,
            Event.ROUTE_PINNED,
            f"pinned the relay's route: {scope.route}",
            relay=destination,
            next_hop=way.next_hop,
            luid=f"{way.luid:#x}",
            was_there=scope.was_there,
        )
        if former is not None:
            former.__exit__(None, None, None)

    def _moved_to(self) -> Route | None:
        """Find another way to the relay than the pinned one, if the machine has one that it had not when the pin was made.

        The best route does not show it: that is the pin itself. A way that was there and that Windows did not take is none: Windows knows
        more than the metrics by which the choice is made here. A route of somebody else's making is his to move.
        """
        scope = self._scope
        if scope is None or scope.was_there:
            return None
        way = self._way_besides(scope.route)
        former = (scope.route, self._besides)
        if way is None or any(other is not None and _same_way(way, other) for other in former):
            return None
        return Route(way.luid, scope.route.prefix, way.next_hop)

    def _way_besides(self, pinned: Route) -> Route | None:
        """Give the way there would be without the adapter and without the pin, and of two that are as good the pin's; None: none."""
        destination = pinned.prefix.network_address
        try:
            routes = [r for r in self._ip.routes(Family.of(destination)) if not r.same_key(pinned)]
        except WindowsCallError:
            return None
        return self._underlay(sorted(routes, key=lambda r: not _same_way(r, pinned)), destination)

    def _way(self, destination: Address) -> Route:
        """Find the way to the relay besides the adapter, as a route with the relay's own prefix."""
        best = self._best(destination)
        found: Route | None = best.route if best is not None and best.luid != self._adapter_luid else None
        if found is None:
            found = self._underlay(self._ip.routes(Family.of(destination)), destination)
        if found is None:
            raise InterfaceError(
                f"there is no route to the relay {destination} besides the virtual adapter's own",
                hint="check this machine's network connection",
            )
        hop = found.next_hop if found.next_hop != destination else type(destination)(0)
        return Route(found.luid, host_network(destination), hop)

    def _underlay(self, routes: Sequence[Route], destination: Address) -> Route | None:
        interfaces = self._interfaces({route.luid for route in routes}, Family.of(destination))
        metrics = {luid: interface.metric for luid, interface in interfaces.items()}
        usable = [
            route
            for route in routes
            if route.prefix.prefixlen
            or route.luid not in interfaces
            or not interfaces[route.luid].disable_default_routes
        ]
        return underlay_route(usable, metrics, destination, self._adapter_luid)

    def _best(self, destination: Address) -> BestRoute | None:
        try:
            return self._ip.best_route(destination)
        except WindowsCallError:
            return None

    def _interfaces(self, luids: Iterable[int], family: Family) -> dict[int, IpInterface]:
        """Read the interfaces that have a link."""
        found = {}
        for luid in luids:
            try:
                interface = self._ip.interface(luid, family)
            except WindowsCallError:
                continue
            if interface.connected:
                found[luid] = interface
        return found


def _same_way(one: Route, other: Route) -> bool:
    return (one.luid, one.next_hop) == (other.luid, other.next_hop)
