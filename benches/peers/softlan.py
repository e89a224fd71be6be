"""softlan itself: its own commands, as the lab runs them."""

from __future__ import annotations

from softlan.lab import Player

from .site import CLIENT_ADDRESS, CLIENT_MAC, Site
from .system import System


class Softlan(System):
    """Relay, gateway and client with their defaults."""

    name = "softlan"
    title = "softlan"

    async def start(self, site: Site) -> Player:
        """Start the three commands as a user would."""
        party = site.party
        await party.start_relay()
        await party.start_gateway("gateway", site.lan)
        client = party.make_client("ann", mac=CLIENT_MAC)
        await site.lay_line(client.machine)
        site.isolate()
        await client.start()
        client.station.set_address(f"{CLIENT_ADDRESS}/24")
        await site.reached(client)
        return client
