"""Results as one picture (needs matplotlib, the extra `bench`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peers import SYSTEMS
from softlan.lab import LabError

from .lines import CASES

Results = Mapping[str, Any]
_TITLES = {system.name: system.title for system in SYSTEMS}
_OURS = "#c2410c"
_PEERS = "#64748b"
_BOUNDS = "#cbd5e1"
_COLOURS = {
    system.name: _OURS if system.name == "softlan" else _PEERS if system.tunnel else _BOUNDS
    for system in SYSTEMS
}


def need_matplotlib() -> None:
    """Raise `LabError` with a hint where matplotlib is not installed."""
    try:
        import matplotlib as _  # noqa: F401
    except ImportError:
        raise LabError(
            "matplotlib is not installed", hint="pip install 'softlan[bench]', or go without with --no-plot"
        ) from None


def draw(results: Results, file: Path) -> None:
    """Write the picture."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False})
    systems, lines = results["systems"], results["lines"]
    rows = (2 if systems else 0) + (2 if lines else 0)
    if not rows:
        return
    figure = plt.figure(figsize=(13, 3.7 * rows), layout="constrained")
    grid = figure.add_gridspec(rows, 12)
    row = 0
    if systems:
        _pairs(figure.add_subplot(grid[0, :6]), systems, ("up", "down"), "TCP, one stream, Mbit/s (up, down)")
        _pairs(
            figure.add_subplot(grid[0, 6:]), systems, ("cpu_per_gb",), "CPU seconds of the machine a GB moved"
        )
        ax = figure.add_subplot(grid[1, :6])
        _pings(ax, systems)
        if any(told.get("udp_1200") for told in systems.values()):
            _pairs(
                figure.add_subplot(grid[1, 6:]),
                systems,
                ("udp_1200", "udp_100"),
                "UDP packets a second with < 1 % lost (1200 B, 100 B)",
            )
        row = 2
    if lines:
        wanted = [case for case in CASES if case.key in lines]
        width = 12 // len(wanted)
        for place, case in enumerate(wanted):
            told = lines[case.key]
            span = slice(place * width, (place + 1) * width)
            ax = figure.add_subplot(grid[row, span])
            name = case.line.name.replace(", 0.5", ",\n0.5")
            _pairs(ax, told, ("down", "up"), f"{name}\nTCP, Mbit/s (down, up)", log=False)
            ax.axvline(case.line.rate / 1e6, color="black", linewidth=0.6, linestyle=":")
            ax = figure.add_subplot(grid[row + 1, span])
            _pairs(ax, told, ("down_added", "up_added"), "ping added, ms (down, up)", log=False)
    figure.suptitle(f"{results['meta']['command']}, {results['meta']['date']}", fontsize=8, x=0.01, ha="left")
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _pairs(ax: Any, systems: Results, names: tuple[str, ...], title: str, *, log: bool = True) -> None:
    """Draw horizontal bars, one for each of `names`, a system below the other."""
    order = list(systems)
    height = 0.8 / len(names)
    for index, name in enumerate(names):
        values = [systems[system].get(name) or 0.0 for system in order]
        places = [place + (index - (len(names) - 1) / 2) * height for place in range(len(order))]
        bars = ax.barh(
            places, values, height * 0.92, color=[_COLOURS[system] for system in order], alpha=1 - 0.3 * index
        )
        labels = [f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value else "" for value in values]
        ax.bar_label(bars, labels, padding=2, fontsize=6.5)
    ax.set_yticks(range(len(order)), [_TITLES[system] for system in order])
    ax.invert_yaxis()
    if log:
        ax.set_xscale("log")
    ax.margins(x=0.14)
    ax.set_title(title, fontsize=8, loc="left")


def _pings(ax: Any, systems: Results) -> None:
    """Draw from the median to the 99th percentile, idle and under load, a system below the other."""
    kinds = (
        ("idle", "idle", "#0f766e"),
        ("up_ping", "while up", "#a16207"),
        ("down_ping", "while down", _OURS),
    )
    for place, told in enumerate(systems.values()):
        for index, (name, _, colour) in enumerate(kinds):
            p50, p99 = told[f"{name}_p50"], told[f"{name}_p99"]
            if p50 is None or p99 is None:
                continue
            y = place + (index - 1) * 0.24
            ax.plot([p50, p99], [y, y], color=colour, linewidth=2.5, solid_capstyle="butt")
            ax.plot([p50], [y], "o", color=colour, markersize=4)
    for _, label, colour in kinds:
        ax.plot([], [], "-o", color=colour, label=label, markersize=4)
    ax.set_yticks(range(len(systems)), [_TITLES[system] for system in systems])
    ax.invert_yaxis()
    ax.set_xscale("log")
    ax.set_title("ping, ms: median (dot) to 99th percentile", fontsize=8, loc="left")
    ax.legend(frameon=False, fontsize=7, loc="best")
