"""Turns what was measured into findings: numbers in, verdict out. Pure; time comes in as an argument.

Where a part of softlan has words for a thing already (`observe.status`, the errors), those are used.
"""

from __future__ import annotations

import datetime
import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from softlan._core import MIN_TAP_MTU, tap_mtu_for_datagram
from softlan.control.messages import SUPPORTED_PROTOCOLS
from softlan.doctor.findings import Check, Finding, Grade, worst
from softlan.doctor.knock import Line, PathMtu, Reach
from softlan.doctor.quic import ALPN, Look
from softlan.installing import pip_install
from softlan.knock import LEAST_PAYLOAD, Outcome
from softlan.observe.local import fault_in
from softlan.observe.status import NoWay, say, suggest
from softlan.texts import several

__all__ = [
    "QUIC_OVERHEAD",
    "Certificate",
    "judge_clock",
    "judge_echo",
    "judge_handshake",
    "judge_line",
    "judge_mtu",
    "judge_name",
    "judge_parts",
    "judge_protocol",
    "judge_trips",
    "judge_udp",
    "milliseconds",
    "percent",
]

QUIC_OVERHEAD = 38
"""Bytes of a UDP payload that are no datagram's, as softlan's QUIC counts them: first byte, connection id (8), packet number (4),
seal (16), frame type and length (9); RFC 9000 section 17.3.1, RFC 9221 section 4."""

_NO_COMMON_PROTOCOL = 0x178
"""TLS alert no_application_protocol (RFC 7301 section 3.2) as a QUIC error (RFC 9000 section 20.1)."""

_QUIC_1 = 1

_RTT_S = (0.100, 0.250)
_JITTER_S = (0.012, 0.040)
_LOSS = (0.01, 0.03)
"""Up to which a line is good, and up to which it is poor."""

_NO_UDP = (
    "a firewall or router on the way drops UDP, or nothing runs there: try another network (a phone's), and ask the host whether the"
    " relay runs and its UDP port is open and forwarded"
)


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a relay's certificate says. Dates in UTC."""

    pin: str
    names: tuple[str, ...]
    begins: datetime.datetime
    ends: datetime.datetime


def milliseconds(seconds: float) -> str:
    """Print a short time: "0.4 ms", "23 ms"."""
    return f"{seconds * 1000:.{1 if seconds < 0.01 else 0}f} ms"


def percent(share: float) -> str:
    """Print a share of 0 to 1: "0 %", "0.8 %", "12 %"."""
    return f"{share * 100:.{1 if 0 < share < 0.1 else 0}f} %"


def judge_parts(parts: Sequence[tuple[str, int, Mapping[str, Any]]]) -> list[Finding]:
    """Say how the parts do that run here already: name, process id, status of each."""
    found = []
    for part, pid, status in parts:
        who = f"{part} (pid {pid})"
        facts = {"part": part, "pid": pid}
        troubles = [*status.get("notices", [])]
        troubles += [trouble for room in status.get("rooms", []) for trouble in room.get("troubles", [])]
        if fault := fault_in(status):
            troubles, says = [fault], ""
        elif part == "relay":
            says = f"{who} listens on {status.get('listen')}, {several(status.get('peer_count', 0), 'peer')}"
        elif status.get("connected"):
            says = f"{who} is in room {status.get('room')}, {status.get('rtt_ms', 0):.0f} ms from the relay"
        else:
            troubles.insert(0, f"it is not connected to {status.get('relay')}, and keeps trying")
            says = ""
        if troubles:
            hint = "its log says more; `softlan status` shows it"
            found.append(Finding(Check.PARTS, Grade.POOR, f"{who}: {'; '.join(troubles)}", hint, facts))
        else:
            found.append(Finding(Check.PARTS, Grade.GOOD, says, facts=facts))
    return found


def judge_name(host: str, addresses: Sequence[str]) -> Finding:
    """Say where the relay's name leads."""
    facts = {"addresses": list(addresses)}
    if list(addresses) == [host]:
        return Finding(Check.NAME, Grade.GOOD, f"{host} is an address, no name to look up", facts=facts)
    return Finding(Check.NAME, Grade.GOOD, f"{host} is {', '.join(addresses)}", facts=facts)


