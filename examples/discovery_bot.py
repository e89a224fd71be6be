"""A bot that answers a game's search for servers: it has an IP address in the room, answers ARP, and echoes UDP broadcasts to its port.

    python examples/discovery_bot.py --invite "softlan://party.example.org/ROOM1?pin=..." --address 192.168.88.200 --port 27015

Try it from another machine of the room: `echo anybody | socat - UDP-DATAGRAM:192.168.88.255:27015,broadcast`. It needs no rights:
there is no network adapter, the frames are the bot's own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ipaddress
import struct

from softlan.client import Session

ARP, IPV4, UDP = 0x0806, 0x0800, 17
BROADCAST = b"\xff" * 6


def answer(frame: bytes, mac: bytes, address: bytes, port: int) -> bytes | None:
    """Give the frame that answers this one, if it asks for us: ARP for our address (RFC 826), or UDP to our port."""
    destination, source, kind, packet = frame[:6], frame[6:12], frame[12:14], frame[14:]
    if destination not in (mac, BROADCAST):
        return None
    if kind == struct.pack("!H", ARP):
        return answer_arp(packet, mac, address)
    if kind == struct.pack("!H", IPV4):
        datagram = answer_udp(packet, address, port)
        return None if datagram is None else source + mac + struct.pack("!H", IPV4) + datagram
    return None


def answer_arp(packet: bytes, mac: bytes, address: bytes) -> bytes | None:
    """Say which MAC our address has, if that is asked."""
    if len(packet) < 28 or packet[:8] != struct.pack("!HHBBH", 1, IPV4, 6, 4, 1) or packet[24:28] != address:
        return None
    asker_mac, asker = packet[8:14], packet[14:18]
    header = asker_mac + mac + struct.pack("!H", ARP)
    return header + struct.pack("!HHBBH", 1, IPV4, 6, 4, 2) + mac + address + asker_mac + asker


def answer_udp(packet: bytes, address: bytes, port: int) -> bytes | None:
    """Echo a UDP datagram for our port, from our address; broadcasts are for us too. Fragments and options are left alone."""
    if len(packet) < 28 or packet[0] != 0x45 or packet[9] != UDP or packet[6:8] not in (b"\0\0", b"\x40\0"):
        return None
    asker, to = packet[12:16], packet[16:20]
    asker_port, to_port, length = struct.unpack_from("!HHH", packet, 20)
    ours = to == address or to[3] == 255 or to == b"\xff" * 4
    if not ours or to_port != port or not 8 <= length <= len(packet) - 20:
        return None
    payload = b"softlan bot heard: " + packet[28 : 20 + length]
    udp = struct.pack("!HHHH", port, asker_port, 8 + len(payload), 0) + payload  # 0: no checksum (RFC 768)
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, UDP, 0, address, asker)
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + udp


def checksum(header: bytes) -> int:
    """Give the Internet checksum (RFC 1071) of an IPv4 header."""
    total = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


async def run(options: argparse.Namespace) -> None:
    """Answer until interrupted."""
    session = Session.join(
        options.invite,
        relay=options.relay,
        server_name=options.server_name,
        certificate=options.relay_ca_cert,
        room=options.room,
        name="discovery bot",
    )
    async with session:
        print(f"in room {session.room} as {options.address} ({session.mac})", flush=True)
        mac, address = bytes(session.mac), ipaddress.IPv4Address(options.address).packed
        async for frame in session.frames():
            reply = answer(frame, mac, address, options.port)
            if reply is not None:
                await session.send(reply)


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description="Answers a game's search for servers in a softlan room.")
    parser.add_argument(
        "--invite", metavar="LINE", help="the line players are given, or what it says by options:"
    )
    parser.add_argument("--relay", metavar="HOST:PORT")
    parser.add_argument("--server-name", metavar="NAME")
    parser.add_argument("--relay-ca-cert", metavar="FILE")
    parser.add_argument("--room", metavar="CODE")
    parser.add_argument("--address", required=True, metavar="IPV4", help="the bot's own, one nobody else has")
    parser.add_argument("--port", type=int, default=27015, metavar="PORT")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
