"""What a LAN is for: everyone reaches everyone, by unicast, broadcast and multicast, whatever the frame's kind and size."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import re
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from softlan.lab import Party, Player, Program
from softlan.lab.host import Station
from softlan.lab.packets import BROADCAST, ethernet, mac_text, udp_frame

SEATS = ("ann", "ben", "server")
PAIRS = list(itertools.permutations(SEATS, 2))


@pytest.mark.parametrize(("source", "target"), PAIRS, ids=[f"{a}-to-{b}" for a, b in PAIRS])
async def test_ping_40_of_40(party: Party, tool: Any, source: str, target: str) -> None:
    said = await tool(
        party.player(source), "ping", "-i", "0.05", "-c", "40", "-q", party.player(target).address
    )
    print(said)
    assert "40 packets transmitted, 40 received" in said


@pytest.mark.parametrize("name", ["ann", "ben"])
async def test_the_lans_own_1500_byte_packets_arrive_whole(party: Party, tool: Any, name: str) -> None:
    command = ["ping", "-i", "0.05", "-c", "5", "-q", "-s", "1472", "-M", "do", party.client(name).address]
    said = await tool(party.player("server"), *command)
    assert "5 packets transmitted, 5 received" in said


async def test_udp_datagrams_larger_than_the_mtu(party: Party) -> None:
    server, ann = party.player("server"), party.client("ann")
    payload = bytes(index * 7 & 0xFF for index in range(8000))
    loop = asyncio.get_running_loop()
    for source, target in ((server, ann), (ann, server)):
        with source.host.socket() as out, target.host.socket() as into:
            into.bind((target.address, 4000))
            await loop.sock_sendto(out, payload, (target.address, 4000))
            assert await asyncio.wait_for(loop.sock_recv(into, 65535), 5) == payload


@pytest.mark.parametrize(("source", "target"), [("ann", "ben"), ("ann", "server"), ("server", "ann")])
async def test_udp_to_255_255_255_255_is_heard(party: Party, source: str, target: str) -> None:
    speaker, listener = party.player(source), party.player(target)
    loop = asyncio.get_running_loop()
    with speaker.host.socket() as out, listener.host.socket() as into:
        into.bind(("", 6112))
        out.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        out.bind((speaker.address, 0))
        await loop.sock_sendto(out, b"a game", ("255.255.255.255", 6112))
        data, (address, _) = await asyncio.wait_for(loop.sock_recvfrom(into, 2048), 5)
    assert (data, address) == (b"a game", speaker.address)


async def test_games_find_each_other_from_every_seat(party: Party) -> None:
    players = [party.player(name) for name in SEATS]
    for seeker in players:
        others = [player for player in players if player is not seeker]
        found = await seeker.find_games(others)
        print(seeker.name, found)
        assert set(found) == {other.name for other in others}


def odd_frames(source: bytes) -> dict[str, bytes]:
    """Frames that a switch has to pass although no IP host makes them."""
    mdns = bytes.fromhex("01005e0000fb")
    ipx = (
        bytes.fromhex("ffff0022000400000000ffffffffffff045200000000")
        + source
        + bytes.fromhex("040600010000000000")
    )
    return {
        "mdns": udp_frame(
            (mdns, source), ("192.168.88.51", 5353), ("224.0.0.251", 5353), b"\0\0\0\0\0\x01" + bytes(20)
        ),
        "ipx-802.3": ethernet(BROADCAST, source, len(ipx), ipx.ljust(46, b"\0")),
        "ipx-802.2": ethernet(BROADCAST, source, len(ipx) + 3, b"\xe0\xe0\x03" + ipx.ljust(43, b"\0")),
        "ipx-ethernet-ii": ethernet(BROADCAST, source, 0x8137, ipx.ljust(46, b"\0")),
        "netbeui-snap": ethernet(BROADCAST, source, 50, b"\xf0\xf0\x03" + bytes(47)),
        "vlan": ethernet(BROADCAST, source, 0x88B5, b"tagged".ljust(46), (0x8100, 0x2005)),
        "qinq": ethernet(BROADCAST, source, 0x88B5, b"twice".ljust(46), (0x88A8, 7), (0x8100, 0x6005)),
        "vlan-full-size": ethernet(BROADCAST, source, 0x88B5, bytes(range(250)) * 6, (0x8100, 5)),
        "header-only": ethernet(BROADCAST, source, 0x88B5, b""),
        "small": ethernet(BROADCAST, source, 0x88B5, b"not padded"),
        "full-size": ethernet(BROADCAST, source, 0x88B5, bytes(range(250)) * 6),
    }


@pytest.mark.parametrize("kind", list(odd_frames(bytes(6))))
@pytest.mark.parametrize("source", ["ann", "server"])
async def test_odd_frames_pass_unchanged(party: Party, source: str, kind: str) -> None:
    speaker = party.player(source)
    frame = odd_frames(speaker.mac)[kind]
    if source == "ann" and "full-size" in kind:
        _raise_mtu(party, "ann", 1500)
    with contextlib.ExitStack() as stack:
        ears = [stack.enter_context(party.player(name).frames()) for name in SEATS if name != source]
        stack.enter_context(speaker.frames()).send(frame)
        for ear in ears:
            got = await ear.expect(lambda seen: _same(seen, frame))
            assert got is not None, f"{ear.station.name} did not get it"


def _same(seen: bytes, sent: bytes) -> bool:
    """A short frame may have been padded to 60 bytes on its way, as real Ethernet does."""
    return seen == sent or (len(sent) < 60 and seen == sent.ljust(60, b"\0"))


def _raise_mtu(party: Party, name: str, mtu: int) -> None:
    client = party.client(name)
    client.host.ip(f"link set {client.station.interface} mtu {mtu}")
    if client.attached:
        client.machine.ip(f"link set cable0 mtu {mtu}")


@pytest.mark.parametrize("gro", ["off", "on"])
async def test_tcp_arrives_unchanged_with_offloads_on(party: Party, tool: Any, gro: str) -> None:
    """Segmentation offload is the kernel's default everywhere; GRO on a veth is not, but on real NICs it is."""
    server, ann, ben = party.player("server"), party.client("ann"), party.client("ben")
    gateway = Player(Station(party.gateways["gateway"].host, "lan0", b""))
    await tool(gateway, "ethtool", "-K", "lan0", "gro", gro)
    for player in (server, gateway):
        features = await tool(player, "ethtool", "-k", "lan0")
        assert "tcp-segmentation-offload: on" in features
        assert "tx-checksumming: on" in features
    assert f"generic-receive-offload: {gro}" in features
    data = hashlib.shake_256(b"softlan").digest(8_000_000)
    try:
        for source, target in ((server, ann), (ann, server), (ann, ben)):
            assert await _carry(source, target, data) == hashlib.sha256(data).hexdigest()
    finally:
        await tool(gateway, "ethtool", "-K", "lan0", "gro", "off")


