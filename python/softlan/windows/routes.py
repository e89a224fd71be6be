"""Changes to IP interfaces and routes that last as long as a `with` block (rows R3 to R6).

Each scope writes down how to undo its change, makes the change, and undoes it when the block is left, by whatever way. A scope that
cannot be entered has changed nothing. What Windows does not let a scope undo stays in the journal for the next start.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar, TypeVar

from softlan.observe.events import Event
from softlan.observe.logs import log_event
from softlan.windows.errors import ERROR_OBJECT_ALREADY_EXISTS, MISSING_CODES, WindowsCallError
from softlan.windows.ip import (
    Address,
    BestRoute,
    Family,
    InterfaceSettings,
    IpHelper,
    Route,
    host_network,
)
from softlan.windows.journal import Journal
from softlan.windows.undo import InterfaceUndo, RouteUndo, Undo

__all__ = [
    "InterfaceMtuSnapshot",
    "ScopedChange",
    "ScopedDefaultRouteSuppression",
    "ScopedHostRoute",
    "ScopedInterfaceMetric",
    "ScopedInterfaceMtu",
    "ScopedRoute",
]

logger = logging.getLogger(__name__)

S = TypeVar("S", bound="ScopedChange")


class ScopedChange:
    """What the scopes share: records in the journal, taken back in reverse. `str()` names the change."""

    what: ClassVar[str] = "a change"

    def __init__(self, ip: IpHelper, journal: Journal) -> None:
        self._ip = ip
        self._journal = journal
        self._records: list[Undo] = []

    def __str__(self) -> str:
        """Name the change for a person."""
        return self.what

    def _enter(self) -> None:
        """Make the change, each step by way of `_note`."""
        raise NotImplementedError

    def ensure(self) -> bool:
        """Make the change again where Windows has lost it; say whether that was needed.

        Raises WindowsCallError when Windows refuses. Leaving the scope puts back what was there at first all the same.
        """
        raise NotImplementedError

    def _note(self, record: Undo) -> None:
        """Write a record down; the change it is about comes next."""
        self._journal.add(record)
        self._records.append(record)

    def _drop(self, record: Undo) -> None:
        """Forget a record whose change was not made."""
        self._journal.forget(record)
        self._records.remove(record)

    def _take_back(self, keep: int = 0) -> None:
        """Take the records back, last first, down to the first `keep` ones; tries all, then raises the first failure."""
        failure: WindowsCallError | None = None
        for record in reversed(self._records[keep:]):
            try:
                self._journal.take_back(record)
            except WindowsCallError as error:
                failure = failure or error
        del self._records[keep:]
        if failure is not None:
            raise failure

    def __enter__(self: S) -> S:
        """Make the change.

        Raises:
            WindowsCallError: Windows refused; what was changed until then is as before.
            SoftlanError: the journal cannot be written, so nothing was changed.

        """
        try:
            self._enter()
        except BaseException:
            with suppress(WindowsCallError):  # The journal keeps what cannot be taken back.
                self._take_back()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Undo the change. Raises WindowsCallError when that fails, unless another error is on its way already."""
        try:
            self._take_back()
        except WindowsCallError:
            if error is None:
                raise


class _ScopedInterfaceSettings(ScopedChange):
    """Settings of an adapter's IP interfaces: IPv4 must take them, IPv6 should.

    An adapter may have IPv6 switched off, and games of this kind speak IPv4: a failure there is logged and borne.
    """

    def __init__(self, ip: IpHelper, journal: Journal, luid: int, settings: InterfaceSettings) -> None:
        super().__init__(ip, journal)
        self.luid = luid
        self.settings = settings
        self.families: tuple[Family, ...] = ()
        """The families that took the settings."""

    def _enter(self) -> None:
        self._apply(Family.IPV4)
        taken = [Family.IPV4]
        before = len(self._records)
        try:
            self._apply(Family.IPV6)
            taken.append(Family.IPV6)
        except WindowsCallError as error:
            self._take_back(keep=before)
            if error.code not in MISSING_CODES:
                log_event(
                    logger,
                    Event.SETTING_REFUSED,
                    f"IPv6 of the adapter stays as it is: {error}",
                    luid=f"{self.luid:#x}",
                )
        self.families = tuple(taken)

    def _apply(self, family: Family) -> None:
        now = self._ip.interface(self.luid, family)
        self._note(InterfaceUndo(self.luid, family, now.current(self.settings), self.settings))
        self._ip.change_interface(self.luid, family, self.settings)

    def ensure(self) -> bool:
        """Apply the settings again to a family that has its former ones, as after the adapter was restarted.

        Other values were set by somebody on purpose, and stay. Raises WindowsCallError.
        """
        lost = [
            record for record in self._records if isinstance(record, InterfaceUndo) and self._is_lost(record)
        ]
        for record in lost:
            self._ip.change_interface(record.luid, record.family, record.after)
        return bool(lost)

    def _is_lost(self, record: InterfaceUndo) -> bool:
        now = self._ip.interface(self.luid, record.family)
        return now.agrees(record.before) and not now.agrees(record.after)

    def _change(self, settings: InterfaceSettings) -> None:
        """Change to other values of the same settings; what is put back in the end stays what was there at first."""
        for place, old in enumerate(self._records):
            assert isinstance(old, InterfaceUndo)
            new = InterfaceUndo(old.luid, old.family, old.before, settings)
            self._journal.replace(old, new)
            self._records[place] = new
            try:
                self._ip.change_interface(old.luid, old.family, settings)
            except WindowsCallError:
                self._journal.replace(new, old)
                self._records[place] = old
                if old.family is Family.IPV4:
                    raise
        self.settings = settings


