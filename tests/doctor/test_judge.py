"""Numbers in, verdict out."""

from __future__ import annotations

import datetime

import pytest

from softlan._core import MIN_TAP_MTU, tap_mtu_for_datagram
from softlan.doctor import judge
from softlan.doctor.findings import Check, Finding, Grade, exit_status, worst
from softlan.doctor.knock import FULL_PAYLOAD, Line, PathMtu, Reach
from softlan.doctor.quic import Look
from softlan.knock import LEAST_PAYLOAD, Outcome

HERE = "203.0.113.1:443"


def reach(outcome: Outcome, address: str = HERE) -> Reach:
    answered = outcome is Outcome.ANSWERED
    return Reach(address, outcome, 0.02 if answered else None, (1,) if answered else (), "why", 2.5)


@pytest.mark.parametrize("outcome", Outcome)
def test_every_outcome_of_knocking_has_words(outcome: Outcome) -> None:
    found = judge.judge_udp([reach(outcome)], connected=False)
    assert HERE in found.says
    assert (found.grade is Grade.GOOD) == (outcome is Outcome.ANSWERED)
    assert (found.hint is None) == (found.grade is Grade.GOOD)


def test_a_connection_counts_more_than_silence() -> None:
    assert judge.judge_udp([reach(Outcome.SILENT)], connected=True).grade is Grade.GOOD


def test_the_first_of_two_addresses_is_silent() -> None:
    found = judge.judge_udp(
        [reach(Outcome.SILENT, "[2001:db8::1]:443"), reach(Outcome.ANSWERED)], connected=True
    )
    assert found.grade is Grade.POOR
    assert "[2001:db8::1]:443" in found.says


def test_of_several_failures_the_telling_one_is_told() -> None:
    found = judge.judge_udp([reach(Outcome.UNREACHABLE, "[::1]:1"), reach(Outcome.REFUSED)], connected=False)
    assert "nothing listens" in found.says


def test_the_tap_mtu_is_the_one_formulas() -> None:
    found = judge.judge_mtu(PathMtu(FULL_PAYLOAD, 28), None)
    assert found.grade is Grade.GOOD
    assert found.facts["path_mtu"] == 1500
    assert found.facts["tap_mtu"] == tap_mtu_for_datagram(1434) == 1416


@pytest.mark.parametrize(
    ("payload", "grade"),
    [
        (LEAST_PAYLOAD, Grade.POOR),
        (1252, Grade.POOR),
        (MIN_TAP_MTU + 18 + judge.QUIC_OVERHEAD - 1, Grade.POOR),
        (MIN_TAP_MTU + 18 + judge.QUIC_OVERHEAD, Grade.GOOD),
        (None, Grade.BAD),
    ],
)
def test_path_mtus(payload: int | None, grade: Grade) -> None:
    assert judge.judge_mtu(PathMtu(payload, 28), None).grade is grade


def test_what_quic_found_counts_more_than_the_estimate() -> None:
    assert judge.judge_mtu(PathMtu(FULL_PAYLOAD, 28), 1162).grade is Grade.POOR


def test_a_system_without_dont_fragment() -> None:
    assert judge.judge_mtu(None, 1434).grade is Grade.SKIPPED


def line(rtt: float, *, jitter: float = 0.0, lost: int = 0, count: int = 100) -> Line:
    trips: list[float | None] = [rtt + jitter * (n % 2) for n in range(count)]
    trips[:lost] = [None] * lost
    return Line(2.5, tuple(trips))


@pytest.mark.parametrize(
    ("measured", "grade", "words"),
    [
        (line(0.02), Grade.GOOD, "20 ms"),
        (line(0.0004), Grade.GOOD, "0.4 ms"),
        (line(0.02, lost=1), Grade.GOOD, "1.0 % lost"),
        (line(0.02, lost=2), Grade.POOR, "packets get lost"),
        (line(0.02, lost=5), Grade.BAD, "many packets get lost"),
        (line(0.15), Grade.POOR, "the way is long"),
        (line(0.3), Grade.BAD, "the way is very long"),
        (line(0.02, jitter=0.02), Grade.POOR, "unsteady"),
        (line(0.02, jitter=0.05), Grade.BAD, "very unsteady"),
        (line(0.3, lost=2), Grade.BAD, "the way is very long"),
        (line(0.02, lost=100), Grade.BAD, "none of 100"),
        (Line(0.1, (0.02,)), Grade.GOOD, "jitter 0.0 ms"),
        (Line(0.1, ()), Grade.BAD, "none of 0"),
    ],
)
def test_lines(measured: Line, grade: Grade, words: str) -> None:
    found = judge.judge_line(measured)
    assert (found.check, found.grade) == (Check.LINE, grade)
    assert words in found.says
    assert (found.hint is None) == (grade is Grade.GOOD)


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (Look(0.1, code=0x178), "not softlan/1"),
        (Look(4.0), "did not answer"),
        (Look(0.1, code=0x128, reason="handshake failure"), "handshake failure (QUIC error 0x128)"),
        (Look(0.1, "softlan/1", 1, b"", None, (1,)), "no QUIC datagrams"),
    ],
)
def test_handshakes_that_fail(seen: Look, words: str) -> None:
    found = judge.judge_handshake(HERE, seen)
    assert found.grade is Grade.BAD
    assert words in found.says
    assert found.hint


