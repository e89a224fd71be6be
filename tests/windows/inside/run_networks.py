"""Under Wine: the Network List Manager through softlan's calls by place. JSON on stdout."""

from __future__ import annotations

import json
from collections.abc import Callable

from softlan.windows import profile
from softlan.windows.errors import WindowsCallError
from softlan.windows.profile import NetworkList

NOBODY = "{00000000-0000-0000-0000-000000000009}"


def failure(call: Callable[[], object]) -> str:
    """Say how a call fails."""
    try:
        return f"it did not fail: {call()}"
    except WindowsCallError as error:
        return str(error)


def main() -> None:
    """Print the adapters of all connections, and what is found by them."""
    networks, adapters = NetworkList(), []
    with profile._manager() as manager, manager.get(profile.MANAGER_GET_NETWORK_CONNECTIONS) as connections:
        while (connection := connections.next()) is not None:
            with connection:
                adapters.append(str(connection.guid(profile.CONNECTION_GET_ADAPTER_ID)))
    found = {adapter: networks.network_of(adapter) for adapter in adapters}
    report = {
        "adapters": adapters,
        "found": list(found),
        "categories": [networks.category(network) for network in found.values()],
        "unknown_adapter": failure(lambda: networks.network_of(NOBODY)),
        "unknown_network": failure(lambda: networks.category(NOBODY)),
    }
    print("RESULT " + json.dumps(report))


main()