async def _carry(source: Player, target: Player, data: bytes) -> str:
    loop = asyncio.get_running_loop()
    digest = hashlib.sha256()
    with (
        source.host.socket(kind=socket.SOCK_STREAM) as out,
        target.host.socket(kind=socket.SOCK_STREAM) as door,
    ):
        door.bind((target.address, 0))
        door.listen(1)

        async def receive() -> None:
            accepted, _ = await loop.sock_accept(door)
            with accepted:
                while piece := await loop.sock_recv(accepted, 1 << 18):
                    digest.update(piece)

        receiving = asyncio.create_task(receive())
        await asyncio.wait_for(loop.sock_connect(out, door.getsockname()), 5)
        await asyncio.wait_for(loop.sock_sendall(out, data), 60)
        out.shutdown(socket.SHUT_WR)
        await asyncio.wait_for(receiving, 60)
    return digest.hexdigest()


@pytest.mark.parametrize(("source", "target"), [("ann", "server"), ("server", "ann"), ("ann", "ben")])
async def test_iperf3(
    party: Party, tool: Any, needs: Callable[[str], None], source: str, target: str
) -> None:
    needs("iperf3")
    sink = party.player(target)
    server = Program(
        sink.host, "iperf3", ["iperf3", "--server", "--one-off", "--forceflush", "--bind", sink.address]
    )
    await server.start()
    try:
        for _ in range(200):
            if any("listening" in line for line in server.lines):
                break
            await asyncio.sleep(0.05)
        said = await tool(party.player(source), "iperf3", "--client", sink.address, "--time", "3", "--json")
    finally:
        await server.stop()
    end = json.loads(said)["end"]
    received, retransmits = end["sum_received"], end["sum_sent"].get("retransmits")
    print(
        f"iperf3 {source} -> {target}: {received['bits_per_second'] / 1e6:.0f} Mbit/s, {retransmits} retransmits"
    )
    assert received["bytes"] > 1_000_000


