"""The doctor's findings for people, line by line as they come, and for programs."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import click

from softlan.doctor.findings import SECTIONS, Check, Finding, Grade, worst
from softlan.texts import several

__all__ = ["Teller", "as_json", "summary"]

_COLOURS = {Grade.GOOD: "green", Grade.POOR: "yellow", Grade.BAD: "red", Grade.SKIPPED: "bright_black"}
_MARKS = {Grade.SKIPPED: "-"}
_NAME_WIDTH = max(len(check) for check in Check)
_INDENT = 2 + 4 + 2 + _NAME_WIDTH + 2
_WIDTH = 110


class Teller:
    """Prints findings as they come, under the headings of their sections; colours on request."""

    def __init__(self, say: Callable[[str], None], *, colour: bool, width: int = _WIDTH) -> None:
        self._say = say
        self._colour = colour
        self._width = max(60, width)
        self._section = ""

    def tell(self, finding: Finding) -> None:
        """Print one."""
        section = next(name for name, checks in SECTIONS.items() if finding.check in checks)
        if section != self._section:
            self._say(("\n" if self._section else "") + self._paint(section, bold=True))
            self._section = section
        mark = self._paint(f"{_MARKS.get(finding.grade, finding.grade.value):<4}", fg=_COLOURS[finding.grade])
        first, *more = self._wrapped(finding.says)
        self._say(f"  {mark}  {finding.check.value:<{_NAME_WIDTH}}  {first}")
        for line in more:
            self._say(" " * _INDENT + line)
        if finding.hint and finding.grade is not Grade.GOOD:
            for number, line in enumerate(self._wrapped(finding.hint, room=3)):
                self._say(" " * _INDENT + ("-> " if number == 0 else "   ") + line)

    def _wrapped(self, text: str, room: int = 0) -> list[str]:
        wide = self._width - _INDENT - room
        return textwrap.wrap(text, wide, break_long_words=False, break_on_hyphens=False) or [""]

    def _paint(self, text: str, **style: Any) -> str:
        return click.style(text, **style) if self._colour else text


def summary(findings: Sequence[Finding]) -> str:
    """Count them: "all good (9 checks)", "1 bad, 2 poor, 8 good"."""
    counts = Counter(finding.grade for finding in findings)
    if not counts[Grade.BAD] and not counts[Grade.POOR]:
        good = counts[Grade.GOOD]
        return f"all good ({several(good, 'check')})" if good else "nothing could be checked"
    told = [f"{counts[grade]} {grade}" for grade in (Grade.BAD, Grade.POOR, Grade.GOOD) if counts[grade]]
    return ", ".join(told)


def as_json(findings: Sequence[Finding]) -> str:
    """Print all of them as one object: `worst`, and `findings`, each with `check`, `grade`, `says`, `hint`, `facts`."""
    told = [
        {"check": f.check, "grade": f.grade, "says": f.says, "hint": f.hint, "facts": dict(f.facts)}
        for f in findings
    ]
    return json.dumps({"worst": worst(f.grade for f in findings), "findings": told}, indent=2)