def test_a_handshake() -> None:
    found = judge.judge_handshake(HERE, Look(0.1, "softlan/1", 1, b"", 65535, (1,)))
    assert (found.grade, found.says) == (Grade.GOOD, "QUIC v1, softlan/1, datagrams, in 100 ms")


@pytest.mark.parametrize(
    ("days", "pinned", "grade"),
    [(0, False, Grade.GOOD), (-20, False, Grade.BAD), (20, False, Grade.BAD), (-20, True, Grade.POOR)],
)
def test_clocks(days: int, pinned: bool, grade: Grade) -> None:
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    week = datetime.timedelta(days=7)
    certificate = judge.Certificate("pin", ("name",), now - week, now + week)
    found = judge.judge_clock(certificate, now + datetime.timedelta(days=days), pinned_key=pinned)
    assert found.grade is grade
    assert ("the pin makes up for it" in found.says) == pinned


@pytest.mark.parametrize(
    ("protocols", "grade", "words"),
    [
        ((1,), Grade.GOOD, "version 1"),
        ((1, 2), Grade.GOOD, "version 1, 2"),
        ((2, 3), Grade.BAD, "version 2, 3"),
        ((0,), Grade.BAD, "version 0"),
        (None, Grade.POOR, "did not say"),
    ],
)
def test_protocols(protocols: tuple[int, ...] | None, grade: Grade, words: str) -> None:
    found = judge.judge_protocol(protocols)
    assert found.grade is grade
    assert words in found.says


def test_who_is_to_update() -> None:
    assert "softlan here" in str(judge.judge_protocol((2,)).hint)
    assert "operator has to update softlan" in str(judge.judge_protocol((0,)).hint)


@pytest.mark.parametrize(
    ("small", "full", "grade", "words"),
    [
        (25, 25, Grade.GOOD, "50 of 50"),
        (25, 24, Grade.POOR, "49 of 50"),
        (20, 20, Grade.BAD, "40 of 50"),
        (25, 0, Grade.BAD, "those of 1430 bytes do not"),
        (0, 0, Grade.BAD, "none of 50"),
    ],
)
def test_echoes(small: int, full: int, grade: Grade, words: str) -> None:
    found = judge.judge_echo(1430, (25, small), (25, full), 0.02 if small or full else None)
    assert found.grade is grade
    assert words in found.says


def test_parts_that_run() -> None:
    parts = [
        ("client", 7, {"connected": True, "room": "R", "rtt_ms": 12.3, "notices": []}),
        ("client", 8, {"connected": False, "relay": "r:443"}),
        ("gateway", 9, {"connected": True, "room": "R", "rtt_ms": 1.0, "notices": ["a loop"]}),
        ("relay", 1, {"listen": "0.0.0.0:443", "peer_count": 3, "rooms": [{"troubles": ["a storm"]}]}),
        ("relay", 2, {"listen": "0.0.0.0:443", "peer_count": 3, "rooms": []}),
    ]
    found = judge.judge_parts(parts)
    assert [finding.grade for finding in found] == [
        Grade.GOOD,
        Grade.POOR,
        Grade.POOR,
        Grade.POOR,
        Grade.GOOD,
    ]
    assert "12 ms" in found[0].says
    assert "not connected to r:443" in found[1].says
    assert "a loop" in found[2].says
    assert "a storm" in found[3].says


@pytest.mark.parametrize("part", ["relay", "client"])
def test_a_part_that_cannot_tell_how_it_does_is_not_good(part: str) -> None:
    (found,) = judge.judge_parts([(part, 1, {"error": "no numbers"})])
    assert found.grade is Grade.POOR
    assert found.says == f"{part} (pid 1): it cannot tell how it does: no numbers"


@pytest.mark.parametrize(
    ("grades", "status"),
    [
        ([], 0),
        ([Grade.SKIPPED], 0),
        ([Grade.GOOD, Grade.SKIPPED], 0),
        ([Grade.GOOD, Grade.POOR], 3),
        ([Grade.BAD, Grade.POOR, Grade.GOOD], 1),
    ],
)
def test_the_exit_status_says_the_worst(grades: list[Grade], status: int) -> None:
    assert exit_status([Finding(Check.NAME, grade, "") for grade in grades]) == status
    assert worst([]) is Grade.SKIPPED
