"""Writes the seeds of the fuzz targets into `corpus/`: real frames, and short games for the state machines.

    python rust/fuzz/seeds.py

The frames are built by scapy, which shares no code with what is fuzzed. Findings stand beside the seeds under names of their own
(`found-...`) and are left alone.
"""

from __future__ import annotations

import struct
from pathlib import Path

from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dhcp6 import DHCP6_Advertise
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptMTU,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.ipsec import AH
from scapy.layers.l2 import ARP, LLC, SNAP, Dot1AD, Dot1Q, Dot3, Ether
from scapy.packet import Packet, Raw

CORPUS = Path(__file__).parent / "corpus"
CLIENT, OTHER, EVERYONE = "02:00:00:00:00:01", "02:00:00:00:00:02", "ff:ff:ff:ff:ff:ff"


def ether(destination: str = EVERYONE) -> Packet:
    return Ether(src=CLIENT, dst=destination)


def packets() -> dict[str, Packet]:
    """IP packets the filters look into, by name; what they stand in is put around them later."""
    offer = IP(src="10.0.0.1", dst="255.255.255.255") / UDP(sport=67, dport=68)
    advertisement = ICMPv6ND_RA(routerlifetime=1800)
    v6 = IPv6(src="fe80::1", dst="ff02::1", hlim=255)
    return {
        "dhcp-offer": offer / BOOTP(op=2) / DHCP(options=[("message-type", "offer"), "end"]),
        "dhcp-discover": IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67) / BOOTP(),
        "dhcp-options": IP(src="10.0.0.1", dst="10.0.0.2", options=[b"\x01" * 4])
        / UDP(sport=67, dport=68)
        / b"x",
        "dhcpv6-advertise": v6 / UDP(sport=547, dport=546) / DHCP6_Advertise(),
        "router-advertisement": v6 / advertisement,
        "ra-hop-by-hop": v6 / IPv6ExtHdrHopByHop() / advertisement,
        "ra-chain": v6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrRouting() / IPv6ExtHdrDestOpt() / advertisement,
        "ra-authenticated": v6 / AH(nh=58, icv=b"\0" * 12) / advertisement,
        "ra-fragment": v6 / IPv6ExtHdrFragment(offset=0, m=1, id=7) / advertisement,
        "ra-later-fragment": v6 / IPv6ExtHdrFragment(offset=3, m=0, id=7) / Raw(b"tail of something"),
        "neighbour-solicitation": v6 / ICMPv6ND_NS(tgt="fe80::2"),
        "neighbour-advertisement": v6 / ICMPv6ND_NA(tgt="fe80::1", R=1),
        # Options with the sender's own address, then with another's.
        "neighbour-own": v6 / ICMPv6ND_NA(tgt="fe80::1") / ICMPv6NDOptDstLLAddr(lladdr=CLIENT),
        "neighbour-another": v6 / ICMPv6ND_NA(tgt="fe80::1") / ICMPv6NDOptDstLLAddr(lladdr=OTHER),
        "solicitation-another": v6
        / IPv6ExtHdrHopByHop()
        / ICMPv6ND_NS(tgt="fe80::2")
        / ICMPv6NDOptMTU()
        / ICMPv6NDOptSrcLLAddr(lladdr=OTHER),
        "redirect-own": v6 / ICMPv6ND_Redirect(tgt="fe80::2") / ICMPv6NDOptDstLLAddr(lladdr=CLIENT),
        "redirect-chain": v6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / ICMPv6ND_Redirect(tgt="fe80::2"),
        "redirect-fragment": v6 / IPv6ExtHdrFragment(offset=0, m=1, id=7) / ICMPv6ND_Redirect(tgt="fe80::2"),
        "redirect-another": v6 / ICMPv6ND_Redirect(tgt="fe80::2") / ICMPv6NDOptDstLLAddr(lladdr=OTHER),
        "tcp-ect": IP(src="10.0.0.1", dst="10.0.0.2", tos=2, id=0xFFFF) / TCP(sport=1, dport=2) / b"data",
        "tcp6-ect": IPv6(src="fe80::1", dst="fe80::2", tc=1) / TCP(sport=1, dport=2) / b"data",
        "tcp-marked": IP(src="10.0.0.1", dst="10.0.0.2", tos=3) / TCP(sport=1, dport=2) / b"data",
        "icmp-redirect": IP(src="10.0.0.1", dst="10.0.0.2")
        / ICMP(type=5, code=1, gw="10.0.0.66")
        / IP(src="10.0.0.2", dst="10.0.0.3")
        / UDP(),
        "icmp-router": IP(src="10.0.0.1", dst="224.0.0.1", ttl=1) / ICMP(type=9),
        "ping": IP(src="10.0.0.1", dst="10.0.0.2") / ICMP() / b"ping",
        "tcp": IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=1, dport=2) / b"data",
        "tcp6": IPv6(src="fe80::1", dst="fe80::2") / TCP(sport=1, dport=2, options=[("NOP", None)]) / b"data",
        "game": IP(src="10.0.0.1", dst="10.255.255.255")
        / UDP(sport=27015, dport=27015)
        / b"\xff\xff\xff\xffinfo",
        "fragment": fragment(IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=67, dport=68) / (b"x" * 64), 32)[
            0
        ],
        "later-fragment": fragment(IP(src="10.0.0.1", dst="10.0.0.2") / UDP() / (b"x" * 64), 32)[1],
    }


