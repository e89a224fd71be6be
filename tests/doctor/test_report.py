"""The doctor's lines, for people and programs."""

from __future__ import annotations

import json

from softlan.doctor.findings import SECTIONS, Check, Finding, Grade
from softlan.doctor.report import Teller, as_json, summary

FINDINGS = [
    Finding(Check.ADAPTER, Grade.GOOD, "a virtual adapter can be made"),
    Finding(Check.UDP, Grade.GOOD, "it answers", "a hint nobody needs"),
    Finding(Check.LINE, Grade.POOR, "packets get lost", "use a cable", {"lost": 3}),
    Finding(Check.ROOM, Grade.SKIPPED, "not tried", "give the invite"),
    Finding(Check.ECHO, Grade.BAD, "word " * 40, "next " * 40),
]


def told(*, colour: bool = False, width: int = 80) -> list[str]:
    lines: list[str] = []
    teller = Teller(lines.append, colour=colour, width=width)
    for finding in FINDINGS:
        teller.tell(finding)
    return "\n".join(lines).split("\n")


def test_every_check_is_in_one_section() -> None:
    listed = [check for checks in SECTIONS.values() for check in checks]
    assert sorted(listed) == sorted(Check)


def test_lines() -> None:
    lines = told()
    assert lines[:7] == [
        "this machine",
        "  good  adapter      a virtual adapter can be made",
        "",
        "the way to the relay",
        "  good  udp          it answers",
        "  poor  line         packets get lost",
        "                     -> use a cable",
    ]
    assert "  -     room         not tried" in lines
    assert max(map(len, lines)) <= 80
    assert not any(line != line.rstrip() for line in lines)


def test_colours_change_nothing_but_colours() -> None:
    painted = "\n".join(told(colour=True))
    assert "\x1b[31mbad \x1b[0m" in painted
    assert "\x1b" not in "\n".join(told())


def test_the_summary() -> None:
    assert summary(FINDINGS) == "1 bad, 1 poor, 2 good"
    assert summary(FINDINGS[:2]) == "all good (2 checks)"
    assert summary(FINDINGS[:1]) == "all good (1 check)"
    assert summary([]) == "nothing could be checked"


def test_json() -> None:
    read = json.loads(as_json(FINDINGS))
    assert read["worst"] == "bad"
    assert read["findings"][2] == {
        "check": "line",
        "grade": "poor",
        "says": "packets get lost",
        "hint": "use a cable",
        "facts": {"lost": 3},
    }
