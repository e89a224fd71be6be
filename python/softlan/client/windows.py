"""The client's adapter on Windows: a TAP-Windows6 adapter, and all that must be changed on the machine while it is in use.

`prepare` does what comes before the relay is asked: rights, adapter, driver, MAC. `WindowsAdapter` does the rest once a room is
entered: it pins the relay's route, then sets up the adapter, then plugs its cable in, and puts everything back in reverse.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from softlan._core import Mac
from softlan.config import parse_host_port
from softlan.errors import InterfaceError, SoftlanError
from softlan.observe.events import Event
from softlan.observe.logs import log_event
from softlan.windows.devices import require_administrator, restart_device
from softlan.windows.errors import WindowsCallError
from softlan.windows.ip import Address, Route, plain_address
from softlan.windows.mac_policy import MacPolicy, decide_mac
from softlan.windows.machine import Machine, open_machine, wait_for_interface
from softlan.windows.pin import PinState, RelayPin
from softlan.windows.profile import ScopedPrivateNetwork
from softlan.windows.registry import (
    InstalledAdapter,
    choose_adapter,
    installed_adapters,
    network_address,
    read_network_address,
    write_network_address,
)
from softlan.windows.routes import (
    InterfaceMtuSnapshot,
    ScopedChange,
    ScopedDefaultRouteSuppression,
    ScopedInterfaceMetric,
    ScopedInterfaceMtu,
    ScopedRoute,
)
from softlan.windows.tap import Tap, driver_warning

if TYPE_CHECKING:
    if sys.platform == "win32":
        from softlan._core import WindowsTap
    else:
        WindowsTap: TypeAlias = Any

__all__ = ["PreparedAdapter", "WindowsAdapter", "WindowsOptions", "prepare"]

logger = logging.getLogger(__name__)

S = TypeVar("S", bound=ScopedChange)

LOWEST_METRIC = 1
BROADCAST_ROUTES = (IPv4Network("255.255.255.255/32"), IPv4Network("224.0.0.0/4"))
"""Limited broadcasts and IPv4 multicast, which Windows sends by one interface alone: the one whose route is best."""

_RECHECK_S = 5.0
_SETTLE_S = 0.2
"""Route changes come in bursts; one look after them is enough."""
_REOPEN_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowsOptions:
    """What the player asked for. `adapter` is a name or GUID; the switches at the end are for games, off unless asked."""

    adapter: str | None = None
    mac_policy: MacPolicy = MacPolicy.STRICT
    allow_default_route: bool = False
    lowest_metric: bool = False
    broadcast_routes: bool = False
    private_network: bool = False


class WindowsAdapter:
    """The adapter, set up, with its cable in; an `Adapter`.

    While it is open the event loop it was made on looks every few seconds, and after each change of the routing table, whether pin and
    settings still hold.
    """

    def __init__(
        self, machine: Machine, tap: Tap, luid: int, options: WindowsOptions, *, mtu: int, relay: str
    ) -> None:
        """Set everything up; `relay` is `IP:PORT`, `mtu` in bytes.

        Raises:
            WindowsCallError, InterfaceError: what could not be done; nothing is changed then.

        """
        self._tap = tap
        self._machine = machine
        self._pin = RelayPin(machine.ip, machine.journal, luid)
        self._ensured: list[ScopedChange] = []
        self._said: dict[ScopedChange, str] = {}
        with ExitStack() as undo:
            undo.callback(self._pin.close)
            self._pin.pin(_relay_address(relay))
            # All that the cable could bring in is ruled out before it is in.
            self._mtu = self._enter(undo, ScopedInterfaceMtu(machine.ip, machine.journal, luid, mtu))
            if options.lowest_metric:
                self._enter(undo, ScopedInterfaceMetric(machine.ip, machine.journal, luid, LOWEST_METRIC))
            if not options.allow_default_route:
                self._enter(undo, ScopedDefaultRouteSuppression(machine.ip, machine.journal, luid))
            undo.callback(self._unplug)
            tap.connect_media()
            if options.broadcast_routes:
                for prefix in BROADCAST_ROUTES:
                    route = Route(luid, prefix, IPv4Address(0))
                    self._enter(undo, ScopedRoute(machine.ip, machine.journal, route))
            if options.private_network:
                guid = tap.adapter.guid
                self._enter(undo, ScopedPrivateNetwork(machine.ip, machine.journal, machine.networks, guid))
            self._verify_pin()
            self._caretaker = asyncio.get_running_loop().create_task(self._look_after())
            undo.callback(self._caretaker.cancel)
            self._undo = undo.pop_all()

    @property
    def name(self) -> str:
        """The adapter's name, as the system shows it."""
        return self._tap.adapter.name

    @property
    def next_step(self) -> None:
        """Nothing: Windows asks for an address by itself."""

    @property
    def device(self) -> WindowsTap:
        """What a bridge takes."""
        return self._tap.device

    def set_mtu(self, mtu: int) -> None:
        """Change the IP MTU, in bytes."""
        self._mtu.change(mtu)

    def relay_moved(self, relay: str) -> None:
        """Pin another address of the relay's, `IP:PORT`, if it is another; failing that the session goes on without."""
        try:
            self._pin.pin(_relay_address(relay))
        except SoftlanError as error:
            log_event(logger, Event.ROUTE_LOST, f"cannot pin the route to the relay at {relay}: {error}")

    def check(self) -> None:
        """Look whether the pin and the settings still hold, and mend what does not."""
        self._pin.check()
        for scope in self._ensured:
            try:
                if scope.ensure():
                    log_event(logger, Event.SETTING_CHANGED, f"Windows had lost {scope}; it is set up again")
                self._said.pop(scope, None)
            except SoftlanError as error:
                if self._said.get(scope) != str(error):  # The next check finds the same a few seconds later.
                    self._said[scope] = str(error)
                    log_event(logger, Event.SETTING_REFUSED, f"cannot see to {scope}: {error}")

    def close(self) -> None:
        """Pull the cable and put everything back; twice does no harm. Raises WindowsCallError for what stayed changed."""
        undo, self._undo = self._undo, ExitStack()
        undo.close()

    def _enter(self, undo: ExitStack, scope: S) -> S:
        undo.enter_context(scope)
        self._ensured.append(scope)
        return scope

    def _unplug(self) -> None:
        # The bridge may have closed the device already, which pulls the cable as well.
        with contextlib.suppress(SoftlanError):
            self._tap.connect_media(False)

    def _verify_pin(self) -> None:
        state = self._pin.check()
        if state is not PinState.HELD:
            state = self._pin.state()
        if state is PinState.THROUGH_ADAPTER:
            raise InterfaceError(
                "the way to the relay leads through the virtual adapter itself",
                hint="look for a route to the relay's address in `route print`, and remove it",
            )
        if state is not PinState.HELD:
            log_event(
                logger,
                Event.ROUTE_LOST,
                "the relay is reached by another route than the pinned one",
                state=state,
            )

    async def _look_after(self) -> None:
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()

        def notice() -> None:
            with contextlib.suppress(RuntimeError):  # The loop has ended.
                loop.call_soon_threadsafe(changed.set)

        with ExitStack() as watching:
            try:
                watching.enter_context(self._machine.ip.watch_routes(notice))
            except WindowsCallError as error:
                log_event(logger, Event.SETTING_REFUSED, f"route changes are noticed late: {error}")
            while True:
                try:
                    async with asyncio.timeout(_RECHECK_S):
                        await changed.wait()
                    await asyncio.sleep(_SETTLE_S)
                except TimeoutError:
                    pass
                changed.clear()
                self.check()