def frames() -> dict[str, bytes]:
    """Frames as clients send them, plain and disguised."""
    made = {name: bytes(ether() / packet) for name, packet in packets().items()}
    for name in ("dhcp-offer", "dhcpv6-advertise", "ra-chain", "router-advertisement"):
        packet = packets()[name]
        ethertype = 0x0800 if IP in packet else 0x86DD
        length = len(packet) + 8
        made[f"{name}-tagged"] = bytes(ether() / Dot1Q(vlan=5) / packet)
        made[f"{name}-two-tags"] = bytes(ether() / Dot1AD(vlan=7) / Dot1Q(vlan=5) / packet)
        snap = LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(OUI=0, code=ethertype)
        made[f"{name}-snap"] = bytes(Dot3(src=CLIENT, dst=EVERYONE, len=length) / snap / packet)
        tagged_snap = LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(OUI=0xF8, code=0x8100)
        inner = struct.pack(">HH", 5, ethertype) + bytes(packet)
        made[f"{name}-snap-tag"] = bytes(Dot3(src=CLIENT, dst=EVERYONE, len=length + 4) / tagged_snap) + inner
    made["arp"] = bytes(ether() / ARP(hwsrc=CLIENT, psrc="10.0.0.1", pdst="10.0.0.2"))
    made["ipx"] = bytes(Dot3(src=CLIENT, dst=EVERYONE, len=30)) + b"\xff\xff\x00\x1e" + b"\0" * 26
    made["spanning-tree"] = (
        bytes(Dot3(src=CLIENT, dst="01:80:c2:00:00:00", len=38)) + b"\x42\x42\x03" + b"\0" * 35
    )
    made["cdp"] = bytes(Dot3(src=CLIENT, dst="01:00:0c:cc:cc:cc", len=38)) + b"\xaa\xaa\x03" + b"\0" * 35
    made["jumbo"] = bytes(ether(OTHER) / IP() / UDP()) + b"\0" * 1480
    return made


def overlays() -> dict[str, bytes]:
    """Datagrams of the overlay."""
    arp = frames()["arp"]
    return {
        "frame": b"\x10\x00\x00\x07" + arp,
        "fragment": b"\x11\x12\x00\x07\x00\x00\x00\x2a" + arp,
        "fragment-last": b"\x11\xff\xff\xff\xff\xff\xff\xff" + b"x",
        "peer-zero": b"\x10\x00\x00\x00" + arp,
        "reserved": b"\x10\x01\x00\x07" + arp,
        "empty-fragment": b"\x11\x01\x00\x07\x00\x00\x00\x2a",
        "kind": b"\x12\x00\x00\x07" + arp,
        "version": b"\x20\x00\x00\x07" + arp,
        "short": b"\x11\x01\x00",
        "too-long": b"\x10\x00\x00\x07" + b"\0" * 9217,
    }


