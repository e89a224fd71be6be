r"""TAP-Windows6 adapters in the registry: which there are, what they are called, and the MAC they are told to have (rows T1, T2).

Every network adapter has a numbered key in the network class (SYSTEM\CurrentControlSet\Control\Class\{4D36E972-...}) with its component
id and its GUID (NetCfgInstanceId); its name as players see it lies in Control\Network under the GUID.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from softlan._core import Mac
from softlan.errors import ConfigError, InterfaceError
from softlan.windows.errors import ERROR_ACCESS_DENIED, call_error, require_windows

__all__ = [
    "InstalledAdapter",
    "choose_adapter",
    "installed_adapters",
    "read_network_address",
    "write_network_address",
]

NETWORK_CLASS = "{4D36E972-E325-11CE-BFC1-08002BE10318}"
"""GUID_DEVCLASS_NET (devguid.h)."""
CLASS_KEY = rf"SYSTEM\CurrentControlSet\Control\Class\{NETWORK_CLASS}"
NETWORK_KEY = rf"SYSTEM\CurrentControlSet\Control\Network\{NETWORK_CLASS}"
COMPONENT_IDS = frozenset({"tap0901", r"root\tap0901"})
"""What TAP-Windows6's INF gives, without and with its bus (compared in lower case)."""
_OWN_NAME = "softlan"
_ELSEWHERE = "installed_adapters, which comes first, has refused to run here"


@dataclass(frozen=True, slots=True)
class InstalledAdapter:
    """A TAP-Windows6 adapter. `key` is its numbered class key, `instance` its device instance id, None where it is not to be found."""

    guid: str
    name: str
    key: str
    instance: str | None = None
    driver_version: str | None = None
    network_address: str | None = None

    @property
    def device_path(self) -> str:
        r"""What CreateFile takes: \\.\Global\{GUID}.tap (row T2)."""
        return rf"\\.\Global\{self.guid}.tap"


def is_tap(component_id: object) -> bool:
    """Say whether a ComponentId is TAP-Windows6's."""
    return isinstance(component_id, str) and component_id.lower() in COMPONENT_IDS


def choose_adapter(adapters: Sequence[InstalledAdapter], wanted: str | None) -> InstalledAdapter:
    """Choose by name or GUID, case aside; without either the one there is, or the one called softlan. Pure.

    Raises:
        InterfaceError: there is none.
        ConfigError: there is none of that name, or several and nothing to choose by.

    """
    if not adapters:
        raise InterfaceError(
            "this machine has no TAP-Windows6 adapter",
            hint="install the TAP-Windows6 driver (9.27 or newer; OpenVPN's installer has it as a feature),"
            " then add an adapter with `tapctl create --name softlan`; docs/guides/windows.md shows each step",
        )
    names = ", ".join(repr(adapter.name) for adapter in adapters)
    if wanted is not None:
        folded = wanted.casefold()
        for adapter in adapters:
            if folded in (adapter.name.casefold(), adapter.guid.casefold()):
                return adapter
        raise ConfigError(f"there is no TAP adapter called {wanted!r}", hint=f"there is: {names}")
    if len(adapters) == 1:
        return adapters[0]
    own = [adapter for adapter in adapters if adapter.name.casefold().startswith(_OWN_NAME)]
    if len(own) == 1:
        return own[0]
    raise ConfigError("this machine has several TAP adapters", hint=f"choose one with --adapter: {names}")


def installed_adapters() -> list[InstalledAdapter]:
    """List the TAP-Windows6 adapters of this machine in the registry's order. Raises UnsupportedPlatformError elsewhere."""
    require_windows("the registry of network adapters")
    return list(_read_adapters())


def read_network_address(adapter: InstalledAdapter) -> str | None:
    """Read `NetworkAddress`, the MAC an adapter is told to have, as it stands there; None: not told."""
    if sys.platform != "win32":
        raise AssertionError(_ELSEWHERE)
    import winreg

    with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, rf"{CLASS_KEY}\{adapter.key}") as key:
        return _text(_value(key, "NetworkAddress"))


def write_network_address(adapter: InstalledAdapter, value: str | None) -> None:
    """Write `NetworkAddress` (12 hex digits), or remove it with None; the adapter obeys once restarted.

    Raises:
        WindowsPrivilegeError: without administrator rights.
        WindowsCallError: the registry refused otherwise.

    """
    if sys.platform != "win32":
        raise AssertionError(_ELSEWHERE)
    import winreg

    try:
        with winreg.OpenKey(
            winreg.HKEY_LOCAL_MACHINE, rf"{CLASS_KEY}\{adapter.key}", access=winreg.KEY_SET_VALUE
        ) as key:
            if value is not None:
                winreg.SetValueEx(key, "NetworkAddress", 0, winreg.REG_SZ, value)
            else:
                with contextlib.suppress(FileNotFoundError):
                    winreg.DeleteValue(key, "NetworkAddress")
    except OSError as error:
        code = error.winerror or ERROR_ACCESS_DENIED
        raise call_error("RegSetValueEx", code, f"write the MAC of adapter {adapter.name!r}") from error


def network_address(mac: Mac) -> str:
    """Write a MAC as `NetworkAddress` holds it: 12 hex digits."""
    return bytes(mac).hex().upper()


def _read_adapters() -> Iterator[InstalledAdapter]:
    if sys.platform != "win32":
        raise AssertionError(_ELSEWHERE)
    import winreg

    try:
        opened = winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, CLASS_KEY)
    except FileNotFoundError:
        return  # Not one network adapter was ever installed.
    with opened as class_key:
        for name in _subkeys(class_key):
            # "Properties" and "Configuration" stand beside the numbers; some of it only the system may open.
            with contextlib.suppress(OSError), winreg.OpenKey(class_key, name) as key:
                guid = _text(_value(key, "NetCfgInstanceId"))
                if not name.isdecimal() or guid is None or not is_tap(_value(key, "ComponentId")):
                    continue
                connection = _connection(guid)
                yield InstalledAdapter(
                    guid=guid.upper(),
                    name=connection.get("Name") or guid,
                    key=name,
                    instance=connection.get("PnPInstanceID") or _text(_value(key, "DeviceInstanceID")),
                    driver_version=_text(_value(key, "DriverVersion")),
                    network_address=_text(_value(key, "NetworkAddress")),
                )


def _connection(guid: str) -> dict[str, str | None]:
    """Read what the connection of an adapter is called; empty for one that is half removed."""
    if sys.platform != "win32":
        raise AssertionError(_ELSEWHERE)
    import winreg

    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, rf"{NETWORK_KEY}\{guid}\Connection") as key:
            return {name: _text(_value(key, name)) for name in ("Name", "PnPInstanceID")}
    except OSError:
        return {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _value(key: Any, name: str) -> object:
    """Read a value; None where there is none, or it may not be read."""
    if sys.platform != "win32":
        raise AssertionError(_ELSEWHERE)
    import winreg

    try:
        return winreg.QueryValueEx(key, name)[0]
    except OSError:
        return None


def _subkeys(key: Any) -> Iterator[str]:
    if sys.platform != "win32":
        raise AssertionError(_ELSEWHERE)
    import winreg

    for index in range(winreg.QueryInfoKey(key)[0]):
        with contextlib.suppress(OSError):
            yield winreg.EnumKey(key, index)
