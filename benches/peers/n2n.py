"""n2n through its supernode: both edges are kept from each other, so that the supernode relays."""

from __future__ import annotations

from softlan.lab.host import Host

from .site import CLIENT_ADDRESS, CLIENT_MAC, LAN_TAP, Site, wan_address
from .system import Tunnel
from .yardsticks import until_said

_PORT = 7654


class N2n(Tunnel):
    """n2n 1 as Debian has it, twofish, its own MTU of 1400."""

    name = "n2n"
    title = "n2n"
    programs = ("edge", "supernode")

    async def connect(self, site: Site, relay: Host, gateway: Host, client: Host) -> None:
        """Start the supernode and both edges, and bridge."""
        # An edge registers once and then not for half a minute: the supernode has to be there.
        await until_said(await site.program(relay, "relay", "supernode", "-l", str(_PORT)), "Supernode ready")
        where = f"{wan_address(relay)}:{_PORT}"
        seats = (
            (gateway, LAN_TAP, "192.168.88.50", "02:50:4c:00:00:50"),
            (client, "lan0", CLIENT_ADDRESS, CLIENT_MAC),
        )
        for host, tap, address, mac in seats:
            options = ["-d", tap, "-a", address, "-s", "255.255.255.0", "-m", mac]
            await site.program(
                host, host.name, "edge", *options, "-c", "party", "-k", "a key both have", "-l", where, "-r"
            )
            await site.appeared(host, tap)
        gateway.ip(f"addr flush dev {LAN_TAP}")
        site.bridge(gateway)
