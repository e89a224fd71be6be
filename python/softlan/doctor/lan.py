"""The LAN's side of a gateway: its interface, what keeps a switch from bridging there, and whether somebody gives out addresses."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import time
from pathlib import Path

from softlan._core import CoreError, PacketSocket
from softlan.client.linux import port_error
from softlan.doctor.findings import Check, Finding, Grade, from_error
from softlan.gateway.gateway import interface_warnings
from softlan.lab.dhcp import CLIENT_PORT, DISCOVER, OFFER, SERVER_PORT, Message
from softlan.lab.packets import BROADCAST, parse_udp, udp_frame

__all__ = ["judge_dhcp", "judge_interface", "look_at_lan"]

_SYSFS = Path("/sys/class/net")
_MESSAGE_TYPE, _SERVER_ID = 53, 54
_DISCOVERS = 3
_DISCOVER_EVERY_S = 0.8


def look_at_lan(interface: str) -> list[Finding]:
    """Look at a gateway's interface and the LAN behind it. It asks for an address there and takes none. Blocks for some seconds."""
    if sys.platform != "linux":
        says = "the gateway runs on Linux only: it needs AF_PACKET"
        return [Finding(Check.INTERFACE, Grade.BAD, says)]
    try:
        PacketSocket.open(interface).close()
    except CoreError as error:
        return [from_error(Check.INTERFACE, port_error(error))]
    here = _SYSFS / interface
    found = [judge_interface(interface, _read(here / "carrier") == "1", _read(here / "speed"))]
    warnings = interface_warnings(interface)
    found += [Finding(Check.BRIDGING, Grade.POOR, says, hint) for says, hint in warnings]
    if not warnings:
        says = f"{interface} is neither wireless nor a known virtual machine's"
        found.append(Finding(Check.BRIDGING, Grade.GOOD, says))
    if found[0].grade is not Grade.GOOD:
        return found
    try:
        found.append(judge_dhcp(interface, *_ask_for_an_address(interface)))
    except OSError as error:
        says = f"cannot ask for an address on {interface}: {error.strerror or error}"
        found.append(Finding(Check.DHCP, Grade.SKIPPED, says))
    return found


def judge_interface(interface: str, carrier: bool, speed: str) -> Finding:
    """Judge an interface that is up and can be listened on. Pure. `speed` is sysfs' figure in Mbit/s, or anything else."""
    if not carrier:
        return Finding(
            Check.INTERFACE,
            Grade.BAD,
            f"{interface} is up, but has no link: no cable, or the other end is off",
            "plug the LAN's cable in, or choose another interface",
        )
    rate = f", {speed} Mbit/s" if speed.isdecimal() else ""
    return Finding(
        Check.INTERFACE, Grade.GOOD, f"{interface} is up, with a link{rate}, and can be listened on"
    )


def judge_dhcp(interface: str, servers: list[str], waited_s: float) -> Finding:
    """Judge who offered an address. Pure."""
    facts = {"servers": servers}
    if not servers:
        return Finding(
            Check.DHCP,
            Grade.POOR,
            f"no DHCP server answered on {interface} within {waited_s:.1f} s: players get no address of this LAN by themselves",
            "switch on the router's DHCP server, or have players set addresses of this LAN by hand",
            facts,
        )
    if len(servers) > 1:
        return Finding(
            Check.DHCP,
            Grade.POOR,
            f"several DHCP servers answer on {interface}: {', '.join(servers)}",
            "switch all but one off, or players get addresses of different networks",
            facts,
        )
    return Finding(Check.DHCP, Grade.GOOD, f"{servers[0]} gives out addresses on {interface}", facts=facts)


def _ask_for_an_address(interface: str) -> tuple[list[str], float]:
    """Broadcast DHCPDISCOVER in the interface's own name and collect who offers (RFC 2131 section 3.1)."""
    transaction = int.from_bytes(os.urandom(4), "big")
    servers: dict[str, None] = {}
    started = time.perf_counter()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)) as port:
        port.bind((interface, 0x0800))
        mac: bytes = port.getsockname()[4]
        ask = Message(False, transaction, mac, options={_MESSAGE_TYPE: bytes([DISCOVER])}).encode()
        frame = udp_frame(
            (BROADCAST, mac),
            ("0.0.0.0", CLIENT_PORT),  # noqa: S104 - "none yet", RFC 2131 section 4.1
            ("255.255.255.255", SERVER_PORT),
            ask,
        )
        for _ in range(_DISCOVERS):
            port.send(frame)
            until = time.perf_counter() + _DISCOVER_EVERY_S
            while (left := until - time.perf_counter()) > 0:
                if select.select([port], [], [], left)[0]:
                    server = _offer(port.recv(2048), transaction)
                    if server is not None:
                        servers[server] = None
            if servers:
                break
    return list(servers), time.perf_counter() - started


def _offer(frame: bytes, transaction: int) -> str | None:
    """Give the server whose offer a frame is; None for any other frame."""
    packet = parse_udp(frame)
    if packet is None or (packet.source[1], packet.destination[1]) != (SERVER_PORT, CLIENT_PORT):
        return None
    message = Message.decode(packet.payload)
    if message is None or not message.reply or (message.kind, message.transaction) != (OFFER, transaction):
        return None
    server = message.options.get(_SERVER_ID, b"")
    return socket.inet_ntoa(server) if len(server) == 4 else packet.source[0]


def _read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="ascii").strip()
    return ""
