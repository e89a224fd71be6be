"""The bad lines of the suite: a home's, a far one, and two good ones, the last with losses by chance."""

from __future__ import annotations

from dataclasses import dataclass

from peers import Line


@dataclass(frozen=True)
class Case:
    """A line, and how many TCP flows run over it at once."""

    key: str
    line: Line
    flows: int = 1


HOME = Case("home", Line("20 Mbit/s, 20 ms, 250 ms buffer", rate=20e6, rtt=0.02, buffer=625_000))
FAR = Case("far", Line("50 ms, 1 % loss", rate=200e6, rtt=0.05, buffer=1_000_000, loss=0.01))
GOOD = Case("good", Line("100 Mbit/s, 20 ms", rate=100e6, rtt=0.02, buffer=300_000))
LOSSY = Case(
    "lossy",
    Line("200 Mbit/s, 10 ms, 0.5 % loss, 8 flows", rate=200e6, rtt=0.01, buffer=300_000, loss=0.005),
    8,
)
CASES = (HOME, FAR, GOOD, LOSSY)
