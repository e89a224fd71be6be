"""LANs that are plugged together wrongly, and players that flood: found, broken, told, and the rest of the party plays on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Self

import pytest_asyncio

from softlan.lab import Party, Player, usual_party
from softlan.lab.host import mac_of
from softlan.lab.packets import BROADCAST, ethernet
from softlan.lab.party import ADAPTER, Client


@pytest_asyncio.fixture(loop_scope="session")
async def fresh_party() -> AsyncIterator[Party]:
    async with usual_party() as party:
        yield party


def bridge_with_lan(party: Party, client: Client) -> None:
    """Do what a player who knows just enough does: put the softlan adapter and the LAN's card into one bridge."""
    host = client.host
    party.lans["home"].switch.plug(host, "card")
    host.setting("ipv6/conf/default/disable_ipv6", "1")
    host.ip(
        f"addr flush dev {ADAPTER}",
        "link add name both type bridge mcast_snooping 0 forward_delay 0",
        "link set card master both",
        f"link set {ADAPTER} master both",
        "link set both up",
    )


async def test_a_lan_bridged_back_to_a_player_is_found_broken_and_told() -> None:
    async with usual_party() as party:
        assert party.relay is not None
        ann, ben, server = party.client("ann"), party.client("ben"), party.player("server")
        gateway = party.gateways["gateway"]
        assert (await ben.ping(server)).good
        bridge_with_lan(party, ann)
        # The LAN's machines and the players go on talking, as they do.
        for _ in range(5):
            await server.find_games([])
            await ben.find_games([])
        found = await party.relay.program.event("room.loop", 10)
        gateway_id = next(peer["peer_id"] for peer in await party.relay.peers() if peer["role"] == "gateway")
        assert sorted(found.fields["peers"]) == sorted([ann.peer_id, gateway_id])
        assert "connected outside the room" in found.fields["message"]
        assert "bridge" in found.fields["hint"]
        for part in (ann.part, gateway):
            told = await part.program.event("session.notice", 5, topic="loop")
            assert "connected outside the room" in told.fields["message"]
            assert any("connected outside" in notice for notice in (await part.status())["notices"])
        assert (await ben.part.status())["notices"] == []
        # Nothing goes round: when nobody says anything, next to nothing passes.
        before = await party.relay.counters()
        await asyncio.sleep(1)
        after = await party.relay.counters()
        assert after["frames_received"] - before["frames_received"] < 100, (before, after)
        # The rest of the party plays on, broadcasts included.
        assert (await ben.ping(server, 20)).good
        assert (await server.ping(ben, 20)).good
        assert set(await ben.find_games([server])) == {"server"}
        await ann.part.stop()
        await party.relay.program.event("room.calm", 5, topic="loop")
        assert (await gateway.status())["notices"] == []


class Storm:
    """Broadcasts of one machine without end, some thousands a second, while it is entered; small ones, to stay within limits in bits."""

    def __init__(self, sender: Player) -> None:
        self.sent = 0
        self.lasted = 0.0
        self._sender = sender
        self._is_on = True

    async def __aenter__(self) -> Self:
        self._began = time.monotonic()
        self._task = asyncio.create_task(self._blow())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_on = False
        await self._task
        self.lasted = time.monotonic() - self._began

    async def _blow(self) -> None:
        with self._sender.frames() as port:
            while self._is_on:
                for _ in range(50):
                    payload = self.sent.to_bytes(4, "big") + bytes(42)
                    port.send(ethernet(BROADCAST, self._sender.mac, 0x88B5, payload))
                    self.sent += 1
                await asyncio.sleep(0.005)


async def test_a_storm_is_contained_and_told(fresh_party: Party) -> None:
    party = fresh_party
    assert party.relay is not None
    ann, ben, server = party.client("ann"), party.client("ben"), party.player("server")
    before = (await server.ping(ann, 5)).good
    assert before
    async with Storm(ben) as storm:
        began = await party.relay.program.event("room.storm", 10)
        assert began.fields["peers"] == [ben.peer_id]
        assert (
            "flood the room with broadcasts"
            in (await ben.program.event("session.notice", 5)).fields["message"]
        )
        # Everybody else: unicast and broadcasts, from a client and from the LAN.
        assert (await ann.ping(server, 20)).good
        assert (await server.ping(ann, 20)).good
        assert set(await ann.find_games([server])) == {"server"}
        # Even the one who floods keeps unicast.
        assert (await ben.ping(server, 10)).received > 0
    told = await party.relay.peer_counters(ben.peer_id)
    held_back = (await ben.part.counters())["drop_storm"]
    passed = storm.sent - held_back - told["drop_storm"] - told["drop_limit_broadcast"]
    assert told["drop_storm"] > 0
    assert held_back > 0
    assert passed <= 500 * (storm.lasted + 1) + 50, (storm.sent, storm.lasted, held_back, told)
    assert (await party.relay.peer_counters(ann.peer_id))["drop_storm"] == 0
    over = await party.relay.program.event("room.calm", 15, topic="storm")
    assert f"{told['drop_storm']} frames were dropped" in over.fields["message"]