@dataclass(frozen=True, slots=True)
class InterfaceMtuSnapshot:
    """The MTUs of an adapter's IP interfaces, in bytes; `ipv6` is None where the adapter has no IPv6."""

    luid: int
    ipv4: int
    ipv6: int | None

    @classmethod
    def take(cls, ip: IpHelper, luid: int) -> InterfaceMtuSnapshot:
        """Read them. Raises WindowsCallError when IPv4 cannot be read."""
        ipv4 = ip.interface(luid, Family.IPV4).mtu
        try:
            return cls(luid, ipv4, ip.interface(luid, Family.IPV6).mtu)
        except WindowsCallError:
            return cls(luid, ipv4, None)


class ScopedInterfaceMtu(_ScopedInterfaceSettings):
    """The IP MTU of an adapter (NlMtu), in bytes, for as long as the block lasts (row R3).

    This is what Windows' TCP/IP obeys; the driver's own MTU and the registry's are other numbers.
    """

    what = "the adapter's MTU"

    def __init__(self, ip: IpHelper, journal: Journal, luid: int, mtu: int) -> None:
        super().__init__(ip, journal, luid, InterfaceSettings(mtu=mtu))

    def change(self, mtu: int) -> None:
        """Take another MTU. Raises WindowsCallError when IPv4 refuses it; the former one then stays."""
        self._change(InterfaceSettings(mtu=mtu))


class ScopedInterfaceMetric(_ScopedInterfaceSettings):
    """An adapter's metric for as long as the block lasts (row R4).

    The adapter with the lowest metric gets limited broadcasts. UseAutomaticMetric is switched off, or Windows would take no notice
    of the value, and both are put back.
    """

    what = "the adapter's metric"

    def __init__(self, ip: IpHelper, journal: Journal, luid: int, metric: int) -> None:
        super().__init__(ip, journal, luid, InterfaceSettings(metric=metric, automatic_metric=False))


class ScopedDefaultRouteSuppression(_ScopedInterfaceSettings):
    """No default route through an adapter for as long as the block lasts (DisableDefaultRoutes; row R5).

    A DHCP server on the LAN hands out a router as well; without this all of the player's traffic could go there.
    """

    what = "the refusal of default routes"

    def __init__(self, ip: IpHelper, journal: Journal, luid: int) -> None:
        super().__init__(ip, journal, luid, InterfaceSettings(disable_default_routes=True))


class ScopedRoute(ScopedChange):
    """A route for as long as the block lasts. One that was there already is used, and left there."""

    def __init__(self, ip: IpHelper, journal: Journal, route: Route) -> None:
        super().__init__(ip, journal)
        self.route = route

    def __str__(self) -> str:
        """Name the route."""
        return f"the route {self.route}"

    @property
    def was_there(self) -> bool:
        """Whether the route is not ours."""
        return not self._records

    def _enter(self) -> None:
        if self._present():
            return
        record = RouteUndo.of(self.route)
        self._note(record)
        try:
            self._ip.create_route(self.route)
        except WindowsCallError as error:
            # No route was made, so none must be removed: the one that "already exists" was put there by somebody else just now.
            self._drop(record)
            if error.code != ERROR_OBJECT_ALREADY_EXISTS:
                raise

    def ensure(self) -> bool:
        """Add the route again if it is gone, as after the adapter's link was down; say whether that was needed.

        Raises WindowsCallError when it cannot be added.
        """
        if self._present():
            return False
        if self._records:
            self._ip.create_route(self.route)  # Its record is still there.
        else:
            self._enter()
        return True

    def _present(self) -> bool:
        return any(self.route.same_key(other) for other in self._ip.routes(Family.of(self.route.prefix)))


class ScopedHostRoute(ScopedRoute):
    """A route to one address by way of the interface and router that lead there now (row R6)."""

    def __init__(self, ip: IpHelper, journal: Journal, destination: Address, way: BestRoute | Route) -> None:
        found = way.route if isinstance(way, BestRoute) else way
        super().__init__(ip, journal, Route(found.luid, host_network(destination), found.next_hop))