def judge_udp(reaches: Sequence[Reach], *, connected: bool) -> Finding:
    """Say whether UDP gets through to the relay and back; `connected`: a handshake came about, whatever the knocks did."""
    facts = {reach.address: reach.outcome.value for reach in reaches}
    good = [reach for reach in reaches if reach.outcome is Outcome.ANSWERED]
    if good:
        says = f"{good[0].address} answers after {milliseconds(good[0].rtt_s or 0.0)}"
        first = reaches[0]
        if first is good[0]:
            return Finding(Check.UDP, Grade.GOOD, says, facts=facts)
        return Finding(
            Check.UDP,
            Grade.POOR,
            f"{says}, but {first.address}, which is tried first, does not",
            "joining takes a moment longer; `--relay` with the address that answers avoids it",
            facts,
        )
    if connected:
        return Finding(
            Check.UDP,
            Grade.GOOD,
            f"{reaches[0].address} takes connections (it, or a filter before it, ignores the doctor's knocks)",
            facts=facts,
        )
    worst_of = min(reaches, key=lambda reach: _TELLING.index(reach.outcome))
    says, hint = _why_not(worst_of)
    return Finding(Check.UDP, Grade.BAD, says, hint, facts)


_TELLING = (
    Outcome.ANSWERED,
    Outcome.NOT_QUIC,
    Outcome.REFUSED,
    Outcome.FORBIDDEN,
    Outcome.SILENT,
    Outcome.UNREACHABLE,
)
"""Which of several addresses' failures is the one to tell."""


def _why_not(reach: Reach) -> tuple[str, str]:
    match reach.outcome:
        case Outcome.NOT_QUIC:
            return (
                f"something answers at {reach.address}, but it does not speak QUIC",
                "check the port: another program has it",
            )
        case Outcome.REFUSED | Outcome.FORBIDDEN | Outcome.UNREACHABLE:
            state = NoWay(reach.address, reach.outcome, reach.why)
            return say(state), suggest(state) or ""
        case _:
            return f"no answer from {reach.address} over UDP within {reach.waited_s:g} s", _NO_UDP


def judge_mtu(found: PathMtu | None, budget: int | None) -> Finding:
    """Say what the path carries and which TAP MTU follows; `budget` is what softlan's own QUIC found, where it connected."""
    if found is None:
        says = "this system cannot send packets that must not be fragmented"
        return Finding(Check.MTU, Grade.SKIPPED, says)
    if found.payload is None:
        where = "this machine's interface" if found.here else "the path"
        return Finding(
            Check.MTU,
            Grade.BAD,
            f"{where} does not carry packets of {LEAST_PAYLOAD + found.headers} bytes, which QUIC needs",
            "a VPN or tunnel on the way has too small an MTU: raise it, or go round it",
        )
    mtu = found.payload + found.headers
    budget = budget or found.payload - QUIC_OVERHEAD
    room = tap_mtu_for_datagram(budget)
    facts = {"path_mtu": mtu, "udp_payload": found.payload, "datagram_budget": budget, "tap_mtu": room}
    if room < MIN_TAP_MTU:
        return Finding(
            Check.MTU,
            Grade.POOR,
            f"the path carries packets of {mtu} bytes, so frames above {room} bytes travel in pieces",
            "it works as it is; a VPN, tunnel or mobile link on the way is the usual cause",
            facts,
        )
    says = f"the path carries packets of {mtu} bytes, good for a TAP MTU of {room}"
    return Finding(Check.MTU, Grade.GOOD, says, facts=facts)


def judge_line(line: Line) -> Finding:
    """Judge round trip, jitter and loss on the way to the relay."""
    return judge_trips(Check.LINE, line.trips, f"in {line.seconds:g} s")