class PreparedAdapter:
    """An adapter opened and agreed upon, its link still down. `mac` is what to say hello with."""

    def __init__(self, machine: Machine, tap: Tap, luid: int, mac: Mac, options: WindowsOptions) -> None:
        self.mac = mac
        self._machine = machine
        self._tap = tap
        self._luid = luid
        self._options = options

    def make(self, mtu: int, relay: str) -> WindowsAdapter:
        """Set the adapter up and plug its cable in; see `WindowsAdapter`."""
        return WindowsAdapter(self._machine, self._tap, self._luid, self._options, mtu=mtu, relay=relay)


@contextlib.contextmanager
def prepare(options: WindowsOptions, identity: Mac) -> Iterator[PreparedAdapter]:
    """Open the adapter the player means, and settle the MAC; nothing else is changed yet. What is, is put back in the end.

    Raises:
        UnsupportedPlatformError: not on Windows.
        PrivilegeError: no administrator rights.
        InterfaceError, ConfigError: no adapter, not that one, in use, or of another MAC under the strict policy.

    """
    require_administrator()
    with open_machine() as machine, ExitStack() as closing:
        adapter = choose_adapter(installed_adapters(), options.adapter)
        tap = Tap.open(adapter)
        try:
            decision = decide_mac(options.mac_policy, identity, tap.mac())
            if decision.configure:
                tap = _configure_mac(machine, tap, decision.mac)
            closing.callback(tap.close)
        except BaseException:
            tap.close()
            raise
        luid = wait_for_interface(machine.ip, adapter.guid)
        _report(machine, tap, luid)
        yield PreparedAdapter(machine, tap, luid, decision.mac, options)


