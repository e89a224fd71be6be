"""The frames of `softlan ping`, against what a peer makes of them, and what it counts."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable, Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softlan._core import EthernetFrame, Mac
from softlan.client.library import Peer
from softlan.control.messages import Role
from softlan.doctor import ping_cli
from softlan.doctor.ping import ArpTarget, LoopbackTarget, Target, choose
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


def arp_reply(probe: bytes) -> bytes:
    return (
        bytes(OWN)
        + bytes(ANN)
        + probe[12:20]
        + b"\x00\x02"
        + bytes(ANN)
        + probe[38:42]
        + bytes(OWN)
        + bytes(4)
    )


def test_an_arp_probe_and_its_answer() -> None:
    target = ArpTarget(ipaddress.IPv4Address("192.168.88.2"))
    frame = target.frame(OWN, 4, 1000)
    assert frame[:6] == b"\xff" * 6
    assert frame[28:32] == bytes(4), "no address of one's own (RFC 5227)"
    assert len(frame) == 60
    said = arp_reply(frame)
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


class Line:
    """A way to one machine that answers each frame after `delay_s`, but for the numbers in `lost`; `sent` is told each number."""

    mac, room, relay, peers = OWN, "ROOM1", "relay.test:443", ()

    def __init__(
        self, delay_s: float = 0.0, lost: Collection[int] = (), sent: Callable[[int], object] = bool
    ) -> None:
        self._delay_s = delay_s
        self._lost = lost
        self._tell = sent
        self._sent = 0
        self._coming: asyncio.Queue[bytes] = asyncio.Queue()

    async def send(self, frame: bytes) -> None:
        number, self._sent = self._sent, self._sent + 1
        if number not in self._lost:
            answer = arp_reply(frame) if frame[12:14] == b"\x08\x06" else reply(frame)
            asyncio.get_running_loop().call_later(self._delay_s, self._coming.put_nowait, answer)
        self._tell(number)

    async def frames(self) -> AsyncIterator[bytes]:
        while True:
            yield await self._coming.get()


TARGETS = pytest.mark.parametrize(
    "target",
    [ArpTarget(ipaddress.IPv4Address("192.168.88.2")), LoopbackTarget(ANN, "ann")],
    ids=["arp", "cfm"],
)


@TARGETS
async def test_a_way_longer_than_the_interval_is_told_as_long_as_it_is(
    monkeypatch: pytest.MonkeyPatch, target: Target
) -> None:
    monkeypatch.setattr(ping_cli, "_WAIT_S", 30.0)
    run = ping_cli._Run(5, 0.05, 60, print)
    await run.measure(Line(delay_s=0.12), target, asyncio.Event())
    assert len(run.trips) == 5
    assert all(trip is not None and trip > 0.11 for trip in run.trips), run.trips


async def test_an_arp_probe_without_an_answer_is_the_one_that_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ping_cli, "_WAIT_S", 0.2)
    run = ping_cli._Run(4, 0.05, 60, print)
    await run.measure(Line(lost={1}), ArpTarget(ipaddress.IPv4Address("192.168.88.2")), asyncio.Event())
    assert [trip is None for trip in run.trips] == [False, True, False, False]


async def stopped(target: Target, lost: Collection[int]) -> list[bool]:
    """Say which were answered, in a run that is stopped as soon as the 11th is sent."""
    stopping = asyncio.Event()
    run = ping_cli._Run(1000, 0.05, 60, print)
    await run.measure(Line(lost=lost, sent=lambda n: n == 10 and stopping.set()), target, stopping)
    return [trip is not None for trip in run.trips]


async def test_what_is_under_way_when_it_is_stopped_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ping_cli, "_WAIT_S", 30.0)
    target = LoopbackTarget(ANN, "ann")
    assert await stopped(target, {10}) == [True] * 10
    assert await stopped(target, {8, 9, 10}) == [True] * 8
    assert await stopped(target, {4, 5, 10}) == [True] * 4 + [False] * 2 + [True] * 4
    # Nothing would be left to judge of who has not answered once.
    assert await stopped(target, range(11)) == [False] * 11
    monkeypatch.setattr(ping_cli, "_WAIT_S", 0.0)
    assert await stopped(target, {10}) == [True] * 10 + [False]
