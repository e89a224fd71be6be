"""The frames of `softlan ping`, against what a peer makes of them."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softlan._core import EthernetFrame, Mac
from softlan.client.library import Peer
from softlan.control.messages import Role
from softlan.doctor.ping import ArpTarget, LoopbackTarget, choose
from softlan.doctor.ways import OwnAdapter
from softlan.errors import ConfigError, SoftlanError

OWN, ANN = Mac("02:00:00:00:00:01"), Mac("02:00:00:00:00:02")
PEERS = [Peer(1, Role.GATEWAY, None), Peer(2, Role.CLIENT, ANN)]


def reply(frame: bytes) -> bytes:
    return frame[6:12] + frame[:6] + frame[12:15] + b"\x02" + frame[16:]


@given(number=st.integers(0, 2**32 - 1), size=st.integers(0, 1514))
def test_a_loopback_message(number: int, size: int) -> None:
    target = LoopbackTarget(ANN, "ann")
    frame = target.frame(OWN, number, size)
    parsed = EthernetFrame.parse(frame)
    assert (parsed.destination, parsed.source, parsed.ethertype) == (ANN, OWN, 0x8902)
    assert len(frame) == max(size, 60)
    # Version and level, OpCode, flags, offset of the first TLV; the TLV fills all but the end (IEEE 802.1Q 21.4, 21.7).
    assert frame[14:18] == b"\xe0\x03\x00\x04"
    assert frame[22] == 3
    assert 25 + int.from_bytes(frame[23:25], "big") + 1 == len(frame)
    assert frame[-1] == 0
    assert target.number_of(reply(frame), OWN) == number
    assert target.number_of(frame, OWN) is None
    assert LoopbackTarget(ANN, "another run").number_of(reply(frame), OWN) is None
    assert target.number_of(reply(frame), ANN) is None


@given(data=st.binary(max_size=70))
def test_any_bytes_are_an_answer_or_none(data: bytes) -> None:
    for target in (LoopbackTarget(ANN, "ann"), ArpTarget(ipaddress.IPv4Address("192.168.88.2"))):
        assert target.number_of(data, OWN) is None


def test_an_arp_probe_and_its_answer() -> None:
    target = ArpTarget(ipaddress.IPv4Address("192.168.88.2"))
    frame = target.frame(OWN, 4, 1000)
    assert frame[:6] == b"\xff" * 6
    assert frame[28:32] == bytes(4), "no address of one's own (RFC 5227)"
    assert len(frame) == 60
    head = bytes(OWN) + bytes(ANN) + frame[12:20]
    said = head + b"\x00\x02" + bytes(ANN) + bytes([192, 168, 88, 2]) + bytes(OWN) + bytes(4)
    assert target.number_of(said, OWN) == 4
    assert target.frame(OWN, 5, 0)[:6] == bytes(ANN), "from then on to the one who answered"
    other = said[:28] + bytes([192, 168, 88, 3]) + said[32:]
    assert target.number_of(other, OWN) is None
    assert target.number_of(frame, OWN) is None


@pytest.mark.parametrize("wanted", ["2", " 2 ", str(ANN), "02-00-00-00-00-02"])
def test_a_player_is_chosen(wanted: str) -> None:
    assert choose(wanted, PEERS).name == f"peer 2 ({ANN})"


def test_an_address_is_chosen() -> None:
    assert choose("192.168.88.2", []).name == "192.168.88.2"


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("1", "gateway"),
        ("7", "no peer 7"),
        ("02:00:00:00:00:07", "no player"),
        ("ann", "neither"),
        ("", "neither"),
    ],
)
def test_nobody_is_chosen(wanted: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        choose(wanted, PEERS)
    assert refused.value.hint


async def test_an_adapter_that_is_gone_is_told_in_words() -> None:
    """The kernel's word comes by a socket's next use; here it is that nobody listens at a port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        nobody = one.getsockname()
    way = object.__new__(OwnAdapter)
    way._interface = "softlan0"
    way._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with way._socket:
        way._socket.setblocking(False)
        way._socket.connect(nobody)
        await way.send(b"frame")
        with pytest.raises(
            SoftlanError, match="the adapter softlan0 cannot be used any more: Connection refused"
        ):
            await anext(aiter(way.frames()))
        await way.send(b"frame")
        with pytest.raises(
            SoftlanError, match="the adapter softlan0 cannot be used any more: Connection refused"
        ):
            await way.send(b"frame")
