"""Whoever sits on the party's Ethernet, with the sentences a lab says about them: `await ann.ping(server)`."""

from __future__ import annotations

from collections.abc import Sequence

from . import dhcp, probes
from .frames import FramePort
from .host import Host, Station


class Player:
    """A machine on the party's Ethernet, be it on the LAN itself or behind a softlan client."""

    def __init__(self, station: Station) -> None:
        self.station = station

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @property
    def name(self) -> str:
        """What people call the machine."""
        return self.station.name

    @property
    def host(self) -> Host:
        """The machine games run on."""
        return self.station.host

    @property
    def mac(self) -> bytes:
        """The 6 bytes of its MAC on the party's Ethernet."""
        return self.station.mac

    @property
    def address(self) -> str:
        """Its IPv4 address on the party's Ethernet; empty until it has one."""
        return self.station.address

    async def ping(
        self,
        other: Player,
        count: int = 5,
        *,
        size: int = 56,
        interval: float = 0.05,
        whole: bool = False,
        within: float = 2.0,
    ) -> probes.PingResult:
        """Ping another player; see `probes.ping`."""
        return await probes.ping(
            self.station, other.address, count, size=size, interval=interval, whole=whole, within=within
        )

    async def find_games(self, others: Sequence[Player]) -> dict[str, float]:
        """Ask at 255.255.255.255 who is there; see `probes.discover`."""
        return await probes.discover(self.station, [other.station for other in others])

    async def send_to(self, other: Player, *, seconds: float = 1.5) -> probes.TransferResult:
        """Send to another player over TCP; see `probes.transfer`."""
        return await probes.transfer(self.station, other.station, seconds=seconds)

    async def lease(self, within: float = 8.0) -> dhcp.Lease | None:
        """Get an address by DHCP and use it; None when no server answered."""
        lease = await dhcp.lease(self.station, within)
        if lease is not None:
            self.station.set_address(lease.cidr)
        return lease

    def frames(self, *, promiscuous: bool = True) -> FramePort:
        """Open a packet socket on its interface, to send and see raw frames."""
        return FramePort(self.station, promiscuous=promiscuous)
