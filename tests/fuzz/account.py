"""What has been fuzzed for how long, added up over all sessions: the account in `rust/fuzz/account.json`, without I/O.

Time is the processor's, not the clock's: fuzzers run when nobody else wants the machine, and are stopped while somebody measures.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

GOAL_S = 3600
"""What each target is to have had."""

_SPENT = re.compile(
    r"^([a-z]+): (\d+) inputs in ([0-9.]+) s of processor time, .*?(nothing found|a promise broken)"
)


@dataclass(frozen=True)
class Entry:
    """What one target had on one day, of one state of the code."""

    target: str
    day: str
    commit: str
    cpu_s: float
    inputs: int
    found: int


def read_spent(line: str, day: str, commit: str) -> Entry | None:
    """An entry from the line with which a run of `rust/fuzz/run` or `run.py` ends; nothing from any other line."""
    match = _SPENT.match(line)
    if match is None:
        return None
    target, inputs, cpu_s, verdict = match.groups()
    return Entry(target, day, commit, float(cpu_s), int(inputs), int(verdict != "nothing found"))


def ended(target: str, day: str, commit: str, cpu_s: float) -> Entry:
    """An entry for a run that did not come to say its line, as something ended its whole process: that is a finding."""
    return Entry(target, day, commit, round(cpu_s, 1), 0, 1)


def added(account: Sequence[Entry], entry: Entry) -> list[Entry]:
    """The account with one more entry, in one with what its target had of the same code on the same day."""
    kept = list(account)
    for place, former in enumerate(kept):
        if (former.target, former.day, former.commit) == (entry.target, entry.day, entry.commit):
            kept[place] = replace(
                former,
                cpu_s=round(former.cpu_s + entry.cpu_s, 1),
                inputs=former.inputs + entry.inputs,
                found=former.found + entry.found,
            )
            return kept
    return sorted([*kept, entry], key=lambda each: (each.target, each.day))


def next_target(account: Sequence[Entry], targets: Sequence[str]) -> str:
    """The one of `targets` that has had the least."""
    return min(targets, key=lambda target: sum(entry.cpu_s for entry in account if entry.target == target))


def table(account: Sequence[Entry], targets: Sequence[str]) -> str:
    """The account for a document: a line for each target, also for those that had nothing yet."""
    lines = [
        "| target | processor time | of an hour | inputs | broken promises | of the code at |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for target in targets:
        own = [entry for entry in account if entry.target == target]
        spent = sum(entry.cpu_s for entry in own)
        commits = list(dict.fromkeys(entry.commit for entry in own))
        lines.append(
            f"| `{target}` | {spent / 60:.1f} min | {100 * spent / GOAL_S:.0f} % | {sum(entry.inputs for entry in own):,}"
            f" | {sum(entry.found for entry in own)} | {', '.join(commits) or '-'} |"
        )
    days = sorted({entry.day for entry in account})
    if days:
        lines += ["", f"{days[0]} to {days[-1]}." if days[0] != days[-1] else f"{days[0]}."]
    return "\n".join(lines)


def as_json(account: Sequence[Entry]) -> list[dict[str, Any]]:
    """The account for its file."""
    return [asdict(entry) for entry in account]


def from_json(content: Sequence[dict[str, Any]]) -> list[Entry]:
    """The account from its file."""
    return [Entry(**entry) for entry in content]
