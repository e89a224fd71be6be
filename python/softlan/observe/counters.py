"""The one set of tunnel counters: what changed between two readings, as rates and as one line.

The counters themselves live in `softlan._core`, whose names these are; the same set goes into `stats`
messages, the periodic summary and `softlan status`. Sent and received are as the part that counts sees its
tunnel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from softlan._core import COUNTER_NAMES, DROP_REASONS

__all__ = ["COUNTER_NAMES", "DROP_COUNTERS", "Change", "Reading", "format_rate", "known_counters"]

DROP_COUNTERS: Mapping[str, str] = {f"drop_{reason.replace('-', '_')}": reason for reason in DROP_REASONS}
"""From the counter's name (`drop_queue_full`) to the reason it counts (`queue-full`)."""


@dataclass(frozen=True, slots=True)
class Reading:
    """All counters at one moment; `at` is in seconds on a monotonic clock."""

    at: float
    values: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Change:
    """How far counters moved within `interval_s` seconds."""

    interval_s: float
    counts: Mapping[str, int]

    @classmethod
    def between(cls, before: Reading, after: Reading) -> Change:
        """Compare two readings.

        A counter that went back began anew at 0, as after a reconnect; then all it shows has happened since.
        """
        counts = {}
        for name, value in after.values.items():
            delta = value - before.values.get(name, 0)
            counts[name] = delta if delta >= 0 else value
        return cls(max(after.at - before.at, 0.0), counts)

    def per_second(self, name: str) -> float:
        """Give a counter's rate; 0 when no time has passed or there is no such counter."""
        return self.counts.get(name, 0) / self.interval_s if self.interval_s > 0 else 0.0

    @property
    def drops(self) -> dict[str, int]:
        """Frames dropped, by reason, the most frequent first; reasons without any are left out."""
        found = ((reason, self.counts.get(name, 0)) for name, reason in DROP_COUNTERS.items())
        return dict(sorted(((reason, count) for reason, count in found if count), key=_most_first))

    def summary(self) -> str:
        """Say it in one line.

        `in 1.2 Mbit/s 340 frames/s, out 0 bit/s 0 frames/s, dropped 3 (dhcp-server 2, queue-full 1)`
        """
        line = ", ".join(
            f"{word} {format_rate(8 * self.per_second(f'bytes_{way}'))}"
            f" {_number(self.per_second(f'frames_{way}'))} frames/s"
            for word, way in (("in", "received"), ("out", "sent"))
        )
        drops = self.drops
        if not drops:
            return line
        reasons = ", ".join(f"{reason} {count}" for reason, count in drops.items())
        return f"{line}, dropped {sum(drops.values())} ({reasons})"


def _most_first(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def known_counters(values: Mapping[str, int]) -> dict[str, int]:
    """Keep, of a peer's `stats`, whose names are its own choice, the counters known here."""
    return {name: values[name] for name in COUNTER_NAMES if name in values}


def format_rate(bits_per_second: float) -> str:
    """Print a bit rate with a decimal unit: `0 bit/s`, `1.2 Mbit/s`."""
    for factor, unit in ((1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s")):
        # A rate just below a unit must not be rounded up to 1000 of the smaller one.
        if bits_per_second >= factor * 0.9995:
            return f"{_number(bits_per_second / factor)} {unit}"
    return f"{_number(bits_per_second)} bit/s"


def _number(value: float) -> str:
    """Print two digits at least, and no fraction where it would say nothing."""
    return f"{value:.1f}" if 0.05 <= value < 9.95 else f"{value:.0f}"
