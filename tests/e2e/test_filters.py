"""Every rule of the switch at work: scapy makes the frames, a client's interface sends them, the relay drops and counts them.

Each drop has to show three times: no one receives the frame, the relay's counter of that reason and peer goes up by one,
and the relay's frame log has a line with the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
import scapy.all as scapy
from interop_peer import Peer

from softlan.lab import Party, usual_party
from softlan.lab.packets import BROADCAST, ethernet
from softlan.lab.party import Client

Ether, Dot1Q, Dot1AD, Raw = scapy.Ether, scapy.Dot1Q, scapy.Dot1AD, scapy.Raw
IP, UDP, BOOTP, DHCP = scapy.IP, scapy.UDP, scapy.BOOTP, scapy.DHCP
IPv6 = scapy.IPv6
ALL_NODES = "33:33:00:00:00:01"
V6 = {"src": "fe80::bad", "dst": "ff02::1", "hlim": 255}


def dhcp_offer() -> scapy.Packet:
    return (
        IP(src="192.168.88.66", dst="255.255.255.255")
        / UDP(sport=67, dport=68)
        / BOOTP(op=2, yiaddr="192.168.88.166", siaddr="192.168.88.66")
        / DHCP(options=[("message-type", "offer"), ("server_id", "192.168.88.66"), "end"])
    )


def advertisement() -> scapy.Packet:
    return scapy.ICMPv6ND_RA(routerlifetime=1800) / scapy.ICMPv6NDOptPrefixInfo(
        prefix="2001:db8:bad::", prefixlen=64
    )


def dhcpv6_reply() -> scapy.Packet:
    return UDP(sport=547, dport=546) / scapy.DHCP6_Advertise(trid=1)


def all_bad(mac: str) -> dict[str, tuple[str, bytes]]:
    """Name to (drop reason, frame) of everything a client may not send, from a client with this MAC."""

    def broadcast(payload: scapy.Packet, **fields: object) -> bytes:
        return bytes(Ether(src=mac, dst="ff:ff:ff:ff:ff:ff", **fields) / payload)

    def to_nodes(payload: scapy.Packet) -> bytes:
        return bytes(Ether(src=mac, dst=ALL_NODES) / payload)

    def to(destination: str, payload: scapy.Packet | None = None) -> bytes:
        return bytes(Ether(src=mac, dst=destination, type=0x88B5) / (payload or Raw(b"x" * 46)))

    offer, ra, v6 = dhcp_offer(), advertisement(), dhcpv6_reply()
    redirect = scapy.ICMPv6ND_Redirect(tgt="fe80::52", dst="2001:db8::9") / scapy.ICMPv6NDOptDstLLAddr(
        lladdr=mac
    )
    icmp_redirect = (
        IP(src="192.168.88.1", dst="192.168.88.51")
        / scapy.ICMP(type=5, code=1, gw="192.168.88.52")
        / IP(src="192.168.88.51", dst="203.0.113.9")
        / UDP()
    )
    first_fragment = scapy.fragment(offer, fragsize=64)[0]
    tiny_fragment = IP(src="192.168.88.66", dst="255.255.255.255", proto=17, flags="MF") / Raw(b"\x00\x43")
    overlap = IP(src="192.168.88.66", dst="255.255.255.255", proto=17, frag=1) / Raw(b"\x00\x43\x00\x44" * 4)
    options = scapy.IPv6ExtHdrHopByHop(options=[scapy.PadN(optdata=b"\0" * 4)])
    destination_options = scapy.IPv6ExtHdrDestOpt(options=[scapy.PadN(optdata=b"\0" * 20)])
    routing = scapy.IPv6ExtHdrRouting(addresses=[], segleft=0)
    first_v6_fragment = scapy.IPv6ExtHdrFragment(offset=0, m=1, id=7)
    found: dict[str, tuple[str, bytes]] = {
        # DHCP servers
        "dhcp-offer": ("dhcp-server", broadcast(offer)),
        "dhcp-offer-unicast": ("dhcp-server", bytes(Ether(src=mac, dst="02:50:4c:00:00:01") / offer)),
        "dhcp-offer-pxe-port": (
            "dhcp-server",
            broadcast(
                IP(src="192.168.88.66", dst="255.255.255.255") / UDP(sport=4011, dport=68) / offer[BOOTP]
            ),
        ),
        "dhcp-offer-tagged": ("dhcp-server", broadcast(Dot1Q(vlan=5) / offer)),
        "dhcp-offer-priority-tagged": ("dhcp-server", broadcast(Dot1Q(vlan=0, prio=6) / offer)),
        "dhcp-offer-qinq": ("dhcp-server", broadcast(Dot1AD(vlan=7) / Dot1Q(vlan=5) / offer)),
        "dhcp-offer-two-q-tags": ("dhcp-server", broadcast(Dot1Q(vlan=7) / Dot1Q(vlan=5) / offer)),
        "dhcp-offer-ip-options": (
            "dhcp-server",
            broadcast(
                IP(src="192.168.88.66", dst="255.255.255.255", options=scapy.IPOption_NOP() * 4) / offer[UDP]
            ),
        ),
        "dhcp-offer-first-fragment": ("dhcp-server", broadcast(first_fragment)),
        "dhcp-offer-tiny-fragment": ("dhcp-server", broadcast(tiny_fragment)),
        "dhcp-offer-overlapping-fragment": ("dhcp-server", broadcast(overlap)),
        # DHCPv6 servers
        "dhcpv6-reply": ("dhcpv6-server", to_nodes(IPv6(**V6) / v6)),
        "dhcpv6-reply-any-port": (
            "dhcpv6-server",
            to_nodes(IPv6(**V6) / UDP(sport=1024, dport=546) / scapy.DHCP6_Advertise(trid=1)),
        ),
        "dhcpv6-reply-tagged": ("dhcpv6-server", to_nodes(Dot1Q(vlan=5) / IPv6(**V6) / v6)),
        "dhcpv6-reply-hop-by-hop": ("dhcpv6-server", to_nodes(IPv6(**V6) / options / v6)),
        "dhcpv6-reply-fragment": (
            "dhcpv6-server",
            to_nodes(IPv6(**V6, nh=44) / scapy.IPv6ExtHdrFragment(m=1, id=9) / v6),
        ),
        # Router advertisements
        "ra": ("router-advertisement", to_nodes(IPv6(**V6) / ra)),
        "ra-unicast": (
            "router-advertisement",
            bytes(Ether(src=mac, dst="02:50:4c:00:00:01") / IPv6(**V6) / ra),
        ),
        "ra-tagged": ("router-advertisement", to_nodes(Dot1Q(vlan=5) / IPv6(**V6) / ra)),
        "ra-qinq": ("router-advertisement", to_nodes(Dot1AD(vlan=7) / Dot1Q(vlan=5) / IPv6(**V6) / ra)),
        "ra-hop-by-hop": ("router-advertisement", to_nodes(IPv6(**V6) / options / ra)),
        "ra-destination-options": ("router-advertisement", to_nodes(IPv6(**V6) / destination_options / ra)),
        "ra-routing": ("router-advertisement", to_nodes(IPv6(**V6) / routing / ra)),
        "ra-all-headers": (
            "router-advertisement",
            to_nodes(IPv6(**V6) / options / destination_options / routing / destination_options / ra),
        ),
        "ra-first-fragment": ("router-advertisement", to_nodes(IPv6(**V6) / first_v6_fragment / ra)),
        "ra-fragment-then-options": (
            "router-advertisement",
            to_nodes(IPv6(**V6) / first_v6_fragment / destination_options / ra),
        ),
        "ra-chain-cut-in-fragment": (
            "router-advertisement",
            to_nodes(
                IPv6(**V6, nh=44) / scapy.IPv6ExtHdrFragment(nh=60, m=1, id=8) / Raw(b"\x3a\x01" + b"\0" * 6)
            ),
        ),
        # Redirects: in the router's name, to one's own address
        "redirect": ("router-advertisement", to_nodes(IPv6(**V6) / redirect)),
        "redirect-qinq": (
            "router-advertisement",
            to_nodes(Dot1AD(vlan=7) / Dot1Q(vlan=5) / IPv6(**V6) / redirect),
        ),
        "redirect-all-headers": (
            "router-advertisement",
            to_nodes(IPv6(**V6) / options / destination_options / routing / destination_options / redirect),
        ),
        "redirect-first-fragment": (
            "router-advertisement",
            to_nodes(IPv6(**V6) / first_v6_fragment / redirect),
        ),
        "icmp-redirect": ("router-advertisement", broadcast(icmp_redirect)),
        "icmp-redirect-tagged": ("router-advertisement", broadcast(Dot1Q(vlan=5) / icmp_redirect)),
        "icmp-router-advertisement": (
            "router-advertisement",
            broadcast(IP(src="192.168.88.66", dst="224.0.0.1", ttl=1) / scapy.ICMP(type=9)),
        ),
        # Sources
        "spoofed-source": (
            "source-foreign",
            ethernet(BROADCAST, bytes.fromhex("02505500beef"), 0x88B5, bytes(46)),
        ),
        "anothers-source": (
            "source-foreign",
            ethernet(BROADCAST, bytes.fromhex("02504c000001"), 0x88B5, bytes(46)),
        ),
        "spoofed-source-tagged": (
            "source-foreign",
            ethernet(BROADCAST, bytes.fromhex("02505500beef"), 0x88B5, bytes(46), (0x8100, 5)),
        ),
        "group-source": (
            "source-invalid",
            ethernet(BROADCAST, bytes.fromhex("03504c000002"), 0x88B5, bytes(46)),
        ),
        "broadcast-source": ("source-invalid", ethernet(BROADCAST, b"\xff" * 6, 0x88B5, bytes(46))),
        "zero-source": ("source-invalid", ethernet(BROADCAST, bytes(6), 0x88B5, bytes(46))),
        # Sizes (the interface's MTU is raised for them)
        "giant": ("jumbo", ethernet(BROADCAST, bytes.fromhex(mac.replace(":", "")), 0x88B5, bytes(1505))),
        "giant-tagged": (
            "jumbo",
            ethernet(BROADCAST, bytes.fromhex(mac.replace(":", "")), 0x88B5, bytes(1505), (0x8100, 5)),
        ),
        "giant-9000": (
            "jumbo",
            ethernet(BROADCAST, bytes.fromhex(mac.replace(":", "")), 0x88B5, bytes(8986)),
        ),
        # What only switches say to each other
        "stp-bpdu": (
            "switch-control",
            bytes(scapy.Dot3(src=mac, dst="01:80:c2:00:00:00") / scapy.LLC() / scapy.STP()),
        ),
        "lldp": (
            "switch-control",
            bytes(Ether(src=mac, dst="01:80:c2:00:00:0e", type=0x88CC) / Raw(bytes(46))),
        ),
        "lldp-tagged": (
            "switch-control",
            bytes(Ether(src=mac, dst="01:80:c2:00:00:0e") / Dot1Q(vlan=5, type=0x88CC) / Raw(bytes(46))),
        ),
        "pause": (
            "switch-control",
            bytes(Ether(src=mac, dst="01:80:c2:00:00:01", type=0x8808) / Raw(bytes(46))),
        ),
        "eapol": (
            "switch-control",
            bytes(Ether(src=mac, dst="01:80:c2:00:00:03", type=0x888E) / Raw(bytes(46))),
        ),
        "control-0f": ("switch-control", to("01:80:c2:00:00:0f")),
        "gmrp-20": ("switch-control", to("01:80:c2:00:00:20")),
        "gvrp-21": ("switch-control", to("01:80:c2:00:00:21")),
        "control-2f": ("switch-control", to("01:80:c2:00:00:2f")),
        "cdp": (
            "switch-control",
            bytes(scapy.Dot3(src=mac, dst="01:00:0c:cc:cc:cc") / scapy.LLC() / Raw(bytes(40))),
        ),
        "pvst": (
            "switch-control",
            bytes(scapy.Dot3(src=mac, dst="01:00:0c:cc:cc:cd") / scapy.LLC() / Raw(bytes(40))),
        ),
    }
    return found


def all_good(mac: str) -> dict[str, bytes]:
    """What looks much like the above and has to pass."""
    source = bytes.fromhex(mac.replace(":", ""))

    def broadcast(payload: scapy.Packet) -> bytes:
        return bytes(Ether(src=mac, dst="ff:ff:ff:ff:ff:ff") / payload)

    def to_nodes(payload: scapy.Packet) -> bytes:
        return bytes(Ether(src=mac, dst=ALL_NODES) / payload)

    discover = UDP(sport=68, dport=67) / BOOTP(op=1) / DHCP(options=[("message-type", "discover"), "end"])
    anyone = IP(src="0.0.0.0", dst="255.255.255.255")
    tail = IP(src="192.168.88.52", dst="255.255.255.255", proto=17, frag=100) / Raw(b"\x00\x43\x00\x44" * 8)
    return {
        "dhcp-discover": broadcast(anyone / discover),
        "dhcp-discover-tagged": broadcast(Dot1Q(vlan=5) / anyone / discover),
        "udp-later-fragment": broadcast(tail),
        "udp-67-to-67": broadcast(IP(dst="255.255.255.255") / UDP(sport=67, dport=67) / Raw(bytes(20))),
        "tcp-67-to-68": broadcast(IP(dst="255.255.255.255") / scapy.TCP(sport=67, dport=68)),
        "router-solicitation": to_nodes(IPv6(**V6) / scapy.ICMPv6ND_RS()),
        "icmp-unreachable": broadcast(
            IP(src="192.168.88.52", dst="192.168.88.51") / scapy.ICMP(type=3, code=3) / IP() / UDP()
        ),
        "neighbour-advertisement": to_nodes(IPv6(**V6) / scapy.ICMPv6ND_NA(tgt="fe80::52")),
        "echo-request-hop-by-hop": to_nodes(
            IPv6(**V6)
            / scapy.IPv6ExtHdrHopByHop(options=[scapy.PadN(optdata=b"\0" * 4)])
            / scapy.ICMPv6EchoRequest()
        ),
        "mld": to_nodes(
            IPv6(**V6)
            / scapy.IPv6ExtHdrHopByHop(options=[scapy.RouterAlert()])
            / scapy.ICMPv6MLReport(mladdr="ff02::1:3")
        ),
        "dhcpv6-solicit": to_nodes(IPv6(**V6) / UDP(sport=546, dport=547) / scapy.DHCP6_Solicit(trid=1)),
        "largest-untagged": ethernet(BROADCAST, source, 0x88B5, bytes(1504)),
        "largest-tagged": ethernet(BROADCAST, source, 0x88B5, bytes(1504), (0x8100, 5)),
        "multicast-beside-control": ethernet(bytes.fromhex("0180c2000010"), source, 0x88B5, bytes(46)),
        "multicast-after-control": ethernet(bytes.fromhex("0180c2000030"), source, 0x88B5, bytes(46)),
    }


MAC = "02:50:4c:00:00:02"  # ben's: the second client of the usual party


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def ben(party: Party) -> AsyncIterator[Client]:
    """ben, with an interface that takes frames far above its MTU; ann's takes them too where it is no TAP."""
    client = party.client("ben")
    assert client.mac.hex(":") == MAC
    client.host.ip("link set lan0 mtu 9200")
    if client.attached:
        party.client("ann").host.ip("link set lan0 mtu 9200")
        for machine in (client.machine, party.client("ann").machine):
            machine.ip("link set cable0 mtu 9200")
    yield client