def super_frames() -> dict[str, bytes]:
    """What a kernel hands over: `virtio_net_hdr`, then for the target the bytes of pattern to append, then the frame."""
    tcp4 = bytes(ether(OTHER) / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=1, dport=2, flags="PA"))
    tcp6 = bytes(ether(OTHER) / IPv6(src="fe80::1", dst="fe80::2") / TCP(sport=1, dport=2, flags="PA"))
    udp4 = bytes(ether(OTHER) / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=2))

    # The header's fields in their own order, as each call has them on a line.
    def note(  # noqa: PLR0917
        gso: int, header_len: int, size: int, start: int, offset: int, fill: int, frame: bytes
    ) -> bytes:
        return (
            struct.pack("=BBHHHH", 1, gso, header_len, size, start, offset) + struct.pack(">H", fill) + frame
        )

    def said(frame: bytes, at: int, value: int) -> bytes:
        return frame[:at] + struct.pack(">H", value) + frame[at + 2 :]

    fill = 4000
    tagged = tcp4[:12] + b"\x81\x00\x00\x05" + said(tcp4, 16, 40 + fill)[12:]
    return {
        "tcp4": note(1, 54, 1448, 34, 16, fill, said(tcp4, 16, 40 + fill)),
        "tcp4-cwr": note(0x81, 54, 536, 34, 16, fill, said(tcp4, 16, 40 + fill)),
        "tcp4-tagged": note(1, 58, 1000, 38, 16, fill, tagged),
        "tcp6": note(4, 74, 1428, 54, 16, fill, said(tcp6, 18, 20 + fill)),
        "udp4": note(5, 42, 1200, 34, 6, fill, said(said(udp4, 16, 28 + fill), 38, 8 + fill)),
        "whole-partial": note(0, 0, 0, 34, 16, 8, said(tcp4, 16, 48)),
        "big-tcp": note(4, 74, 1428, 54, 16, 0xFFFF, said(tcp6, 18, 0)),
        "tiny-segments": note(1, 54, 1, 34, 16, 3000, said(tcp4, 16, 3040)),
        "unknown-kind": note(3, 54, 1448, 34, 16, fill, tcp4),
    }


