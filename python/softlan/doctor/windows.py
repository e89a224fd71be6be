"""The machine's own side on Windows: rights, the TAP-Windows6 adapter, the network's profile, the firewall. Nothing is changed."""

from __future__ import annotations

import sys

from softlan.doctor.findings import Check, Finding, Grade, from_error
from softlan.errors import SoftlanError
from softlan.windows.devices import require_administrator
from softlan.windows.errors import WindowsCallError
from softlan.windows.profile import PRIVATE, NetworkList
from softlan.windows.registry import InstalledAdapter, choose_adapter, installed_adapters
from softlan.windows.tap import Tap, driver_warning

__all__ = ["judge_firewall", "judge_profile", "look_at_windows"]

_PROFILES = r"SYSTEM\CurrentControlSet\Services\SharedAccess\Parameters\FirewallPolicy"
"""Where Windows' firewall keeps whether it is on, by profile (HKEY_LOCAL_MACHINE)."""

_KEYS = {"public": "PublicProfile", "private": "StandardProfile"}


def look_at_windows(wanted: str | None, *, playing: bool = False) -> list[Finding]:
    """Look at all of it; `wanted` is the adapter's name or GUID."""
    found: list[Finding] = []
    try:
        require_administrator()
    except SoftlanError as error:
        found.append(from_error(Check.ADAPTER, error))
    try:
        adapter = choose_adapter(installed_adapters(), wanted)
    except SoftlanError as error:
        return [*found, from_error(Check.ADAPTER, error)]
    if not found:
        found += _try_adapter(adapter, playing=playing)
    profile = _profile(adapter)
    return [*found, judge_profile(profile), judge_firewall(_firewall_on(profile), profile)]


def _try_adapter(adapter: InstalledAdapter, *, playing: bool) -> list[Finding]:
    try:
        with Tap.open(adapter) as tap:
            version, mac = tap.version(), tap.mac()
    except SoftlanError as error:
        if playing:
            # The client has it, and that is as it should be: nothing is to be stopped.
            return [Finding(Check.ADAPTER, Grade.SKIPPED, f"not tried: softlan plays here already ({error})")]
        return [from_error(Check.ADAPTER, error)]
    warning = driver_warning(version)
    if warning is not None:
        return [Finding(Check.ADAPTER, Grade.POOR, *warning)]
    says = f"{adapter.name!r} can be opened: TAP-Windows6 {version}, MAC {mac}"
    return [Finding(Check.ADAPTER, Grade.GOOD, says, facts={"interface": adapter.name, "mac": str(mac)})]


def judge_profile(category: int | None) -> Finding:
    """Judge the profile of the adapter's network (NLM_NETWORK_CATEGORY); None: it has none while no cable is plugged. Pure."""
    if category is None:
        says = "the adapter is on no network now: Windows makes up its mind when a client is in a room"
        return Finding(
            Check.PROFILE, Grade.SKIPPED, says, "`softlan join --private-network` makes it private"
        )
    if category < PRIVATE:
        return Finding(
            Check.PROFILE,
            Grade.POOR,
            "the party's network is public for Windows, so its firewall hides this machine from the others",
            "join with --private-network (or --game-mode), or set the network to private in Windows' settings",
        )
    return Finding(Check.PROFILE, Grade.GOOD, "the party's network is private for Windows")


def judge_firewall(on: bool | None, category: int | None) -> Finding:
    """Judge Windows' firewall on the profile that counts for the adapter. Pure."""
    profile = "private" if category is not None and category >= PRIVATE else "public"
    if on is None:
        return Finding(Check.FIREWALL, Grade.SKIPPED, "Windows does not say whether its firewall is on")
    if not on:
        return Finding(Check.FIREWALL, Grade.GOOD, f"Windows' firewall is off on {profile} networks")
    if profile == "private":
        says = "Windows' firewall is on; on private networks it lets in games that were allowed there"
        return Finding(Check.FIREWALL, Grade.GOOD, says, facts={"on": True})
    return Finding(
        Check.FIREWALL,
        Grade.POOR,
        "Windows' firewall is on and takes the party for a public network: others cannot reach games hosted here",
        "join with --private-network, and allow the game when Windows asks",
        {"on": True},
    )


def _profile(adapter: InstalledAdapter) -> int | None:
    networks = NetworkList()
    try:
        return networks.category(networks.network_of(adapter.guid))
    except (WindowsCallError, OSError):
        # Wine and stripped editions of Windows have no such manager; what is not known is no fault.
        return None


def _firewall_on(category: int | None) -> bool | None:
    if sys.platform != "win32":
        return None
    import winreg

    key = _KEYS["private" if category is not None and category >= PRIVATE else "public"]
    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, rf"{_PROFILES}\{key}") as opened:
            value, _ = winreg.QueryValueEx(opened, "EnableFirewall")
    except OSError:
        return None
    return bool(value)
