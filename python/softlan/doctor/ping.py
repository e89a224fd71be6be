"""Frames for `softlan ping`, and what their answers tell: loopback messages to a player, ARP probes to an IP address. Pure.

A player's softlan itself answers loopback messages (docs/protocol.md, Loopback), whatever its firewall. An IP address, a player's or
that of a machine behind the gateway, is asked for with an ARP probe (RFC 5227 section 2.1.1), which takes no address of one's own and
leaves no trace in others' tables.
"""

from __future__ import annotations

import ipaddress
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from softlan._core import Mac
from softlan.client.library import Peer
from softlan.control.messages import Role
from softlan.errors import ConfigError

__all__ = ["LEAST_SIZE", "ArpTarget", "LoopbackTarget", "Target", "choose"]

_BROADCAST = b"\xff" * 6
_CFM = b"\x89\x02"
_LEVEL_AND_VERSION = 7 << 5
_REPLY, _MESSAGE = 2, 3
_DATA_TLV = 3
_MARK_SIZE = 8

_ARP = b"\x08\x06"
_ARP_HEAD = struct.pack("!HHBB", 1, 0x0800, 6, 4)  # Ethernet, IPv4 (RFC 826)
_ARP_ASK, _ARP_SAY = 1, 2

LEAST_SIZE = 60
"""Bytes of an Ethernet frame without FCS, at least."""


class LoopbackTarget:
    """A player, by MAC: IEEE 802.1Q loopback messages, numbered, with a mark of this run's in them."""

    numbered = True

    def __init__(self, mac: Mac, name: str) -> None:
        self.name = name
        self._mac = bytes(mac)
        self._mark = os.urandom(_MARK_SIZE)

    def frame(self, own: Mac, number: int, size: int) -> bytes:
        """Make the message with this number, `size` bytes long."""
        head = self._mac + bytes(own) + _CFM
        head += struct.pack("!BBBBI", _LEVEL_AND_VERSION, _MESSAGE, 0, 4, number)
        data = max(size, LEAST_SIZE) - len(head) - 3 - 1
        # After the data comes the end TLV, a zero.
        return head + struct.pack("!BH", _DATA_TLV, data) + self._mark.ljust(data + 1, b"\0")

    def number_of(self, frame: bytes, own: Mac) -> int | None:
        """Say which message a frame answers; None if it answers none of this run's."""
        if frame[:14] != bytes(own) + self._mac + _CFM or frame[14:16] != bytes((_LEVEL_AND_VERSION, _REPLY)):
            return None
        if frame[25 : 25 + _MARK_SIZE] != self._mark:
            return None
        return int(struct.unpack_from("!I", frame, 18)[0])

    @property
    def silence(self) -> str:
        """What it may mean that no answer comes."""
        return (
            "a softlan older than this one answers no loopback messages: ping its IP address in place of its id, and ask whether it is"
            " still there"
        )


class ArpTarget:
    """An IP address on the party's Ethernet. ARP numbers nothing, so one probe at a time may be under way."""

    numbered = False

    def __init__(self, address: ipaddress.IPv4Address) -> None:
        self.name = str(address)
        self._address = address.packed
        self._mac = _BROADCAST
        self._latest = 0

    def frame(self, own: Mac, number: int, size: int) -> bytes:
        """Make a probe: to everybody at first, then to the one who answered."""
        del size
        self._latest = number
        ask = _ARP_HEAD + struct.pack("!H6s4s6s4s", _ARP_ASK, bytes(own), bytes(4), bytes(6), self._address)
        return (self._mac + bytes(own) + _ARP + ask).ljust(LEAST_SIZE, b"\0")

    def number_of(self, frame: bytes, own: Mac) -> int | None:
        """Say which probe a frame answers: the latest; None if it is no answer."""
        if len(frame) < 42 or frame[:6] != bytes(own) or frame[12:14] != _ARP or frame[14:20] != _ARP_HEAD:
            return None
        kind, sender, address = struct.unpack_from("!H6s4s", frame, 20)
        if kind != _ARP_SAY or address != self._address:
            return None
        self._mac = sender
        return self._latest

    @property
    def silence(self) -> str:
        """What it may mean that no answer comes."""
        return "nobody in the room has this address: check it, and that its owner (or the gateway) is there: `softlan status`"


Target: TypeAlias = LoopbackTarget | ArpTarget


@dataclass(frozen=True, slots=True)
class _Known:
    """Who is in the room, for messages."""

    peers: Sequence[Peer]

    def __str__(self) -> str:
        told = [f"{peer.peer_id} ({peer.mac})" for peer in self.peers if peer.mac is not None]
        return f"in the room are: {', '.join(told)}" if told else "no other player is in the room"


def choose(wanted: str, peers: Sequence[Peer]) -> Target:
    """Read what is to be pinged: a peer id, a MAC, or an IPv4 address.

    Raises:
        ConfigError: it is none of these, or nobody of that name is in the room.

    """
    wanted = wanted.strip()
    try:
        return ArpTarget(ipaddress.IPv4Address(wanted))
    except ValueError:
        pass
    if wanted.isdecimal():
        found = next((peer for peer in peers if peer.peer_id == int(wanted)), None)
        if found is None:
            raise ConfigError(f"no peer {wanted} is in the room", hint=str(_Known(peers)))
        if found.mac is None:
            assert found.role is Role.GATEWAY
            raise ConfigError(
                f"peer {wanted} is the gateway, which has no MAC of its own in the room",
                hint="ping an address of its LAN, like its router's: softlan ping 192.168.1.1",
            )
        return LoopbackTarget(found.mac, f"peer {found.peer_id} ({found.mac})")
    try:
        mac = Mac(wanted)
    except ValueError as error:
        raise ConfigError(
            f"{wanted!r} is neither a peer id nor a MAC nor an IPv4 address", hint=str(_Known(peers))
        ) from error
    found = next((peer for peer in peers if peer.mac == mac), None)
    if found is None:
        raise ConfigError(f"no player with the MAC {mac} is in the room", hint=str(_Known(peers)))
    return LoopbackTarget(mac, f"peer {found.peer_id} ({mac})")