def flows() -> dict[str, bytes]:
    """Flows for `join`: shape, flags, sequence, identification, segment size, bytes, seed; then changes."""
    v6, tag, udp, outer = 0x01, 0x20, 0x40, 0x80

    def flow(shape: int, flags: int, size: int, length: int) -> bytes:
        return struct.pack(">BBIHHHB", shape, flags, 0xFFFFF000, 0xFFFE, size - 1, length, 3)

    # A bit of each field, with the checksums right again: of IPv4, of TCP behind it, of TCP behind IPv6.
    fields = [(0b110, at) for at in (0, 15, 18, 19, 20, 22, 26, 35, 40, 44, 46, 47, 49, 53, 58)]
    fields += [(0b111, at) for at in (15, 21, 30, 55, 62, 66, 67, 69, 78)]
    changed = {
        f"field-{shape & 1}-{at}": flow(shape, 0x18, 1448, 9000) + bytes([3, 0x80, at, 0x40, 1])
        for shape, at in fields
    }
    # The same of a tag, of IPv4 and of UDP behind it, of IPv6, and of UDP behind that and two tags.
    more = [(udp | tag, at) for at in (5, 14, 15, 19, 22, 24, 25, 26, 33, 37, 39, 41, 42, 45)]
    more += [(udp | tag | outer | v6, at) for at in (14, 18, 23, 25, 28, 29, 40, 60, 62, 65, 66, 69)]
    changed |= {
        f"udp-{shape & 1}-{at}": flow(shape, 1, 1400, 9000) + bytes([3, 0x80, at, 0x01, 1])
        for shape, at in more
    }
    return changed | {
        "tcp4": flow(0b110, 0x18, 1448, 9000),
        "tcp6": flow(0b111, 0x18, 1428, 9000),
        "tcp4-tagged": flow(tag | 0b110, 0x18, 1448, 9000),
        "tcp6-two-tags": flow(tag | outer | 0b111, 0x18, 1428, 9000),
        "udp4": flow(udp, 0, 1400, 9000),
        "udp4-one-id": flow(udp, 1, 1400, 9000),
        "udp4-may-fragment": flow(udp, 2, 1400, 9000),
        "udp6-tagged": flow(udp | tag | v6, 0, 1400, 9000),
        "udp-long": flow(udp, 0, 500, 60000),
        "tcp4-fin": flow(0b000, 0x11, 1000, 60000),
        "long": flow(0b110, 0x10, 100, 15000),
        "broken": flow(0b110, 0x18, 1448, 9000) + bytes([3, 0, 200, 0x10, 0]),
        "repaired": flow(0b110, 0x18, 1448, 9000) + bytes([3, 0, 38, 0x10, 1, 4, 0, 48, 1, 1]),
        "gap-and-copy": flow(0b111, 0x18, 1428, 9000) + bytes([2, 0, 0, 0, 2, 3, 0, 0, 0, 4]),
        "zero-checksum": flow(0b110, 0x18, 1448, 9000) + bytes([2, 0, 50, 0xFF, 0, 2, 0, 51, 0xFF, 0]),
    }


def fragmented() -> dict[str, bytes]:
    """Frames for `fragments`: length, datagram size, seed, order of delivery."""
    return {
        "two": struct.pack(">HHB", 1514, 1200, 1) + b"\0\0",
        "backwards": struct.pack(">HHB", 9216, 1008, 2) + bytes(range(15, -1, -1)),
        "copies": struct.pack(">HHB", 4000, 1100, 3) + bytes([2, 0x80, 0x80, 1, 0x81, 0, 0]),
        "least": struct.pack(">HHB", 2, 1200, 4),
        "too-small": struct.pack(">HHB", 9216, 100, 5),
    }


def reassemblies() -> dict[str, bytes]:
    """Limits, then fragments: peer and wait, id, place, length, seed."""
    limits = bytes([64, 128, 92])

    def part(frame: int, place: int, length: int, *, peer: int = 0, wait: int = 0, seed: int = 1) -> bytes:
        return struct.pack(">BBBHB", wait << 4 | peer, frame, place, length, seed)

    whole = part(1, 0x02, 700) + part(1, 0x12, 700) + part(1, 0x22, 100)
    return {
        "whole": limits + whole,
        "tail-first": limits + part(1, 0x22, 100) + part(1, 0x12, 700) + part(1, 0x02, 700),
        "contradiction": limits + part(1, 0x02, 700) + part(1, 0x12, 600) + whole,
        "other-last": limits + part(1, 0x02, 700) + part(1, 0x13, 700),
        "expired": limits + part(1, 0x02, 700) + part(2, 0x02, 700, wait=14) + part(1, 0x12, 700),
        "evicted": bytes([2, 128, 92]) + b"".join(part(frame, 0x02, 700) for frame in range(8)),
        "few-bytes": bytes([64, 3, 92]) + b"".join(part(frame, 0x11, 900) for frame in range(8)) + whole,
        "forgotten": limits + part(1, 0x02, 700) + bytes([0xF0]) + whole,
        "duplicates": limits + part(1, 0x02, 700) + whole,
    }


