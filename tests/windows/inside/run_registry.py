"""Under Wine: adapter discovery in a real registry, with keys as TAP-Windows6's INF leaves them, and others. JSON on stdout."""

from __future__ import annotations

import json
import winreg
from contextlib import ExitStack

from softlan.windows.errors import WindowsCallError
from softlan.windows.registry import (
    CLASS_KEY,
    NETWORK_KEY,
    InstalledAdapter,
    installed_adapters,
    read_network_address,
    write_network_address,
)

GUID = "{5f7a0009-50f7-4a1a-9a00-000000000009}"
KEYS = {
    rf"{CLASS_KEY}\0051": {
        "ComponentId": r"ROOT\TAP0901",
        "NetCfgInstanceId": GUID,
        "DriverVersion": "9.24.2.601",
    },
    rf"{CLASS_KEY}\0052": {
        "ComponentId": "wintun",
        "NetCfgInstanceId": "{5f7a0010-50f7-4a1a-9a00-000000000010}",
    },
    rf"{CLASS_KEY}\0053": {"ComponentId": "tap0901"},
    rf"{CLASS_KEY}\Properties": {"ComponentId": "tap0901", "NetCfgInstanceId": GUID},
    rf"{NETWORK_KEY}\{{5f7a0010-50f7-4a1a-9a00-000000000010}}\Connection": {"Name": "WireGuard"},
}


def main() -> None:
    """Print what is found, and what became of a MAC that was written and taken back."""
    with ExitStack() as stack:
        for path, values in KEYS.items():
            with winreg.CreateKey(winreg.HKEY_LOCAL_MACHINE, path) as key:
                for name, value in values.items():
                    winreg.SetValueEx(key, name, 0, winreg.REG_SZ, value)
            stack.callback(winreg.DeleteKey, winreg.HKEY_LOCAL_MACHINE, path)
        found = installed_adapters()
        adapter = next(adapter for adapter in found if adapter.key == "0051")
        macs = [read_network_address(adapter)]
        for value in ("02005E100001", None, None):
            write_network_address(adapter, value)
            macs.append(read_network_address(adapter))
    try:
        write_network_address(InstalledAdapter(guid=GUID, name="gone", key="9999"), "02005E100001")
        missing = None
    except WindowsCallError as error:
        missing = str(error)
    rows = [[it.key, it.guid, it.name, it.instance, it.driver_version, it.device_path] for it in found]
    print("RESULT " + json.dumps({"adapters": rows, "macs": macs, "missing": missing}))


main()
