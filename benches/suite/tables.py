"""Results as tables, in the notation Markdown and people both read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from peers import SYSTEMS

from .goals import judged
from .lines import CASES

Results = Mapping[str, Any]
_TITLES = {system.name: system.title for system in SYSTEMS}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Give a table with aligned columns."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    told = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    return "\n".join([told[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *told[1:]])


def at_lan_speed(results: Results) -> str:
    """Give the table of what was measured without a bad line; empty when nothing was."""
    head = ["system", "idle ping p50 / p99 ms", "TCP up", "TCP down", "ping while up p50 / p99 ms", "lost"]
    head += ["ping while down p50 / p99 ms", "lost", "CPU s/GB", "UDP 1200 B/s", "UDP 100 B/s"]
    rows = [
        [
            *(_TITLES[name], _pair(told, "idle"), _number(told["up"]), _number(told["down"])),
            *(_pair(told, "up_ping"), _part(told, "up_ping"), _pair(told, "down_ping")),
            *(_part(told, "down_ping"), _number(told["cpu_per_gb"], 2)),
            *(_number(told.get("udp_1200")), _number(told.get("udp_100"))),
        ]
        for name, told in results["systems"].items()
    ]
    return table(head, rows) if rows else ""


def over_lines(results: Results) -> str:
    """Give one table for all bad lines; empty when none was measured."""
    head = ["line", "system", "idle ping p50", "TCP down", "line full", "ping p50 / p99", "lost"]
    head += ["TCP up", "line full", "ping p50 / p99", "lost"]
    rows = []
    for case in CASES:
        for name, told in results["lines"].get(case.key, {}).items():
            row = [case.line.name, _TITLES[name], _number(told["idle_p50"], 1)]
            for way in ("down", "up"):
                full = told[f"{way}_line_full"]
                row += [_number(told[way], 1), "" if full is None else f"{full:.0%}"]
                row += [_pair(told, f"{way}_ping", 1), _part(told, f"{way}_ping")]
            rows.append(row)
    return table(head, rows) if rows else ""


def goals(results: Results) -> str:
    """Give the table of goals."""
    words = {True: "met", False: "**not met**", None: ""}
    return table(
        ["goal", "wanted", "measured", ""],
        [[verdict.name, verdict.wanted, verdict.measured, words[verdict.met]] for verdict in judged(results)],
    )


def stalls(results: Results) -> str:
    """Give a line about the stalls; empty when they were not looked for."""
    told = results.get("stalls")
    if not told:
        return ""
    rates = " / ".join(_number(told[name], 1) for name in ("slowest", "median", "fastest"))
    words = f"{told['line']}, {told['system']}: {told['stalled']} of {told['runs']} runs of {told['seconds']:g} s stalled, "
    words += f"{told['failed']} did not come up; "
    words += f"slowest / median / fastest run {rates} Mbit/s."
    if "origin" in told:
        words += f" ({told['origin']})"
    return words + "".join(f"\n- seed {run['seed']}: {run['words']}" for run in told["bad"])


def left_out(results: Results) -> str:
    """Say what is not in the tables and why; empty when all is."""
    return "\n".join(f"Left out: {name} ({reason})" for name, reason in results["left_out"].items())


def everything(results: Results) -> str:
    """Give all tables one below the other."""
    busiest = max((told["idle_load"] for told in results["systems"].values()), default=0.0)
    noise = (
        f"The machine was not quiet: {busiest:.1f} of its CPUs were busy with nothing to do."
        if busiest > 0.15
        else ""
    )
    parts = [
        noise,
        at_lan_speed(results),
        over_lines(results),
        stalls(results),
        goals(results),
        left_out(results),
    ]
    return "\n\n".join(part for part in parts if part)


def _number(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _pair(told: Results, name: str, digits: int = 2) -> str:
    return f"{_number(told[f'{name}_p50'], digits)} / {_number(told[f'{name}_p99'], digits)}"


def _part(told: Results, name: str) -> str:
    sent = told[f"{name}_sent"]
    return f"{100 * told[f'{name}_lost'] / sent:.1f} %" if sent else ""
