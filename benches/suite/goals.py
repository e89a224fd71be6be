"""The goals softlan is held against, as ratios within one run; the list is `GOALS`.

What needs no tunnel (the relay alone, its memory) has a benchmark of its own and is not here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .lines import FAR, HOME, LOSSY

Results = Mapping[str, Any]
OURS = "softlan"
PEER = "openvpn"


class Unmeasured(Exception):
    """The run holds no such figure; the message says which."""


@dataclass(frozen=True)
class Verdict:
    """One goal with what was measured."""

    name: str
    wanted: str
    measured: str
    met: bool | None
    """None: not measured."""


@dataclass(frozen=True)
class Goal:
    """Something softlan wants to be; `judge` gives the words for what was measured, and whether it is met."""

    name: str
    wanted: str
    judge: Callable[[Results], tuple[str, bool]]


def judged(results: Results) -> list[Verdict]:
    """Hold the results of a run against every goal."""
    verdicts = []
    for goal in GOALS:
        try:
            measured, met = goal.judge(results)
            verdicts.append(Verdict(goal.name, goal.wanted, measured, met))
        except Unmeasured as reason:
            verdicts.append(Verdict(goal.name, goal.wanted, f"not measured ({reason})", None))
    return verdicts


def _figure(results: Results, system: str, name: str, case: str | None = None) -> float:
    place = results.get("systems", {}) if case is None else results.get("lines", {}).get(case, {})
    value = place.get(system, {}).get(name)
    if value is None:
        raise Unmeasured(f"{system}: {name}" + (f" over the line `{case}`" if case else ""))
    return float(value)


def _ratio(results: Results, name: str, other: str, case: str | None = None) -> float:
    base = _figure(results, other, name, case)
    if not base:
        raise Unmeasured(f"{other} moved nothing")
    return _figure(results, OURS, name, case) / base


def _at_least(factor: float, names: tuple[str, ...], other: str, case: str | None = None) -> Any:
    def judge(results: Results) -> tuple[str, bool]:
        ratios = {name: _ratio(results, name, other, case) for name in names}
        words = ", ".join(f"{name.replace('udp_', '')} {ratio:.2f} x" for name, ratio in ratios.items())
        return words, min(ratios.values()) >= factor

    return judge


def _cpu(results: Results) -> tuple[str, bool]:
    ours, theirs = (_figure(results, system, "cpu_per_gb") for system in (OURS, PEER))
    if min(ours, theirs) <= 0:
        raise Unmeasured("other work on the machine hid it")
    return f"1/{theirs / ours:.1f}", theirs / ours >= 9.5


def _idle(results: Results) -> tuple[str, bool]:
    ratio = _ratio(results, "idle_p50", PEER)
    return f"{ratio:.2f} x", ratio <= 1.0


def _loaded(way: str) -> Callable[[Results], tuple[str, bool]]:
    def judge(results: Results) -> tuple[str, bool]:
        idle = _figure(results, OURS, "idle_p50")
        p50, p99 = (_figure(results, OURS, f"{way}_ping_{part}") / idle for part in ("p50", "p99"))
        lost = _figure(results, OURS, f"{way}_ping_lost")
        words = f"{p50:.1f} x / {p99:.1f} x, {lost:.0f} lost"
        return words, p50 <= 2 and p99 <= 5 and lost == 0

    return judge


def _loaded_below_peer(results: Results) -> tuple[str, bool]:
    p50, p99 = (_ratio(results, f"down_ping_{part}", PEER) for part in ("p50", "p99"))
    return f"p50 {p50:.2f} x, p99 {p99:.2f} x", p50 < 1 and p99 < 1


def _udp_above_bare(results: Results) -> tuple[str, bool]:
    ratios = [_ratio(results, f"udp_{size}", "bare-udp") for size in (1200, 100)]
    return f"1200 {ratios[0]:.2f} x, 100 {ratios[1]:.2f} x", min(ratios) > 1


def _added(limit: float, case: str, ways: tuple[str, ...]) -> Callable[[Results], tuple[str, bool]]:
    def judge(results: Results) -> tuple[str, bool]:
        added = {way: _figure(results, OURS, f"{way}_added", case) for way in ways}
        return ", ".join(f"{way} {ms:.1f} ms" for way, ms in added.items()), max(added.values()) <= limit

    return judge


def _link_filled(results: Results) -> tuple[str, bool]:
    link = LOSSY.line.rate / 1e6
    parts = {way: _figure(results, OURS, way, LOSSY.key) / link for way in ("down", "up")}
    full = {way: _figure(results, OURS, f"{way}_line_full", LOSSY.key) for way in parts}
    words = ", ".join(f"{way} {part:.0%} (the line {full[way]:.0%} full)" for way, part in parts.items())
    return words, min(parts.values()) >= 0.9


def _stalls(results: Results) -> tuple[str, bool]:
    stalls = results.get("stalls")
    if not stalls:
        raise Unmeasured("--stalls measures it")
    if stalls["system"] != OURS:
        raise Unmeasured(f"--stalls looked at {stalls['system']}")
    done = stalls["runs"] - stalls["failed"]
    return f"{stalls['stalled']} in {done} runs", stalls["stalled"] == 0 and done >= 50


GOALS = (
    Goal("TCP one stream against OpenVPN-TAP", ">= 10 x", _at_least(10, ("up", "down"), PEER)),
    Goal(
        "TCP one stream against the kernel bridge, offloads off",
        ">= 1.2 x",
        _at_least(1.2, ("up", "down"), "kernel-bridge-plain"),
    ),
    Goal(
        "TCP one stream against bare UDP with offloads",
        ">= 0.45 x",
        _at_least(0.45, ("up", "down"), "bare-udp-offloads"),
    ),
    Goal("CPU a GB against OpenVPN-TAP", "<= 1/9.5", _cpu),
    Goal("idle ping p50 against OpenVPN-TAP", "<= 1.0 x", _idle),
    Goal("ping p50 / p99 under a download against idle p50", "<= 2 x / <= 5 x, none lost", _loaded("down")),
    Goal("ping under a download against OpenVPN-TAP's", "< 1 x", _loaded_below_peer),
    Goal(
        "UDP 1200 B and 100 B packets a second against OpenVPN-TAP",
        ">= 2.4 x",
        _at_least(2.4, ("udp_1200", "udp_100"), PEER),
    ),
    Goal("the same against bare UDP, frame by frame", "> 1 x", _udp_above_bare),
    Goal("20 Mbit/s, 250 ms buffer: ping added by TCP", "<= 20 ms", _added(20, HOME.key, ("down", "up"))),
    Goal("50 ms, 1 % loss: TCP against OpenVPN-TAP", ">= 1.0 x", _at_least(1, ("up", "down"), PEER, FAR.key)),
    Goal("200 Mbit/s, 0.5 % loss, 8 flows: TCP payload of the link", ">= 90 %", _link_filled),
    Goal("the same: ping added", "<= 5 ms", _added(5, LOSSY.key, ("down", "up"))),
    Goal("the same: stalls in 50 runs", "none", _stalls),
)
