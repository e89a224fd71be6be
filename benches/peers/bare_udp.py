"""A tunnel of bare UDP without crypto, frame by frame and with offloads: bounds of what a tunnel could reach."""

from __future__ import annotations

from softlan.lab.host import Host
from softlan.lab.party import ADAPTER

from .site import CLIENT_MAC, LAN_TAP, Site, wan_address
from .system import Tunnel
from .yardsticks import YARDSTICKS, until_said

_PORT = 4000
_CLIENT_MTU = "1458"
"""So that a frame with its 14-byte header fits one datagram on a path of 1500 bytes."""
_GATEWAY_MAC = "02:50:4c:00:00:50"


class BareUdp(Tunnel):
    """TAP over bare UDP as tunnels are usually written: one read and one send a frame, the gateway bridges."""

    name = "bare-udp"
    title = "bare UDP"
    tunnel = False
    yardsticks = True

    async def connect(self, site: Site, relay: Host, gateway: Host, client: Host) -> None:
        """Start the relay and both ends, and bridge."""
        where = await _relay(site, relay)
        await _end(site, gateway, "frames", where, LAN_TAP, _GATEWAY_MAC, "1500")
        await _end(site, client, "frames", where, ADAPTER, CLIENT_MAC, _CLIENT_MTU)
        site.bridge(gateway)


class BareUdpOffloads(Tunnel):
    """softlan's own data path with crypto and QUIC taken out: its ports, and many datagrams a system call."""

    name = "bare-udp-offloads"
    title = "bare UDP, offloads"
    tunnel = False
    yardsticks = True

    async def connect(self, site: Site, relay: Host, gateway: Host, client: Host) -> None:
        """Start the relay and both ends; the gateway's reads its LAN's interface itself."""
        where = await _relay(site, relay)
        await _end(site, gateway, "offloads", where, ADAPTER, _GATEWAY_MAC, "1500")
        await _end(site, client, "offloads", where, f"tap:{ADAPTER}", CLIENT_MAC, _CLIENT_MTU)


async def _relay(site: Site, host: Host) -> str:
    where = f"{wan_address(host)}:{_PORT}"
    await until_said(await site.program(host, "relay", str(YARDSTICKS), "relay", where))
    return where


async def _end(site: Site, host: Host, *arguments: str) -> None:
    await until_said(await site.program(host, host.name, str(YARDSTICKS), *arguments))