async def test_the_control_plane_lives_while_data_saturates(party: Party) -> None:
    """QUIC sends datagrams before stream data; softlan must see to it that control messages get their turn."""
    ann, ben, server = party.client("ann"), party.client("ben"), party.player("server")
    moving = asyncio.create_task(ann.send_to(server, seconds=4))
    since = ben.program.mark()
    await asyncio.sleep(1)
    newcomer = await party.start_client("newcomer")
    joined = await ann.program.event("peer.joined", 2, peer_id=newcomer.peer_id)
    assert await newcomer.part.stop() == 0
    await ann.program.event("peer.left", 2, peer_id=newcomer.peer_id)
    assert joined.fields["mac"] == mac_text(newcomer.mac)
    assert ben.program.found("peer.joined", since, peer_id=newcomer.peer_id)
    assert (await moving).bytes > 1_000_000


_SCRIPT = """#!/bin/sh
# What a DHCP client runs to set an address: the little the lab needs.
case "$1$reason" in
    *bound*|*BOUND*|*renew*|*RENEW*|*REBIND*)
        ip addr flush dev "$interface" scope global
        address="${ip:-$new_ip_address}"
        if [ -n "$LAB_MTU" ]; then
            ip addr add "$address/24" dev "$interface" noprefixroute
            ip route replace 192.168.88.0/24 dev "$interface" src "$address" mtu "$LAB_MTU"
        else
            ip addr add "$address/24" brd + dev "$interface"
        fi ;;
    *PREINIT*) ip link set dev "$interface" up ;;
esac
exit 0
"""


@pytest.mark.parametrize("stock_client", ["udhcpc", "dhclient"])
async def test_a_stock_dhcp_client_gets_a_lease_from_dnsmasq(
    party: Party, tool: Any, needs: Callable[[str], None], tmp_path: Path, stock_client: str
) -> None:
    needs("dnsmasq")
    needs(stock_client)
    router, ann = party.player("router"), party.client("ann")
    former = ann.address
    script = tmp_path / "set-address"
    script.write_text(_SCRIPT)
    script.chmod(script.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    options = ["--no-daemon", "--conf-file=/dev/null", "--port=0", "--user=root", "--group=root"]
    options += ["--interface=lan0", "--bind-interfaces", "--dhcp-authoritative", "--no-ping", "--no-resolv"]
    options += ["--dhcp-range=192.168.88.150,192.168.88.199,1h", f"--dhcp-leasefile={tmp_path / 'leases'}"]
    dnsmasq = Program(router.host, "dnsmasq", ["dnsmasq", *options])
    files = ["-lf", str(tmp_path / "dhclient.leases"), "-pf", str(tmp_path / "dhclient.pid")]
    commands = {
        "udhcpc": ["udhcpc", "-i", "lan0", "-f", "-n", "-q", "-t", "10", "-T", "1", "-s", str(script)],
        "dhclient": ["dhclient", "-4", "-1", "-d", "-sf", str(script), *files, "-cf", "/dev/null", "lan0"],
    }
    mtu = "" if ann.station.route_mtu is None else str(ann.station.route_mtu)
    client = Program(ann.host, stock_client, commands[stock_client], {"LAB_MTU": mtu})
    ann.host.ip("addr flush dev lan0 scope global")
    await dnsmasq.start()
    try:
        await client.start()
        for _ in range(200):
            if leased := _address(ann):
                break
            assert dnsmasq.running, dnsmasq.tail()
            await asyncio.sleep(0.1)
        print(client.tail(), dnsmasq.tail(), sep="\n")
        assert re.fullmatch(r"192\.168\.88\.1[5-9]\d", leased)
        assert ann.mac.hex(":") in (tmp_path / "leases").read_text()
        ann.station.address = leased
        assert (await ann.ping(party.player("server"))).good
    finally:
        await client.stop()
        await dnsmasq.stop()
        ann.station.set_address(f"{former}/24")


def _address(player: Player) -> str:
    said = json.loads(player.host.run("ip", "-j", "-4", "addr", "show", "dev", "lan0"))
    return next((str(info["local"]) for link in said for info in link.get("addr_info", [])), "")
