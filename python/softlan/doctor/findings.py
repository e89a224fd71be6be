"""What a check found: a grade, a sentence, what to do next. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from softlan.errors import SoftlanError

__all__ = ["SECTIONS", "Check", "Finding", "Grade", "exit_status", "from_error", "worst"]


class Grade(StrEnum):
    """How it is. `SKIPPED` says nothing about the matter: it could not be, or was not to be, looked at."""

    GOOD = "good"
    POOR = "poor"
    BAD = "bad"
    SKIPPED = "skipped"


class Check(StrEnum):
    """What is looked at, in the order it is told."""

    PARTS = "running"
    ADAPTER = "adapter"
    PROFILE = "profile"
    FIREWALL = "firewall"
    NAME = "name"
    UDP = "udp"
    MTU = "mtu"
    LINE = "line"
    HANDSHAKE = "handshake"
    CERTIFICATE = "certificate"
    CLOCK = "clock"
    PROTOCOL = "protocol"
    ROOM = "room"
    ECHO = "echo"
    INTERFACE = "interface"
    BRIDGING = "bridging"
    DHCP = "dhcp"


SECTIONS: Mapping[str, tuple[Check, ...]] = {
    "this machine": (Check.PARTS, Check.ADAPTER, Check.PROFILE, Check.FIREWALL),
    "the way to the relay": (Check.NAME, Check.UDP, Check.MTU, Check.LINE),
    "the relay": (Check.HANDSHAKE, Check.CERTIFICATE, Check.CLOCK, Check.PROTOCOL),
    "the room": (Check.ROOM, Check.ECHO),
    "the LAN": (Check.INTERFACE, Check.BRIDGING, Check.DHCP),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's: `says` is a sentence without a full stop, `facts` what JSON shows besides."""

    check: Check
    grade: Grade
    says: str
    hint: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


_ORDER = (Grade.SKIPPED, Grade.GOOD, Grade.POOR, Grade.BAD)

_EXIT_STATUS = {Grade.SKIPPED: 0, Grade.GOOD: 0, Grade.POOR: 3, Grade.BAD: 1}
"""2 is for what was asked for wrongly, as with every command of softlan's."""


def worst(grades: Iterable[Grade]) -> Grade:
    """Give the worst of them; `SKIPPED` when there is none."""
    return max(grades, key=_ORDER.index, default=Grade.SKIPPED)


def exit_status(findings: Iterable[Finding]) -> int:
    """Say what a command ends with: 0 all is good, 3 something is poor, 1 something is bad."""
    return _EXIT_STATUS[worst(finding.grade for finding in findings)]


def from_error(check: Check, error: SoftlanError, grade: Grade = Grade.BAD) -> Finding:
    """Tell an error in its own words."""
    return Finding(check, grade, str(error), error.hint)
