"""Lines between machines in virtual time: they lose, delay, reorder, duplicate, shrink and go dark."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

__all__ = ["DOWN", "LOSS", "UP", "Line"]

UP, DOWN = 0, 1
"""From the machine to the world, and back."""

LOSS = (0.0, 0.01, 0.05, 0.2)
"""What lines lose by chance: a seed's is the one at its remainder."""

FULL_PAYLOAD = 1472
"""UDP payload of a 1500-byte IPv4 path."""


@dataclass
class Line:
    """One machine's way to the world. Times are in seconds, `mtu` is the largest UDP payload it carries, in bytes."""

    random: random.Random
    loss: float = 0.0
    delay: float = 0.01
    jitter: float = 0.0
    duplicates: float = 0.0
    mtu: int = FULL_PAYLOAD
    dark_until: list[float] = field(default_factory=lambda: [0.0, 0.0])

    def darken(self, ways: tuple[int, ...], until: float) -> None:
        """Let nothing pass until then."""
        for way in ways:
            self.dark_until[way] = max(self.dark_until[way], until)

    def is_dark(self, now: float) -> bool:
        """Whether an answer to anything would be lost."""
        return now < max(self.dark_until)

    def heal(self) -> None:
        """Be as good as a line of this loss can be."""
        self.dark_until = [0.0, 0.0]
        self.duplicates = 0.0

    def passes(self, way: int, now: float) -> bool:
        """Whether a packet gets through now."""
        return now >= self.dark_until[way] and (not self.loss or self.random.random() >= self.loss)

    def takes(self) -> float:
        """How long it is under way; two of them may overtake each other."""
        return self.delay + (self.random.random() * self.jitter if self.jitter else 0.0)

    def doubles(self) -> bool:
        """Whether it arrives twice."""
        return bool(self.duplicates) and self.random.random() < self.duplicates