def judge_trips(check: Check, trips: Sequence[float | None], when: str) -> Finding:
    """Judge round trips in the order they were sent, None for those lost.

    Jitter is the mean difference between one and the next (as RFC 3550 section 6.4.1, without its smoothing).
    """
    came = [trip for trip in trips if trip is not None]
    loss = (len(trips) - len(came)) / len(trips) if trips else 1.0
    if not came:
        return Finding(
            check,
            Grade.BAD,
            f"none of {len(trips)} packets came back {when}",
            _LINE_HINTS["loss"],
            {"loss": 1.0},
        )
    rtt = statistics.median(came)
    jitter = statistics.fmean(abs(b - a) for a, b in itertools.pairwise(came)) if came[1:] else 0.0
    grades = {
        "loss": _step(loss, _LOSS),
        "rtt": _step(rtt, _RTT_S),
        "jitter": _step(jitter, _JITTER_S),
    }
    grade = worst(grades.values())
    cause = next(name for name, one in grades.items() if one is grade)
    says = f"{milliseconds(rtt)} there and back, jitter {milliseconds(jitter)}, {percent(loss)} lost {when}"
    facts = {
        "sent": len(trips),
        "lost": len(trips) - len(came),
        "loss": round(loss, 4),
        "rtt_ms": round(rtt * 1000, 3),
        "rtt_min_ms": round(min(came) * 1000, 3),
        "rtt_max_ms": round(max(came) * 1000, 3),
        "jitter_ms": round(jitter * 1000, 3),
    }
    if grade is Grade.GOOD:
        return Finding(check, grade, says, facts=facts)
    return Finding(check, grade, f"{_LINE_WORDS[cause, grade]}: {says}", _LINE_HINTS[cause], facts)


_LINE_WORDS = {
    ("loss", Grade.POOR): "packets get lost",
    ("loss", Grade.BAD): "many packets get lost",
    ("rtt", Grade.POOR): "the way is long",
    ("rtt", Grade.BAD): "the way is very long",
    ("jitter", Grade.POOR): "the line is unsteady",
    ("jitter", Grade.BAD): "the line is very unsteady",
}
_LINE_HINTS = {
    "loss": "use a cable in place of Wi-Fi, and stop uploads on this line; if it stays, try another provider or relay",
    "rtt": "a relay nearer to the players helps; a VPN on this machine may take the traffic a long way round",
    "jitter": "use a cable in place of Wi-Fi, and stop uploads and downloads on this line",
}


def _step(value: float, limits: tuple[float, float]) -> Grade:
    good, poor = limits
    return Grade.GOOD if value <= good else Grade.POOR if value <= poor else Grade.BAD


def judge_handshake(relay: str, seen: Look) -> Finding:
    """Say whether QUIC and softlan's ALPN are spoken there."""
    if seen.alpn is None:
        if seen.code == _NO_COMMON_PROTOCOL:
            return Finding(
                Check.HANDSHAKE,
                Grade.BAD,
                f"{relay} speaks QUIC, but not {ALPN}: it is no softlan relay, or one of another version",
                "check the port with the host, and that both run the same version of softlan",
                {"code": seen.code},
            )
        if seen.code is None:
            return Finding(
                Check.HANDSHAKE,
                Grade.BAD,
                f"{relay} did not answer a QUIC handshake within {seen.seconds:.0f} s",
                "if knocks are answered above, a filter on the way blocks QUIC: try another network or port",
            )
        return Finding(
            Check.HANDSHAKE,
            Grade.BAD,
            f"the handshake with {relay} failed: {seen.reason or 'no reason given'} (QUIC error {seen.code:#x})",
            "the relay's log may say more; report it with this line if both run the same version",
            {"code": seen.code},
        )
    facts = {"alpn": seen.alpn, "version": seen.version, "seconds": round(seen.seconds, 4)}
    if not seen.datagrams:
        says = f"{relay} takes no QUIC datagrams (RFC 9221)"
        hint = "it is no softlan relay: check the port with the host"
        return Finding(Check.HANDSHAKE, Grade.BAD, says, hint, facts)
    version = f"v{seen.version}" if seen.version == _QUIC_1 else f"{seen.version:#x}"
    says = f"QUIC {version}, {seen.alpn}, datagrams, in {milliseconds(seen.seconds)}"
    return Finding(Check.HANDSHAKE, Grade.GOOD, says, facts=facts)


