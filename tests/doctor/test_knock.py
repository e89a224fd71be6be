"""Knocks: their bytes, and what real sockets make of them on loopback."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softlan.doctor import knock
from softlan.knock import Outcome, knock_packet, read_answer

OWN = b"12345678"


def answer(packet: bytes, versions: tuple[int, ...] = (1, 0xFF00001D)) -> bytes:
    """A Version Negotiation packet as RFC 9000 section 17.2.1 has it: the knock's ids exchanged."""
    theirs = packet[6 : 6 + packet[5]]
    at = 6 + packet[5]
    ours = packet[at + 1 : at + 1 + packet[at]]
    ids = bytes((len(ours),)) + ours + bytes((len(theirs),)) + theirs
    return b"\xc0" + bytes(4) + ids + b"".join(version.to_bytes(4, "big") for version in versions)


@given(size=st.integers(1200, 1472))
def test_a_knock_and_its_answer(size: int) -> None:
    packet = knock_packet(OWN, size)
    assert len(packet) == size
    assert packet[0] & 0x80
    version = int.from_bytes(packet[1:5], "big")
    assert version & 0x0F0F0F0F == 0x0A0A0A0A, "a version kept free for asking (RFC 9000 section 15)"
    assert read_answer(answer(packet)) == (OWN, (1, 0xFF00001D))
    assert read_answer(packet) is None


@given(data=st.binary(max_size=80), head=st.sampled_from([b"", b"\x80\0\0\0\0", b"\x80\0\0\0\0\x08"]))
def test_any_bytes_are_an_answer_or_none(data: bytes, head: bytes) -> None:
    read = read_answer(head + data)
    assert read is None or len(read[1]) >= 1


@given(lower=st.integers(1200, 1473), width=st.integers(1, 300))
def test_the_search_for_the_mtu_ends(lower: int, width: int) -> None:
    upper = lower + width
    truth = lower + width // 3
    for _ in range(20):
        sizes = knock.next_sizes(lower, upper)
        assert all(lower < size < upper for size in sizes)
        if not sizes:
            break
        lower = max((size for size in sizes if size <= truth), default=lower)
        upper = min((size for size in sizes if size > truth), default=upper)
    assert upper - lower == 1
    assert lower <= truth < upper


Answering = Callable[[bytes], bytes | None]


class Echoer:
    """A UDP socket on loopback that answers as it is told."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.place: tuple[str, int] = self._socket.getsockname()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            data, sender = self._socket.recvfrom(4096)
            if data == b"end":
                return
            if (said := self._answering(data)) is not None:
                self._socket.sendto(said, sender)

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"end", self.place)
        self._thread.join(10)
        self._socket.close()


@pytest.fixture
def echoer() -> Iterator[Callable[[Answering], tuple[str, int]]]:
    made: list[Echoer] = []

    def make(answering: Answering) -> tuple[str, int]:
        made.append(Echoer(answering))
        return made[-1].place

    yield make
    for one in made:
        one.close()


def test_it_answers(echoer: Callable[[Answering], tuple[str, int]]) -> None:
    found = knock.reach(echoer(answer))
    assert found.outcome is Outcome.ANSWERED
    assert found.versions == (1, 0xFF00001D)
    assert found.rtt_s is not None


@pytest.mark.parametrize("said", [b"", b"what?", answer(knock_packet(b"not ours", 1200))])
def test_it_speaks_another_language(said: bytes, echoer: Callable[[Answering], tuple[str, int]]) -> None:
    assert knock.reach(echoer(lambda _: said)).outcome is Outcome.NOT_QUIC


def test_it_is_silent(echoer: Callable[[Answering], tuple[str, int]]) -> None:
    found = knock.reach(echoer(lambda _: None), within_s=0.4)
    assert (found.outcome, found.waited_s) == (Outcome.SILENT, 0.4)


def test_nobody_listens() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        place = taken.getsockname()
    assert knock.reach(place).outcome is Outcome.REFUSED


def test_lost_knocks_are_those_that_are_lost(echoer: Callable[[Answering], tuple[str, int]]) -> None:
    count = iter(range(1000))
    place = echoer(lambda packet: None if next(count) % 4 == 1 else answer(packet))
    line = knock.measure_line(place, 0.2, interval_s=0.01)
    assert [trip is None for trip in line.trips] == [number % 4 == 1 for number in range(20)]


def test_the_largest_that_arrives_is_found(echoer: Callable[[Answering], tuple[str, int]]) -> None:
    place = echoer(lambda packet: answer(packet) if len(packet) <= 1317 else None)
    assert knock.measure_mtu(place, rtt_s=0.001) == knock.PathMtu(1317, 28)


def test_nothing_of_quics_size_arrives(echoer: Callable[[Answering], tuple[str, int]]) -> None:
    place = echoer(lambda packet: answer(packet) if len(packet) < 1200 else None)
    assert knock.measure_mtu(place, rtt_s=0.001) == knock.PathMtu(None, 28)
