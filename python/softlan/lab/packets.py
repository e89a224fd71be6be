"""Ethernet, IPv4, UDP and ICMP bytes for the lab's probes; frames come without preamble and FCS.

Sources: IEEE 802.3 clause 3, IEEE 802.1Q clause 9, RFC 791, RFC 768, RFC 792, RFC 1071 (checksum).
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Final

BROADCAST: Final = b"\xff" * 6
ETH_IPV4: Final = 0x0800
ETH_VLAN: Final = 0x8100
UDP: Final = 17


def checksum(data: bytes) -> int:
    """Give the Internet checksum (RFC 1071) of `data`, 16 bits."""
    if len(data) % 2:
        data += b"\0"
    total = int(sum(struct.unpack(f"!{len(data) // 2}H", data)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def mac_bytes(text: str) -> bytes:
    """Give the 6 bytes of "02:00:5e:00:00:01"."""
    return bytes.fromhex(text.replace(":", ""))


def mac_text(mac: bytes) -> str:
    """Give "02:00:5e:00:00:01" of 6 bytes."""
    return mac.hex(":")


def ethernet(
    destination: bytes, source: bytes, ethertype: int, payload: bytes, *tags: tuple[int, int]
) -> bytes:
    """Give a frame; `tags` are (TPID, TCI) pairs, outermost first. An `ethertype` below 0x0600 is an 802.3 length."""
    between = b"".join(struct.pack("!HH", tpid, tci) for tpid, tci in tags)
    return destination + source + between + struct.pack("!H", ethertype) + payload


def ipv4(
    source: str, destination: str, protocol: int, payload: bytes, *, ident: int = 0, fragment: int = 0
) -> bytes:
    """Give an IPv4 packet; `fragment` is the 16-bit flags and offset field (0x4000 = don't fragment)."""
    fields = (0x45, 0, 20 + len(payload), ident, fragment, 64, protocol, 0)
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    bare = struct.pack("!BBHHHBBH", *fields) + addresses
    return bare[:10] + struct.pack("!H", checksum(bare)) + bare[12:] + payload


def udp(source: tuple[str, int], destination: tuple[str, int], payload: bytes) -> bytes:
    """Give a UDP datagram with its checksum, which the IPv4 addresses go into."""
    length = 8 + len(payload)
    pseudo = (
        socket.inet_aton(source[0]) + socket.inet_aton(destination[0]) + struct.pack("!BBH", 0, UDP, length)
    )
    bare = struct.pack("!HHHH", source[1], destination[1], length, 0) + payload
    return bare[:6] + struct.pack("!H", checksum(pseudo + bare) or 0xFFFF) + bare[8:]


def udp_frame(
    macs: tuple[bytes, bytes], source: tuple[str, int], destination: tuple[str, int], data: bytes
) -> bytes:
    """Give a whole frame with a UDP datagram; `macs` are destination and source."""
    packet = ipv4(source[0], destination[0], UDP, udp(source, destination, data))
    return ethernet(macs[0], macs[1], ETH_IPV4, packet)


@dataclass(frozen=True)
class UdpPacket:
    """The UDP datagram a frame carries."""

    source: tuple[str, int]
    destination: tuple[str, int]
    payload: bytes


def parse_udp(frame: bytes) -> UdpPacket | None:
    """Give the UDP datagram in an untagged Ethernet II frame; None when there is none, or only a part of one."""
    if len(frame) < 14 + 20 + 8 or frame[12:14] != b"\x08\x00" or frame[14] >> 4 != 4 or frame[23] != UDP:
        return None
    header = (frame[14] & 0x0F) * 4
    flags = struct.unpack_from("!H", frame, 20)[0]
    start = 14 + header
    if flags & 0x3FFF or len(frame) < start + 8:
        return None
    source_port, destination_port, length, _ = struct.unpack_from("!HHHH", frame, start)
    source, destination = socket.inet_ntoa(frame[26:30]), socket.inet_ntoa(frame[30:34])
    return UdpPacket(
        (source, source_port), (destination, destination_port), frame[start + 8 : start + length]
    )


def echo(kind: int, ident: int, sequence: int, data: bytes) -> bytes:
    """Give an ICMP echo request (8) or reply (0), RFC 792."""
    bare = struct.pack("!BBHHH", kind, 0, 0, ident, sequence) + data
    return bare[:2] + struct.pack("!H", checksum(bare)) + bare[4:]
