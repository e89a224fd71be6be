"""How each change softlan makes to Windows is taken back: small records, written down before the change is made.

A record says what was there and what was put in its place. Taking it back looks first: what somebody else has changed since is left
as it is, and what is gone needs nothing. So a record may be taken back after a crash, or twice, without harm.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from enum import StrEnum
from ipaddress import ip_address, ip_network
from typing import TypeAlias

import msgspec

from softlan.windows.errors import ERROR_NOT_FOUND, MISSING_CODES, WindowsCallError
from softlan.windows.ip import Family, InterfaceSettings, IpHelper, Route

__all__ = [
    "AdapterUndo",
    "CategoryUndo",
    "InterfaceUndo",
    "Outcome",
    "RouteUndo",
    "Undo",
    "Undoer",
    "check_is_own",
]

_ATTEMPTS = 3
_PAUSE_S = 0.2
"""An adapter that is just restarting refuses for a moment; whoever is leaving does not want to wait longer than this."""


class Outcome(StrEnum):
    """What became of a record that was taken back."""

    RESTORED = "restored"
    UNCHANGED = "unchanged"
    CHANGED_SINCE = "changed since by somebody else, left as it is"
    GONE = "gone"


class InterfaceUndo(msgspec.Struct, frozen=True, tag="interface", forbid_unknown_fields=True):
    """Settings of an IP interface: put `before` back if `after` is what it has."""

    luid: int
    family: Family
    before: InterfaceSettings
    after: InterfaceSettings

    def __str__(self) -> str:
        """Name it for a person."""
        names = [
            name for name in InterfaceSettings.__struct_fields__ if getattr(self.before, name) is not None
        ]
        what = ", ".join(f"{name.replace('_', ' ')} {getattr(self.before, name)}" for name in names)
        return f"{self.family.name} interface {self.luid:#x}: {what}"


class RouteUndo(msgspec.Struct, frozen=True, tag="route", forbid_unknown_fields=True):
    """A route that was added: remove it. Addresses are text here, for the journal."""

    luid: int
    prefix: str
    next_hop: str

    @classmethod
    def of(cls, route: Route) -> RouteUndo:
        """Make the record for a route."""
        return cls(route.luid, str(route.prefix), str(route.next_hop))

    def route(self) -> Route:
        """Give the route back. Raises ValueError for text that is none."""
        return Route(self.luid, ip_network(self.prefix), ip_address(self.next_hop))

    def __str__(self) -> str:
        """Name it for a person."""
        return f"route {self.prefix} via {self.next_hop}"


class CategoryUndo(msgspec.Struct, frozen=True, tag="category", forbid_unknown_fields=True):
    """A network's profile (NLM_NETWORK_CATEGORY); `network` is its GUID in the Network List Manager."""

    network: str
    before: int
    after: int

    def __str__(self) -> str:
        """Name it for a person."""
        return f"profile of network {self.network}"


class AdapterUndo(msgspec.Struct, frozen=True, tag="adapter", forbid_unknown_fields=True):
    """An adapter that was switched off to be restarted, by its device instance id: switch it on."""

    instance: str

    def __str__(self) -> str:
        """Name it for a person."""
        return f"device {self.instance}"


Undo: TypeAlias = InterfaceUndo | RouteUndo | CategoryUndo | AdapterUndo

_MTUS = range(576, 65536)
"""Bytes; Windows takes no IPv4 interface below 576."""
_METRICS = range(10_000)
"""Windows takes no metric above 9999."""
_PUBLIC, _PRIVATE = 0, 1
_PREFIXES = ("224.0.0.0/4", "255.255.255.255/32")
_TAP_INSTANCE = re.compile(r"ROOT\\(NET|TAP[0-9]{4})\\[0-9]{4}", re.IGNORECASE)
"""How Windows names adapters that no bus has found, as it does TAP-Windows6's."""


