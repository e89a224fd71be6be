"""No tunnel at all: the client's cable leads right into the LAN's switch, with the kernel's offloads on or off."""

from __future__ import annotations

from softlan.lab import Player
from softlan.lab.host import Host
from softlan.lab.party import ADAPTER

from .site import CLIENT_MAC, Site
from .system import System, seat

_OFFLOADS = ("tso", "gso", "gro", "lro", "sg", "rx", "tx")


class KernelBridge(System):
    """The LAN itself: client, bridge, host."""

    name = "kernel-bridge"
    title = "kernel bridge"
    tunnel = False

    async def start(self, site: Site) -> Player:
        """Plug the client in; over the bad line, where there is one."""
        client = Host("ann")
        site.own(client)
        if site.line is None:
            site.lan.switch.plug(client, ADAPTER, mac=CLIENT_MAC)
        else:
            near = await site.run_line(site.lan.switch)
            site.lan.switch.namespace.ip(f"link set {near} netns {client.namespace.path}")
            client.ip(f"link set {near} name {ADAPTER}", f"link set {ADAPTER} address {CLIENT_MAC}")
        self.prepare(site, client)
        return await seat(site, client)

    def prepare(self, site: Site, client: Host) -> None:
        """Change cables before they are used."""


class KernelBridgePlain(KernelBridge):
    """The same with every offload of every cable off: the kernel then works frame by frame."""

    name = "kernel-bridge-plain"
    title = "kernel bridge, offloads off"
    programs = ("ethtool",)

    def prepare(self, site: Site, client: Host) -> None:
        """Switch the offloads off at both ends of both cables."""
        words = [word for offload in _OFFLOADS for word in (offload, "off")]
        switch = site.lan.switch.namespace
        told = switch.run(["ip", "-o", "link", "show", "master", "switch"])
        for line in told.splitlines():
            switch.run(["ethtool", "-K", line.split()[1].partition("@")[0].rstrip(":"), *words])
        client.run("ethtool", "-K", ADAPTER, *words)
        site.server.host.run("ethtool", "-K", ADAPTER, *words)