@pytest.mark.parametrize("name", list(all_bad(MAC)))
async def test_dropped_counted_and_logged(party: Party, ben: Client, name: str) -> None:
    reason, frame = all_bad(MAC)[name]
    counter = "drop_" + reason.replace("-", "_")
    assert party.relay is not None
    before = await party.relay.peer_counters(ben.peer_id)
    since = party.relay.program.mark()
    marker = ethernet(BROADCAST, ben.mac, 0x88B6, f"after {name}".encode().ljust(46))
    with contextlib.ExitStack() as stack:
        ears = [stack.enter_context(party.player(other).frames()) for other in ("ann", "server")]
        mouth = stack.enter_context(ben.frames())
        mouth.send(frame)
        mouth.send(marker)
        for ear in ears:
            async for seen in ear.frames(5.0):
                assert seen[:60] != frame[:60], f"{ear.station.name} received it"
                if seen == marker:
                    break
            else:
                pytest.fail(f"{ear.station.name} did not receive the harmless frame after it")
    fields = {"reason": reason, "peer": ben.peer_id, "src": frame[6:12].hex(":"), "length": len(frame)}
    logged = await party.relay.program.event("frame.dropped", 5, since=since, **fields)
    assert logged.fields["dst"] == frame[:6].hex(":")
    assert logged.fields["room"] == "PARTY1"
    after = await party.relay.peer_counters(ben.peer_id)
    assert after[counter] - before[counter] == 1