def check_is_own(record: Undo) -> None:
    """Hold a record that was read from a file to what softlan itself writes down.

    The journal lies where any process of the user can write, and is acted on with administrator rights. So a record may only
    say what one of softlan's could: what is left to who forges one is to undo such changes, not to make others.

    Raises ValueError: softlan never writes this.
    """
    match record:
        case InterfaceUndo(before=before, after=after):
            is_own = _is_own_setting(before, after)
        case RouteUndo():
            route = record.route()
            alone = route.prefix.prefixlen == route.prefix.max_prefixlen
            is_own = alone or (str(route.prefix) in _PREFIXES and route.on_link)
            is_own &= route.prefix.version == route.next_hop.version
        case CategoryUndo():
            # Taking back makes a private network public again, which opens nothing. The other way round would.
            is_own = (record.before, record.after) == (_PUBLIC, _PRIVATE)
        case AdapterUndo():
            is_own = _TAP_INSTANCE.fullmatch(record.instance) is not None
    if isinstance(record, InterfaceUndo | RouteUndo):
        is_own &= record.luid in range(1 << 64)
    if not is_own:
        raise ValueError(f"softlan writes no record like this: {record}")


def _is_own_setting(before: InterfaceSettings, after: InterfaceSettings) -> bool:
    """Say whether the two are those of one of softlan's scopes: an MTU, a metric, or the refusal of default routes."""
    nothing = InterfaceSettings()
    if after == InterfaceSettings(mtu=after.mtu) != nothing:
        own = before == InterfaceSettings(mtu=before.mtu)
        return own and before.mtu in _MTUS and after.mtu in _MTUS
    if after == InterfaceSettings(metric=after.metric, automatic_metric=False):
        automatic = before.automatic_metric
        own = before == InterfaceSettings(metric=before.metric, automatic_metric=automatic)
        return own and automatic is not None and before.metric in _METRICS and after.metric in _METRICS
    if after == InterfaceSettings(disable_default_routes=True):
        refused = before.disable_default_routes
        return refused is not None and before == InterfaceSettings(disable_default_routes=refused)
    return False


class Undoer:
    """Takes records back, with a few attempts each.

    The two calls besides IP Helper's are given as functions: `read_category` and `write_category` of a network's profile by its GUID,
    `enable_adapter` by device instance id.
    """

    def __init__(
        self,
        ip: IpHelper,
        *,
        read_category: Callable[[str], int] | None = None,
        write_category: Callable[[str, int], None] | None = None,
        enable_adapter: Callable[[str], None] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.ip = ip
        self._read_category = read_category
        self._write_category = write_category
        self._enable_adapter = enable_adapter
        self._sleep = sleep

    def undo(self, record: Undo) -> Outcome:
        """Take one record back.

        Raises:
            WindowsCallError: it did not work, several times; the record is worth keeping.

        """
        for attempt in range(_ATTEMPTS):
            try:
                return self._undo(record)
            except WindowsCallError as error:
                if attempt + 1 < _ATTEMPTS:
                    self._sleep(_PAUSE_S)
                elif error.code in MISSING_CODES:
                    return Outcome.GONE
                else:
                    raise
        raise AssertionError("not reached")

    def _undo(self, record: Undo) -> Outcome:
        match record:
            case InterfaceUndo():
                return self._undo_interface(record)
            case RouteUndo():
                return self._undo_route(record)
            case CategoryUndo():
                return self._undo_category(record)
            case AdapterUndo(instance):
                if self._enable_adapter is not None:
                    self._enable_adapter(instance)
                return Outcome.RESTORED

    def _undo_interface(self, record: InterfaceUndo) -> Outcome:
        now = self.ip.interface(record.luid, record.family)
        if now.agrees(record.before):
            return Outcome.UNCHANGED
        if not now.agrees(record.after):
            return Outcome.CHANGED_SINCE
        self.ip.change_interface(record.luid, record.family, record.before)
        return Outcome.RESTORED

    def _undo_route(self, record: RouteUndo) -> Outcome:
        try:
            self.ip.delete_route(record.route())
        except WindowsCallError as error:
            if error.code != ERROR_NOT_FOUND:
                raise
            # Gone already, or the call failed for a reason of its own: the table knows.
            route = record.route()
            if any(route.same_key(other) for other in self.ip.routes(Family.of(route.prefix))):
                raise
            return Outcome.GONE
        return Outcome.RESTORED

    def _undo_category(self, record: CategoryUndo) -> Outcome:
        if self._read_category is None or self._write_category is None:
            return Outcome.GONE
        now = self._read_category(record.network)
        if now == record.before:
            return Outcome.UNCHANGED
        if now != record.after:
            return Outcome.CHANGED_SINCE
        self._write_category(record.network, record.before)
        return Outcome.RESTORED
