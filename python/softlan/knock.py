"""A knock: a packet that every QUIC server answers, from a stranger and without beginning anything.

A QUIC server answers a packet of a version it does not know with the list of those it does (Version Negotiation, RFC 9000 sections 6
and 17.2.1), as long as the packet fills 1200 bytes. Versions of the form 0x?a?a?a?a are kept free for asking (section 15). So each knock
comes back if its packet went through whole. Pure, but for the random ids; who sends it is not settled here.
"""

from __future__ import annotations

import errno
import os
from enum import StrEnum

__all__ = [
    "ID_SIZE",
    "LEAST_PAYLOAD",
    "Outcome",
    "error_codes",
    "knock_packet",
    "known_outcome",
    "outcome_of",
    "read_answer",
]

LEAST_PAYLOAD = 1200
"""Bytes of UDP payload that QUIC needs a path to carry (RFC 9000 section 14)."""

_ASKING_VERSION = 0x1A2A3A4A
ID_SIZE = 8


class Outcome(StrEnum):
    """What knocking came to."""

    ANSWERED = "answered"
    NOT_QUIC = "not-quic"
    """Something answered, in another language."""
    REFUSED = "refused"
    """The machine there said that nobody listens on that port (ICMP port unreachable)."""
    UNREACHABLE = "unreachable"
    """No way there: this machine or a router said so."""
    FORBIDDEN = "forbidden"
    """This machine's own firewall keeps the packet back."""
    SILENT = "silent"


def knock_packet(own_id: bytes, size: int) -> bytes:
    """Make a knock of `size` bytes of UDP payload; `own_id`, 8 bytes, comes back in the answer."""
    head = b"\xc0" + _ASKING_VERSION.to_bytes(4, "big")
    return (head + bytes((ID_SIZE,)) + os.urandom(ID_SIZE) + bytes((len(own_id),)) + own_id).ljust(
        size, b"\0"
    )


def read_answer(packet: bytes) -> tuple[bytes, tuple[int, ...]] | None:
    """Read a Version Negotiation packet (RFC 9000 section 17.2.1): the id it answers, the versions; None if it is none."""
    if len(packet) < 7 or not packet[0] & 0x80 or packet[1:5] != bytes(4):
        return None
    ours = packet[6 : 6 + packet[5]]
    rest = packet[6 + packet[5] :]
    if len(ours) != packet[5] or not rest or len(rest) < 1 + rest[0]:
        return None
    told = rest[1 + rest[0] :]
    if not told or len(told) % 4:
        return None
    return ours, tuple(int.from_bytes(told[at : at + 4], "big") for at in range(0, len(told), 4))


def error_codes(*names: str) -> frozenset[int]:
    """Collect errno values by name, with Winsock's own beside them."""
    found = (getattr(errno, prefix + name, None) for name in names for prefix in ("E", "WSAE"))
    return frozenset(code for code in found if code is not None)


_OUTCOMES: tuple[tuple[frozenset[int], Outcome], ...] = (
    (error_codes("CONNREFUSED", "CONNRESET"), Outcome.REFUSED),
    (error_codes("PERM", "ACCES"), Outcome.FORBIDDEN),
    (error_codes("NETUNREACH", "HOSTUNREACH", "NETDOWN", "HOSTDOWN"), Outcome.UNREACHABLE),
)
# winerror.h: what Windows' completion ports say in place of Winsock's codes.
_WINDOWS_OUTCOMES = {1231: Outcome.UNREACHABLE, 1232: Outcome.UNREACHABLE, 1234: Outcome.REFUSED}


def known_outcome(error: OSError) -> Outcome | None:
    """Say what an error of a connected UDP socket means for the packets sent from it; None if it may mean anything."""
    told = _WINDOWS_OUTCOMES.get(getattr(error, "winerror", None) or 0)
    return told or next((outcome for codes, outcome in _OUTCOMES if error.errno in codes), None)


def outcome_of(error: OSError) -> Outcome:
    """Say the same where something has to be said."""
    return known_outcome(error) or Outcome.UNREACHABLE