def _configure_mac(machine: Machine, tap: Tap, mac: Mac) -> Tap:
    """Give the adapter a MAC, restart it, and see that it has it; the former MAC is put back if it does not work.

    A MAC that works stays after the session: the next one needs no restart then.
    """
    adapter, former = tap.adapter, read_network_address(tap.adapter)
    tap.close()
    if adapter.instance is None:
        raise InterfaceError(
            f"the device behind the adapter {adapter.name!r} is not to be found, so it cannot be restarted",
            hint="set the MAC by hand in the adapter's properties (Advanced, MAC Address), or use --mac-policy adopt",
        )
    try:
        write_network_address(adapter, network_address(mac))
        restart_device(machine.journal, adapter.instance)
        reopened = _reopen(adapter)
        if (now := reopened.mac()) != mac:
            reopened.close()
            raise InterfaceError(
                f"the adapter {adapter.name!r} was told to have the MAC {mac}, and has {now} after a restart",
                hint="use --mac-policy adopt",
            )
    except BaseException:
        with contextlib.suppress(SoftlanError):
            write_network_address(adapter, former)
            restart_device(machine.journal, adapter.instance)
        raise
    log_event(
        logger, Event.ADAPTER_MAC, f"the adapter {adapter.name} has the MAC {mac} now", former=former, mac=mac
    )
    return reopened


def _reopen(adapter: InstalledAdapter) -> Tap:
    """Open an adapter that is just starting. Raises as `Tap.open`, once the time is up."""
    deadline = time.monotonic() + _REOPEN_S
    while True:
        try:
            return Tap.open(adapter)
        except InterfaceError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_SETTLE_S)


def _report(machine: Machine, tap: Tap, luid: int) -> None:
    """Log what is known of driver and interface (row X3)."""
    version = tap.version()
    warning = driver_warning(version)
    if warning is not None:
        log_event(logger, Event.ADAPTER_WARNING, warning[0], hint=warning[1])
    before = InterfaceMtuSnapshot.take(machine.ip, luid)
    log_event(
        logger,
        Event.ADAPTER_OPENED,
        f"opened the adapter {tap.adapter.name}, TAP-Windows6 {version}",
        interface=tap.adapter.name,
        guid=tap.adapter.guid,
        driver=version,
        driver_mac=tap.mac(),
        driver_mtu=tap.mtu(),
        ifindex=machine.ip.index_of_luid(luid),
        luid=f"{luid:#x}",
        ip_mtu=before.ipv4,
        ipv6_mtu=before.ipv6,
    )


def _relay_address(relay: str) -> Address:
    return plain_address(parse_host_port(relay).host)