@pytest.mark.parametrize("name", list(all_good(MAC)))
async def test_passes(party: Party, ben: Client, name: str) -> None:
    frame = all_good(MAC)[name]
    with party.client("ann").frames() as ear, ben.frames() as mouth:
        mouth.send(frame)
        assert await ear.seen([frame], 5.0) == [frame]


@pytest.mark.parametrize(
    "name",
    ["dhcp-offer", "ra", "dhcpv6-reply", "dhcp-offer-tagged", "ra-hop-by-hop", "redirect", "icmp-redirect"],
)
async def test_the_lan_itself_may_serve(party: Party, name: str) -> None:
    server = party.player("server")
    frame = all_bad(server.mac.hex(":"))[name][1]
    with party.client("ann").frames() as ear, server.frames() as mouth:
        mouth.send(frame)
        assert await ear.seen([frame], 5.0) == [frame]


async def test_the_lan_may_not_speak_for_a_client(party: Party) -> None:
    assert party.relay is not None
    ann, server = party.client("ann"), party.player("server")
    frame = ethernet(BROADCAST, ann.mac, 0x88B5, b"I am ann".ljust(46))
    since = party.relay.program.mark()
    with party.client("ben").frames() as ear, server.frames() as mouth:
        mouth.send(frame)
        await party.relay.program.event(
            "frame.dropped", 5, since=since, reason="source-foreign", src=ann.mac.hex(":"), length=len(frame)
        )
        assert await ear.seen([frame], 0.3) == []
    # The LAN's own switch believed it: let it learn again where ann is.
    assert (await ann.ping(server)).received