async def test_a_storm_on_the_lan_is_contained_before_the_gateways_line(fresh_party: Party) -> None:
    """As a switch at home has it with both ends of a cable in it: the gateway sends up what the relay takes, and a quarter."""
    party = fresh_party
    assert party.relay is not None
    ann, server, gateway = party.client("ann"), party.player("server"), party.gateways["gateway"]
    assert (await server.ping(ann, 5)).good
    gateway_id = next(peer["peer_id"] for peer in await party.relay.peers() if peer["role"] == "gateway")
    async with Storm(server) as storm:
        # The relay sees it all the same, and tells.
        began = await party.relay.program.event("room.storm", 10)
        assert began.fields["peers"] == [gateway_id]
        await gateway.program.event("session.notice", 5, topic="storm")
        assert (await ann.ping(server, 20)).good
        assert (await server.ping(ann, 20)).good
        async with asyncio.timeout(20):
            while (await gateway.counters())["drop_storm"] == 0:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.1)
    came = await party.relay.peer_counters(gateway_id)
    # 2000 a second and a quarter, and as many at once; the pings and what else a LAN says beside it.
    assert came["frames_received"] <= 2500 * (storm.lasted + 1) + 200, (storm.sent, storm.lasted, came)
    assert came["drop_storm"] > 0
    assert (await party.relay.peer_counters(ann.peer_id))["drop_storm"] == 0
    await party.relay.program.event("room.calm", 15, topic="storm")


async def test_nobody_speaks_arp_in_anothers_name(fresh_party: Party) -> None:
    """A frame with an honest Ethernet source and a lie inside; the same sender's honest announcement passes."""
    party = fresh_party
    assert party.relay is not None
    ann, ben, server = party.client("ann"), party.client("ben"), party.player("server")

    def announcement(ethernet_source: bytes, sender: bytes) -> bytes:
        address = bytes([192, 168, 88, 52])
        arp = bytes.fromhex("0001080006040001") + sender + address + bytes(6) + address
        return ethernet(BROADCAST, ethernet_source, 0x0806, arp + bytes(18))

    lie, truth = announcement(ann.mac, ben.mac), announcement(ann.mac, ann.mac)
    from_lan, lan_truth = announcement(server.mac, ben.mac), announcement(server.mac, server.mac)
    with party.client("ben").frames() as ear, ann.frames() as mouth, server.frames() as lan:
        for frame in (lie, truth):
            mouth.send(frame)
        for frame in (from_lan, lan_truth):
            lan.send(frame)
        heard = await ear.seen([truth, lan_truth, lie, from_lan], 3.0)
        assert sorted(heard) == sorted([truth, lan_truth])
    assert (await party.relay.peer_counters(ann.peer_id))["drop_arp_spoof"] == 1
    gateway = next(peer for peer in await party.relay.peers() if peer["role"] == "gateway")
    assert gateway["counters"]["drop_arp_spoof"] == 1


async def test_the_gateways_own_mac_is_no_players(fresh_party: Party) -> None:
    """A player joins with the MAC of the gateway's card, and hears nothing of what the LAN says to the gateway's machine."""
    party = fresh_party
    gateway, server = party.gateways["gateway"], party.player("server")
    own = mac_of(gateway.host, ADAPTER)
    mac = own.hex(":")
    since = gateway.program.mark()
    mallory = await party.start_client("mallory", mac=mac)
    told = await gateway.program.event("interface.warning", 5, since=since)
    assert mac in told.fields["message"]
    assert str(mallory.peer_id) in told.fields["message"]
    assert mac not in (await gateway.status())["remotes"]
    secret = ethernet(own, server.mac, 0x88B5, b"for the gateway's machine".ljust(46))
    public = ethernet(BROADCAST, server.mac, 0x88B5, b"for everybody".ljust(46))
    with mallory.frames() as ear, server.frames() as lan:
        for frame in (secret, public):
            lan.send(frame)
        assert await ear.seen([public, secret], 3.0) == [public]


async def test_an_ip_address_that_two_use_is_told_to_both() -> None:
    """Ann takes ben's address beside her own; both answer the server's ARP requests, as their kernels do."""
    async with usual_party() as party:
        assert party.relay is not None
        ann, ben, server = party.client("ann"), party.client("ben"), party.player("server")
        for source, target in ((ann, ben), (ben, server), (server, ann)):
            assert (await source.ping(target)).good
        since = party.relay.program.mark()
        ann.host.ip(f"addr add {ben.address}/24 dev {ADAPTER}")
        for _ in range(5):
            server.host.ip("neigh flush all")
            await server.ping(ben, 1)
        told = await party.relay.program.event("room.conflict", 5, since=since)
        assert sorted(told.fields["peers"]) == sorted([ann.peer_id, ben.peer_id])
        assert f"both use the IP address {ben.address}" in told.fields["message"]
        assert "another address" in told.fields["hint"]
        for client in (ann, ben):
            notice = await client.program.event("session.notice", 5)
            assert f"both use the IP address {ben.address}" in notice.fields["message"]
        # It is told, and nothing else: nobody lost a frame for it.
        for client in (ann, ben):
            counters = await party.relay.peer_counters(client.peer_id)
            assert counters["drop_arp_spoof"] == counters["drop_source_foreign"] == 0
        assert (await ann.ping(server, 5)).good
        since = party.relay.program.mark()
        await ann.part.stop()
        await party.relay.program.event("room.calm", 5, since=since, topic="address-conflict")
        assert (await ben.part.status())["notices"] == []
