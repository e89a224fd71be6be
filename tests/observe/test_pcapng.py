"""Capture files as bytes; what other programs make of them is in tests/e2e/test_seeing.py."""

import struct

from softlan.observe.pcapng import LINK_USER0, Interface, Pcapng

LAN = Interface("PARTY1")


def blocks(data):
    """Each block's type and body, after a check of its two lengths."""
    found = []
    while data:
        kind, length = struct.unpack_from("<II", data)
        assert length % 4 == 0
        assert struct.unpack_from("<I", data, length - 4) == (length,)
        found.append((kind, data[8 : length - 4]))
        data = data[length:]
    return found


def options(data):
    found = {}
    while data:
        code, length = struct.unpack_from("<HH", data)
        if code == 0:
            assert data[4:] == b""
            return found
        found[code] = data[4 : 4 + length]
        data = data[4 + length + (-length % 4) :]
    return found


def test_the_header_says_who_wrote_it():
    ((kind, body),) = blocks(Pcapng("softlan 1").header())
    assert kind == 0x0A0D0D0A
    assert struct.unpack_from("<IHHq", body) == (0x1A2B3C4D, 1, 0, -1)
    assert options(body[16:]) == {4: b"softlan 1"}


def test_an_interface_is_described_once_before_its_packets():
    file = Pcapng("softlan")
    first = blocks(file.packet(LAN, 1, b"abcd"))
    second = blocks(file.packet(LAN, 2, b"efgh"))
    other = blocks(file.packet(Interface("x", LINK_USER0, "odd ones", 20), 3, b"ijkl"))
    assert [[kind for kind, _ in found] for found in (first, second, other)] == [[1, 6], [6], [1, 6]]
    assert struct.unpack_from("<HHI", first[0][1]) == (1, 0, 0)
    assert options(first[0][1][8:]) == {2: b"PARTY1", 9: b"\x09"}
    assert struct.unpack_from("<HHI", other[0][1]) == (147, 0, 20)
    assert options(other[0][1][8:])[3] == b"odd ones"
    assert struct.unpack_from("<I", other[1][1]) == (1,)


def test_a_packet_has_its_time_its_lengths_and_its_comment():
    file = Pcapng("softlan")
    time_ns = 1_795_478_400_123_456_789
    body = blocks(file.packet(LAN, time_ns, b"abcde", length=1500, comment="dropped: jumbo"))[-1][1]
    number, high, low, kept, length = struct.unpack_from("<5I", body)
    assert (number, (high << 32) + low, kept, length) == (0, time_ns, 5, 1500)
    assert body[20:28] == b"abcde\0\0\0"
    assert options(body[28:]) == {1: b"dropped: jumbo"}


def test_a_packet_without_comment_has_no_options():
    body = blocks(Pcapng("softlan").packet(LAN, 0, b"abcd"))[-1][1]
    assert body[20:] == b"abcd"


def test_losses_are_told():
    kind, body = blocks(Pcapng("softlan").lost(LAN, 7, 12))[-1]
    assert kind == 5
    assert struct.unpack_from("<3I", body) == (0, 0, 7)
    assert options(body[12:]) == {5: struct.pack("<Q", 12)}


def test_a_comment_that_is_too_long_is_cut():
    body = blocks(Pcapng("softlan").packet(LAN, 0, b"abcd", comment="x" * 100_000))[-1][1]
    assert len(options(body[24:])[1]) == 0xFFFF