async def test_unicast_goes_to_its_owner_alone(party: Party) -> None:
    ann, server = party.client("ann"), party.player("server")
    frame = ethernet(ann.mac, server.mac, 0x88B5, b"for ann".ljust(46))
    with ann.frames() as ear, party.client("ben").frames() as other, server.frames() as mouth:
        mouth.send(frame)
        assert await ear.seen([frame], 5.0) == [frame]
        assert await other.seen([frame], 0.3) == []


async def test_nothing_comes_back_to_its_sender(party: Party, ben: Client) -> None:
    frame = ethernet(BROADCAST, ben.mac, 0x88B5, b"an echo?".ljust(46))
    with party.client("ann").frames() as ear, ben.frames() as own:
        own.send(frame)
        assert await ear.seen([frame], 5.0) == [frame]
        assert await own.seen([frame], 0.3) == []


async def test_runts_of_a_peer_that_makes_its_own_frames(party: Party) -> None:
    """No interface sends less than 14 bytes, so a peer of our own does."""
    assert party.relay is not None
    machine = party.machine("stranger")
    peer = await Peer.connect(("203.0.113.1", 443), party.relay.certificate, sock=machine.socket())
    try:
        await peer.join("PARTY1", "02:50:4c:00:00:f0")
        since = party.relay.program.mark()
        peer.send(bytes(13))
        logged = await party.relay.program.event(
            "frame.dropped", 5, since=since, reason="runt", peer=peer.peer_id
        )
        assert logged.fields["length"] == 13
        assert (await party.relay.peer_counters(peer.peer_id))["drop_runt"] == 1
    finally:
        await peer.leave()