def rooms() -> dict[str, bytes]:
    """Settings, then events of two rooms."""
    settings = bytes([8, 60, 0, 0])

    def plug(peer: int, mac: int, limit: int = 0, room: int = 0) -> bytes:
        return bytes([room << 3, peer, mac, limit, limit, limit])

    def frame(peer: int, source: int, destination: int, body: bytes, room: int = 0) -> bytes:
        body = body.ljust(-(-len(body) // 7) * 7, b"\0")
        return bytes([room << 3 | 3, peer, source, destination, len(body) // 7]) + body

    def neighbour(kind: int, mac: int) -> bytes:
        """What a source or target link-layer address option claims, behind another option."""
        options = bytes(ICMPv6NDOptMTU()) + bytes([kind, 1, 2, 0, 0, 0, 0, mac])
        return bytes(ether() / IPv6(dst="ff02::1", hlim=255) / ICMPv6ND_NA(tgt="fe80::1") / options)[12:]

    def claim(mac: int) -> bytes:
        return bytes(ether() / ARP(hwsrc=f"02:00:00:00:00:{mac:02x}", psrc="10.0.0.7", pdst="10.0.0.2"))[12:]

    party = plug(1, 4) + plug(2, 5) + plug(3, 0)
    arp, game = frames()["arp"][12:], frames()["game"][12:]
    games = {
        "party": settings + party + frame(1, 0x80, 1, arp) + frame(2, 0x80, 4, arp) + frame(3, 9, 4, arp),
        "learned": settings + party + frame(3, 9, 1, arp) + frame(1, 0x80, 9, arp) + frame(3, 10, 9, arp),
        "aged": settings
        + party
        + frame(3, 9, 1, arp)
        + bytes([2, 255, 2, 255, 2, 255])
        + frame(1, 0x80, 9, arp),
        "spoofed": settings + party + frame(1, 5, 1, arp) + frame(3, 4, 1, arp) + frame(1, 0, 1, arp),
        "flood": settings + party + b"".join(frame(3, 4 + n, 1, b"\x08\x06") for n in range(20)),
        "limited": settings + plug(1, 4, 0x11) + plug(2, 5) + frame(1, 0x80, 1, arp * 3) * 5,
        "moved": settings + party + bytes([1, 1]) + plug(4, 4) + frame(2, 0x80, 4, arp),
        "two-rooms": settings
        + party
        + plug(1, 4, room=1)
        + plug(2, 6, room=1)
        + frame(1, 0x80, 1, arp, room=1),
        # Storm control of one client (in the id's byte), and of the room (in the first); the events are taken in between.
        "storms": bytes([0x28, 60, 0, 0])
        + plug(1 | 2 << 3, 4)
        + plug(2, 5)
        + frame(1, 0x80, 1, arp) * 4
        + bytes([0x12, 60])
        + b"".join(frame(2, 0x80, 1, bytes([n])) for n in range(12))
        + bytes([0x12, 255]),
        # One uses the room's up, and the others have their shares.
        "shares": bytes([0x28, 60, 0, 0])
        + plug(1 | 8 << 3, 4)
        + plug(2 | 8 << 3, 5)
        + plug(3 | 8 << 3, 0)
        + b"".join(frame(1, 0x80, 1, bytes([n])) for n in range(7))
        + b"".join(frame(2, 0x80, 1, bytes([n])) for n in range(10, 13))
        + b"".join(frame(3, 9, 1, bytes([n])) for n in range(20, 22))
        + bytes([0x12, 255]),
        "loop": settings
        + party
        + (frame(1, 0x80, 1, arp) + frame(3, 4, 1, arp)) * 6
        + bytes([0x12, 250, 0x12, 250]),
        # Two clients, then a client and a station of the LAN, claim one address in turn; one of them leaves.
        "conflict": settings
        + party
        + (frame(1, 0x80, 1, claim(4)) + frame(2, 0x80, 1, claim(5))) * 2
        + bytes([0x12, 10])
        + (frame(3, 9, 4, claim(9)) + frame(1, 0x80, 9, claim(4))) * 3
        + bytes([0x11, 2])
        + bytes([0x12, 250, 0x12, 250, 0x12, 250]),
        "claims": settings
        + party
        + b"".join(frame(1, 0x80, 1, claim(mac)) + frame(3, 9, 1, claim(mac)) for mac in (4, 5, 9))
        + b"".join(
            frame(2, 0x80, 1, neighbour(2, mac)) + frame(3, 9, 1, neighbour(1, mac)) for mac in (4, 5, 9)
        ),
        # A game that says one thing time and again, to everybody and to a station that nobody knows; limits for all, and for that.
        "repeated": settings + party + frame(1, 0x80, 1, game) * 4 + frame(2, 0x80, 20, game) * 4,
        "unknown": settings
        + plug(1, 4, 0x21)
        + plug(2, 5)
        + frame(1, 0x80, 20, game) * 30
        + frame(1, 0x80, 5, game),
        "unknown-alone": settings + bytes([0, 1, 4, 0, 0, 0x21]) + plug(2, 5) + frame(1, 0x80, 20, game) * 30,
        "taken": settings + party + plug(4, 5) + plug(5, 0) + plug(1, 9) + plug(6, 1),
    }
    for name in ("dhcp-offer", "router-advertisement", "ra-chain-snap-tag"):
        games[name] = (
            settings + party + frame(1, 0x80, 1, frames()[name][12:]) + frame(3, 9, 1, frames()[name][12:])
        )
    return games


def queues() -> dict[str, bytes]:
    """Limits, then pushes (0), bursts (1), pops (2, 3) with waits; pops of new flows alone."""
    push, burst, pop, pops, new = 0, 1, 2, 3, 0x80

    def wait(steps: int) -> int:
        """Quarter milliseconds before a push, at most 63; half ones before a pop, at most 31."""
        return steps << 2

    limits = bytes([255, 25])
    bulk = bytes([burst, 1, 5, 120])
    return {
        "fair": limits + bytes([burst, 1, 5, 120, push, 2, 0, 100, pop, pop, pops]),
        "full": bytes([16, 25]) + bytes([burst, 1, 5, 120, push, 2, 0, 100, burst, 3, 0, 60, pops]),
        "late": limits + bytes([push, 1, 5, 120]) + bytes([wait(31) | pop]) * 8,
        "standing": limits + b"".join(bytes([burst, 1, 5, 120, wait(30) | pops]) for _ in range(20)),
        "marked": limits
        + b"".join(
            bytes([burst, 128 | ecn << 5, 5, 120, wait(30) | pops]) for ecn in range(4) for _ in range(20)
        ),
        "larger-than-all": bytes([2, 25]) + bytes([push, 1, 35, 0, push, 1, 0, 60, pop]),
        "no-room": bytes([0, 0]) + bytes([push, 1, 0, 60, pop]),
        "headless": limits + bytes([push, 1, 0, 3, pop]),
        "new": limits
        + bulk
        + bytes([pop | new] * 3 + [push, 2, 0, 100] + [pop | new] * 3 + [pop, pops | new, pop]),
        "new-and-late": limits + bulk + bytes([wait(31) | pop | new] * 8) + bulk + bytes([pops | new, pops]),
        # Beyond the lengths of queue behind which small ones, then middling ones, are copied.
        "long": limits + bulk + bytes([burst, 2, 0, 60] * 30) + bulk * 4 + bytes([burst, 3, 2, 200] * 20),
        "default-room": bytes([127 + 64, 25]) + bytes([burst, 1, 6, 0] * 24 + [push, 2, 0, 60, pop, pops]),
    }


def main() -> None:
    for target, seeds in {
        "filters": frames(),
        "fragments": fragmented(),
        "join": flows(),
        "overlay": overlays(),
        "queue": queues(),
        "reassembly": reassemblies(),
        "room": rooms(),
        "split": super_frames(),
    }.items():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, seed in seeds.items():
            (folder / f"seed-{name}").write_bytes(seed)


if __name__ == "__main__":
    main()
