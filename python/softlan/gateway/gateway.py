"""The gateway's side of a session: a LAN interface bridged into the room, and the LAN's switches kept informed."""

from __future__ import annotations

import asyncio
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softlan._core import Bridge, Connection, CoreError, FrameLog, Mac, PacketSocket
from softlan.client.linux import port_error
from softlan.client.session import RelaySession, SessionConfig
from softlan.control.messages import PeerJoined, PeerLeft, Role, Welcome
from softlan.errors import InterfaceError, SoftlanError, UnsupportedPlatformError
from softlan.observe.events import Event
from softlan.observe.logs import log_event

__all__ = ["Gateway", "GatewayConfig", "interface_warnings"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig:
    """What the gateway bridges. `cam_refresh_s` None switches refresh frames off."""

    session: SessionConfig
    interface: str
    cam_refresh_s: float | None = 60.0
    frame_log: str = "off"
    frame_log_sample: int = 100


class Gateway:
    """A running gateway: `run` until `stop`."""

    def __init__(self, config: GatewayConfig) -> None:
        """Open the interface; nothing is sent or received yet.

        Raises:
            InterfaceError, PrivilegeError: the interface cannot be used, and what to do about it.
            UnsupportedPlatformError: not on Linux.

        """
        if sys.platform != "linux":
            raise UnsupportedPlatformError("the gateway runs on Linux only: it needs AF_PACKET")
        self.config = config
        try:
            device = PacketSocket.open(config.interface)
        except CoreError as error:
            raise port_error(error) from error
        for warning, hint in interface_warnings(config.interface):
            log_event(logger, Event.INTERFACE_WARNING, warning, interface=config.interface, hint=hint)
        self.frame_log = FrameLog(config.frame_log, sample=config.frame_log_sample)
        self._macs: dict[int, Mac] = {}
        self._failure: str | None = None
        try:
            self.session = RelaySession(config.session, self)
        except SoftlanError:
            device.close()
            raise
        self._bridge = Bridge.start(
            self.session.endpoint, device, self.frame_log, gateway=True, cam_refresh=config.cam_refresh_s
        )
        log_event(
            logger,
            Event.INTERFACE_READY,
            f"listening on {config.interface}, promiscuous",
            interface=config.interface,
        )

    @property
    def bridge(self) -> Bridge:
        """The bridge between interface and relay."""
        return self._bridge

    async def run(self) -> None:
        """Stay in the room until `stop`; see `RelaySession.run` for what it raises."""
        watches = [asyncio.create_task(work) for work in (self._watch_port(), self._watch_link())]
        try:
            await self.session.run()
            if self._failure is not None:
                raise InterfaceError(f"the LAN interface failed: {self._failure}")
        finally:
            for watch in watches:
                watch.cancel()
            self._bridge.close()

    async def _watch_port(self) -> None:
        """End the session when the interface is gone for good; one that is only down is waited for."""
        self._failure = await self._bridge.failed()
        self.session.stop()

    async def _watch_link(self) -> None:
        """Tell when the interface goes down and comes back; the port itself waits."""
        name = self.config.interface
        while True:
            if await self._bridge.up_changed():
                log_event(logger, Event.INTERFACE_UP, f"{name} is up again", interface=name)
            else:
                log_event(
                    logger,
                    Event.INTERFACE_DOWN,
                    f"{name} is down: players cannot reach the LAN until it is up again",
                    interface=name,
                    hint=f"`ip link set dev {name} up`, if somebody took it down",
                )

    def stop(self) -> None:
        """Leave the room; `run` returns soon."""
        self.session.stop()

    def snapshot(self) -> dict[str, Any]:
        """What `softlan status` shows."""
        return {
            "interface": self.config.interface,
            "remotes": [str(mac) for mac in self._macs.values()],
            "port_counters": self._bridge.port_counters(),
        }

    # What the session tells -------------------------------------------------------------------------------------------

    def joined(self, connection: Connection, welcome: Welcome) -> None:
        """Speak for the room's clients on the LAN from now on."""
        for peer in welcome.room.peers:
            if peer.role is Role.CLIENT and peer.mac is not None:
                self._add(peer.peer_id, peer.mac)
        self._bridge.attach(connection, welcome.peer_id, storm_limit=welcome.storm_limit)

    def lost(self) -> None:
        """Stop speaking for anybody."""
        self._bridge.detach()
        self._macs.clear()

    def peer_joined(self, peer: PeerJoined) -> None:
        """Speak for one more client."""
        if peer.mac is not None:
            self._add(peer.peer_id, peer.mac)

    def peer_left(self, peer: PeerLeft) -> None:
        """Speak for one client less, unless it has come back as another peer already."""
        mac = self._macs.pop(peer.peer_id, None)
        if mac is not None and mac not in self._macs.values():
            self._bridge.remove_remote(mac)

    def counters(self) -> dict[str, int]:
        """The tunnel counters."""
        return self._bridge.counters()

    def _add(self, peer_id: int, mac: Mac) -> None:
        if self._bridge.add_remote(mac):
            self._macs[peer_id] = mac
            return
        name = self.config.interface
        log_event(
            logger,
            Event.INTERFACE_WARNING,
            f"client {peer_id} says that it has the MAC {mac}, which is {name}'s own: nothing on the LAN is carried to it",
            interface=name,
            peer_id=peer_id,
            hint="by --virtual-mac a client has any MAC it likes; whoever takes this one may want to read what is for this machine",
        )


def interface_warnings(interface: str, sysfs: Path = Path("/sys/class/net")) -> list[tuple[str, str]]:
    """Find what will probably keep an interface from working as a gateway's: (what, what to do) each."""
    found = []
    here = sysfs / interface
    if (here / "wireless").exists() or (here / "phy80211").exists():
        found.append(
            (
                f"{interface} is wireless: access points refuse frames from the players' MAC addresses",
                "use a wired interface; players and the gateway's own machine may still work",
            )
        )
    driver = (here / "device" / "driver").resolve().name
    if driver in {"vmxnet3", "hv_netvsc", "virtio_net", "xen-netfront"}:
        found.append(
            (
                f"{interface} belongs to a virtual machine ({driver}): its virtual switch may drop the players' frames",
                "allow promiscuous mode and forged transmits (MAC address spoofing) in the hypervisor",
            )
        )
    return found