async def _flood(mouth: Client, frame: Callable[[int], bytes], count: int) -> None:
    with mouth.frames() as port:
        for number in range(count):
            port.send(frame(number))
            if number % 20 == 19:
                await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("option", "counter", "destination"),
    [
        ("--limit-broadcast", "drop_limit_broadcast", BROADCAST),
        ("--limit-broadcast", "drop_limit_broadcast", bytes.fromhex("01005e0000fb")),
        ("--limit-unknown", "drop_limit_unknown", bytes.fromhex("02aabbccddee")),
        ("--limit-total", "drop_limit_total", bytes.fromhex("02504c000001")),
    ],
    ids=["broadcast", "multicast", "unknown", "total"],
)
async def test_limits(option: str, counter: str, destination: bytes) -> None:
    async with usual_party(relay_options=[option, "400kbit"]) as party:
        assert party.relay is not None
        ann, ben = party.client("ann"), party.client("ben")
        count, size = 400, 1000
        await _flood(ben, lambda number: ethernet(destination, ben.mac, 0x88B5, bytes(size - 14)), count)
        await asyncio.sleep(0.3)
        told = await party.relay.peer_counters(ben.peer_id)
        print({name: value for name, value in told.items() if value})
        assert 0 < told[counter] < count
        assert (await party.relay.peer_counters(ann.peer_id))[counter] == 0
        await asyncio.sleep(1.5)
        assert (await ann.ping(ben)).good, "the limit is over when the flood is"


async def test_filters_can_be_switched_off() -> None:
    off = ("dhcp-server", "router-advertisement", "switch-control", "dhcpv6-server")
    options = [word for name in off for word in ("--no-filter", name)]
    async with usual_party(relay_options=options) as party:
        ben = party.client("ben")
        bad = all_bad(ben.mac.hex(":"))
        frames = [bad[name][1] for name in ("dhcp-offer", "ra", "cdp", "dhcpv6-reply")]
        with party.client("ann").frames() as ear, ben.frames() as mouth:
            for frame in frames:
                mouth.send(frame)
            assert len(await ear.seen(frames, 5.0)) == len(frames)


async def test_limits_are_off_when_told() -> None:
    async with usual_party(relay_options=["--limit-broadcast", "off"]) as party:
        assert party.relay is not None
        ben = party.client("ben")
        await _flood(
            ben, lambda number: ethernet(BROADCAST, ben.mac, 0x88B5, number.to_bytes(986, "big")), 400
        )
        assert (await party.relay.peer_counters(ben.peer_id))["drop_limit_broadcast"] == 0