def judge_clock(certificate: Certificate, now: datetime.datetime, *, pinned_key: bool) -> Finding:
    """Hold this machine's clock to the dates of the relay's certificate; with `pinned_key` nothing depends on them."""
    grade = Grade.POOR if pinned_key else Grade.BAD
    facts = {"now": _moment(now), "begins": _moment(certificate.begins), "ends": _moment(certificate.ends)}
    spared = "; the pin makes up for it here, but other programs will trip over it" if pinned_key else ""
    if now < certificate.begins:
        return Finding(
            Check.CLOCK,
            grade,
            f"this machine's clock says {_day(now)}, and the relay's certificate begins on {_day(certificate.begins)}{spared}",
            "set this machine's clock: it is behind (or the relay's was ahead when it made the certificate)",
            facts,
        )
    if now > certificate.ends:
        return Finding(
            Check.CLOCK,
            grade,
            f"this machine's clock says {_day(now)}, and the relay's certificate ended on {_day(certificate.ends)}{spared}",
            "check this machine's clock; if it is right, the relay's operator must renew the certificate",
            facts,
        )
    says = f"{_day(now)}, within the dates of the relay's certificate (until {certificate.ends:%Y-%m-%d})"
    return Finding(Check.CLOCK, Grade.GOOD, says, facts=facts)


def judge_protocol(protocols: Iterable[int] | None) -> Finding:
    """Say whether relay and this softlan have a version of the protocol in common."""
    ours = ", ".join(map(str, SUPPORTED_PROTOCOLS))
    if protocols is None:
        return Finding(
            Check.PROTOCOL,
            Grade.POOR,
            "the relay did not say which versions of softlan's protocol it speaks",
            "it may be busy, or have too many hellos from this address: try again in a minute",
        )
    theirs = tuple(protocols)
    facts = {"relay": list(theirs), "here": list(SUPPORTED_PROTOCOLS)}
    told = ", ".join(map(str, theirs))
    if set(theirs).isdisjoint(SUPPORTED_PROTOCOLS):
        newer = min(theirs) > max(SUPPORTED_PROTOCOLS)
        return Finding(
            Check.PROTOCOL,
            Grade.BAD,
            f"the relay speaks version {told} of softlan's protocol, this softlan version {ours}",
            f"update softlan here: {pip_install('--upgrade', 'softlan')}"
            if newer
            else "the relay's operator has to update softlan there",
            facts,
        )
    return Finding(
        Check.PROTOCOL, Grade.GOOD, f"the relay speaks version {told}, as does this softlan", facts=facts
    )


def judge_echo(size: int, small: tuple[int, int], full: tuple[int, int], trip_s: float | None) -> Finding:
    """Judge frames sent through the room: (sent, came) for small ones and for those of `size` bytes; the median of their trips."""
    sent, came = small[0] + full[0], small[1] + full[1]
    loss = (sent - came) / sent
    facts = {"sent": sent, "came": came, "size": size, "small": list(small), "full": list(full)}
    if trip_s is None or not came:
        return Finding(
            Check.ECHO,
            Grade.BAD,
            f"none of {sent} frames came through the room",
            "the relay lets peers in but carries no frames: its log, with --frame-log drops, says why",
            facts,
        )
    if small[1] and not full[1]:
        return Finding(
            Check.ECHO,
            Grade.BAD,
            f"small frames come through the room, those of {size} bytes do not",
            "something on the way drops large packets without a word: see `mtu` above, and tell the relay's operator",
            facts,
        )
    says = f"{came} of {sent} frames of up to {size} bytes came through the room, in {milliseconds(trip_s)}"
    facts["trip_ms"] = round(trip_s * 1000, 3)
    grade = _step(loss, _LOSS)
    return Finding(Check.ECHO, grade, says, None if grade is Grade.GOOD else _LINE_HINTS["loss"], facts)


def _day(moment: datetime.datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _moment(moment: datetime.datetime) -> str:
    return moment.isoformat(timespec="seconds")
