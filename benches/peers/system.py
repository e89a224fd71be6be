"""What all systems under measurement have in common: a name, what they need installed, and how they are brought up."""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod

from softlan.lab import Player
from softlan.lab.host import Host, Station, mac_of
from softlan.lab.party import ADAPTER, tap_allowed

from .site import CLIENT_ADDRESS, CLIENT_MAC, Site


class System(ABC):
    """One way to bring a client onto a LAN. `start` builds it at a site; the site takes it away again."""

    name: str
    """What the command line and the results call it."""
    title: str
    """What tables and plots call it."""
    programs: tuple[str, ...] = ()
    """What has to be installed."""
    tunnel = True
    """Whether it is one: the others are bounds of what a tunnel could reach."""
    yardsticks = False
    """Whether it is made of the suite's own Rust program."""

    def missing(self) -> str | None:
        """Say what is not installed; None: all is there."""
        path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
        lacking = [program for program in self.programs if shutil.which(program, path=path) is None]
        return f"{', '.join(lacking)} not installed" if lacking else None

    @abstractmethod
    async def start(self, site: Site) -> Player:
        """Build it and give the client, which has an address and reaches the LAN's host."""


class Tunnel(System):
    """A tunnel with a TAP on the client and, on the gateway, one that is bridged with the LAN's interface."""

    def missing(self) -> str | None:
        """Say what is not installed or not allowed."""
        return super().missing() or (None if tap_allowed() else "/dev/net/tun cannot be opened")

    async def start(self, site: Site) -> Player:
        """Make the machines, let the tunnel connect, give the client its address."""
        relay, gateway, client = site.party.machine("relay"), site.gateway(), site.party.machine("ann")
        await site.lay_line(client)
        site.isolate()
        await self.connect(site, relay, gateway, client)
        return await seat(site, client)

    @abstractmethod
    async def connect(self, site: Site, relay: Host, gateway: Host, client: Host) -> None:
        """Start the programs; the client's TAP is `lan0` in the end, and the gateway's LAN is joined."""


async def seat(site: Site, client: Host) -> Player:
    """Give the client's adapter its address and wait until it reaches the LAN's host."""
    await site.appeared(client, ADAPTER)
    client.ip(f"link set {ADAPTER} up")
    station = Station(client, ADAPTER, mac_of(client, ADAPTER))
    station.set_address(f"{CLIENT_ADDRESS}/24")
    player = Player(station)
    await site.reached(player)
    return player


__all__ = ["CLIENT_ADDRESS", "CLIENT_MAC", "System", "Tunnel", "seat"]
