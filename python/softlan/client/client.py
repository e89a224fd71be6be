"""The client's side of a session: a player's virtual adapter, bridged into the room, that stays up through reconnects."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from softlan._core import Bridge, Connection, FrameLog, tap_mtu_for_datagram
from softlan.client.adapter import Adapter
from softlan.client.session import RelaySession, SessionConfig
from softlan.control.messages import PeerFacts, PeerJoined, PeerLeft, Role, Welcome
from softlan.errors import InterfaceError
from softlan.observe import status
from softlan.observe.events import Event
from softlan.observe.logs import log_event

__all__ = ["Client", "ClientConfig"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """What the client plugs in.

    `make_adapter` makes the adapter, up, with the given MTU in bytes, once the room is entered; it is also told the relay's address,
    `IP:PORT`, which must stay reachable without the adapter.
    """

    session: SessionConfig
    make_adapter: Callable[[int, str], Adapter]
    frame_log: str = "off"
    frame_log_sample: int = 100


class Client:
    """A running client: `run` until `stop`."""

    def __init__(self, config: ClientConfig) -> None:
        self.config = config
        self.session = RelaySession(config.session, self)
        self.frame_log = FrameLog(config.frame_log, sample=config.frame_log_sample)
        self._adapter: Adapter | None = None
        self._bridge: Bridge | None = None
        self._mtu = 0
        self._watch: asyncio.Task[None] | None = None
        self._failure: str | None = None
        self._peers: dict[int, PeerFacts | PeerJoined] = {}

    @property
    def bridge(self) -> Bridge | None:
        """The bridge between adapter and relay; None before the room is entered for the first time."""
        return self._bridge

    async def run(self) -> None:
        """Stay in the room until `stop`; see `RelaySession.run` for what it raises, and the adapter's own errors."""
        try:
            await self.session.run()
            if self._failure is not None:
                raise InterfaceError(f"the network adapter failed: {self._failure}")
        finally:
            if self._watch is not None:
                self._watch.cancel()
            if self._bridge is not None:
                self._bridge.close()
            if self._adapter is not None:
                name = self._adapter.name
                self._adapter.close()
                log_event(
                    logger, Event.ADAPTER_REMOVED, f"removed the network adapter {name}", interface=name
                )

    async def _watch_port(self, bridge: Bridge) -> None:
        """End the session when the adapter is gone for good: a player without one is no player."""
        self._failure = await bridge.failed()
        self.session.stop()

    def stop(self) -> None:
        """Leave the room; `run` returns soon."""
        self.session.stop()

    def snapshot(self) -> dict[str, Any]:
        """What `softlan status` shows."""
        name = None if self._adapter is None else self._adapter.name
        return {
            "interface": name,
            "mac": str(self.config.session.mac),
            "tap_mtu": self._mtu or None,
            "peers": [
                {
                    "peer_id": peer.peer_id,
                    "role": peer.role.value,
                    "mac": None if peer.mac is None else str(peer.mac),
                }
                for peer in self._peers.values()
            ],
            "port_counters": {} if self._bridge is None else self._bridge.port_counters(),
        }

    # What the session tells -------------------------------------------------------------------------------------------

    def joined(self, connection: Connection, welcome: Welcome) -> None:
        """Plug the adapter in; the first time it is made, later its MTU follows the room's if that is a new room's."""
        room = welcome.room.code
        if self._adapter is None or self._bridge is None:
            self._adapter = self.config.make_adapter(welcome.tap_mtu, connection.remote_address)
            self._bridge = Bridge.start(
                self.session.endpoint,
                self._adapter.device,
                self.frame_log,
                loopback=self.config.session.mac,
            )
            self._watch = asyncio.create_task(self._watch_port(self._bridge))
            self._mtu = welcome.tap_mtu
            mac = self.config.session.mac
            assert mac is not None
            ready = status.AdapterReady(self._adapter.name, mac, welcome.tap_mtu)
            step = self._adapter.next_step
            log_event(
                logger,
                Event.ADAPTER_READY,
                status.say(ready),
                interface=self._adapter.name,
                mac=mac,
                tap_mtu=welcome.tap_mtu,
                **({} if step is None else {"hint": step}),
            )
        else:
            self._adapter.relay_moved(connection.remote_address)
            if self._mtu != welcome.tap_mtu:
                self._adapter.set_mtu(welcome.tap_mtu)
                self._mtu = welcome.tap_mtu
        self._bridge.attach(connection, welcome.peer_id, storm_limit=welcome.storm_limit)
        self._peers = {peer.peer_id: peer for peer in welcome.room.peers}
        self._say_once(status.GatewayJoined(room) if welcome.room.gateway else status.NoGateway(room))
        budget = connection.max_datagram_size
        if budget is not None and tap_mtu_for_datagram(budget) < welcome.tap_mtu:
            small = status.PathMtuSmall(budget, welcome.tap_mtu)
            log_event(
                logger, Event.PATH_MTU, status.say(small), datagram_budget=budget, tap_mtu=welcome.tap_mtu
            )

    def lost(self) -> None:
        """Leave the adapter up, without a cable."""
        self._peers.clear()
        if self._bridge is not None:
            self._bridge.detach()

    def peer_joined(self, peer: PeerJoined) -> None:
        """Tell the player about gateways; other players are in the log already."""
        self._peers[peer.peer_id] = peer
        if peer.role is Role.GATEWAY:
            self._say_once(status.GatewayJoined(self.config.session.room))

    def peer_left(self, peer: PeerLeft) -> None:
        """Tell the player when the LAN is gone."""
        left = self._peers.pop(peer.peer_id, None)
        if left is not None and left.role is Role.GATEWAY:
            self._say_once(status.GatewayLeft(self.config.session.room))

    def counters(self) -> dict[str, int]:
        """The tunnel counters."""
        return {} if self._bridge is None else self._bridge.counters()

    def _say_once(self, state: status.State) -> None:
        hint = status.suggest(state)
        fields = {} if hint is None else {"hint": hint}
        log_event(logger, Event.SESSION_STATUS, status.say(state), **fields)
