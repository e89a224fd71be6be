"""Writing pcapng, the format of Wireshark and tshark: blocks as bytes, nothing opened and nothing read.

Source: draft-ietf-opsawg-pcapng, sections 3 and 4. Little-endian throughout, time stamps in nanoseconds.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["LINK_ETHERNET", "LINK_USER0", "Interface", "Pcapng"]

LINK_ETHERNET = 1
LINK_USER0 = 147
"""LINKTYPE_USER0: for private use. softlan's overlay datagrams that do not decode are captured under it."""

_SECTION_HEADER = 0x0A0D0D0A
_INTERFACE_DESCRIPTION = 1
_INTERFACE_STATISTICS = 5
_ENHANCED_PACKET = 6

_BYTE_ORDER = 0x1A2B3C4D
_UNKNOWN_LENGTH = 0xFFFF_FFFF_FFFF_FFFF

_COMMENT = 1
_SHB_USERAPPL = 4
_IF_NAME = 2
_IF_DESCRIPTION = 3
_IF_TSRESOL = 9
_ISB_IFDROP = 5

_NANOSECONDS = bytes([9])
"""if_tsresol: a power of ten when the highest bit is clear."""

_MAX_OPTION = 0xFFFF

Option = tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class Interface:
    """Where packets were captured. `snaplen` is the most bytes kept of one, 0 if all were."""

    name: str
    link_type: int = LINK_ETHERNET
    description: str = ""
    snaplen: int = 0


class Pcapng:
    """One section. Each call gives the bytes to append to the file; interfaces are described when they are first used."""

    def __init__(self, application: str) -> None:
        self._application = application
        self._interfaces: dict[Interface, int] = {}

    def header(self) -> bytes:
        """Give the section header: the first bytes of the file."""
        fixed = struct.pack("<IHHQ", _BYTE_ORDER, 1, 0, _UNKNOWN_LENGTH)
        return _block(_SECTION_HEADER, fixed, [(_SHB_USERAPPL, self._application.encode())])

    def packet(
        self, interface: Interface, time_ns: int, data: bytes, *, length: int | None = None, comment: str = ""
    ) -> bytes:
        """Give one packet, captured `time_ns` after the Unix epoch; `length` is its own where `data` holds only a part."""
        described, number = self._describe(interface)
        whole = len(data) if length is None else length
        fixed = struct.pack("<5I", number, *_halves(time_ns), len(data), whole) + _padded(data)
        options = [(_COMMENT, comment.encode())] if comment else []
        return described + _block(_ENHANCED_PACKET, fixed, options)

    def lost(self, interface: Interface, time_ns: int, count: int) -> bytes:
        """Say that so many packets of an interface were not captured, all in all."""
        described, number = self._describe(interface)
        fixed = struct.pack("<3I", number, *_halves(time_ns))
        return described + _block(_INTERFACE_STATISTICS, fixed, [(_ISB_IFDROP, struct.pack("<Q", count))])

    def _describe(self, interface: Interface) -> tuple[bytes, int]:
        known = self._interfaces.get(interface)
        if known is not None:
            return b"", known
        number = self._interfaces[interface] = len(self._interfaces)
        options = [(_IF_NAME, interface.name.encode()), (_IF_TSRESOL, _NANOSECONDS)]
        if interface.description:
            options.append((_IF_DESCRIPTION, interface.description.encode()))
        fixed = struct.pack("<HHI", interface.link_type, 0, interface.snaplen)
        return _block(_INTERFACE_DESCRIPTION, fixed, options), number


def _block(kind: int, fixed: bytes, options: Iterable[Option]) -> bytes:
    told = b"".join(
        struct.pack("<HH", code, len(value[:_MAX_OPTION])) + _padded(value[:_MAX_OPTION])
        for code, value in options
    )
    end = struct.pack("<HH", 0, 0) if told else b""
    length = 12 + len(fixed) + len(told) + len(end)
    return struct.pack("<II", kind, length) + fixed + told + end + struct.pack("<I", length)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _halves(time_ns: int) -> tuple[int, int]:
    return time_ns >> 32 & 0xFFFF_FFFF, time_ns & 0xFFFF_FFFF
