"""The relay's books: counters that never go back although peers leave, for metrics. Pure.

Codes of rooms are chosen by whoever makes one, so books by room are bounded: rooms the relay was told about and the first ones
that come get a name of their own, all others share one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from softlan.control.codes import Code

__all__ = ["OTHER_ROOMS", "Ledger", "Numbers", "RoomNumbers"]

OTHER_ROOMS = "other"
"""The name rooms share that have none of their own. Codes of rooms are upper case, so none is this."""

MAX_NAMED = 100


@dataclass(slots=True)
class RoomNumbers:
    """One room's numbers, or those of all that share a name. `rtts_s` has one round-trip time a peer."""

    rooms: int = 0
    roles: Counter[str] = field(default_factory=Counter)
    rtts_s: list[float] = field(default_factory=list)
    counters: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Numbers:
    """All there is to measure of a relay, by room name; `admitted`, `turned_away` and `handshakes` are since it started."""

    rooms: dict[str, RoomNumbers]
    admitted: int
    turned_away: Mapping[Code, int]
    handshakes: Mapping[str, int] = field(default_factory=dict)
    """What became of peers' first packets (`Endpoint.handshakes`)."""
    certificate_not_after: float | None = None
    """When the certificate that is shown ends: seconds since 1970."""


class Ledger:
    """Counts what has gone: peers that left, and how many were let in."""

    def __init__(self, named: Iterable[str] = (), *, max_named: int = MAX_NAMED) -> None:
        self.admitted = 0
        self._max_named = max_named
        self._gone: dict[str, Counter[str]] = {name: Counter() for name in sorted(named)[:max_named]}

    def name(self, room: str) -> str:
        """Give the name a room's numbers go by; the first time it may get one of its own."""
        if room in self._gone:
            return room
        if len(self._gone.keys() - {OTHER_ROOMS}) < self._max_named:
            self._gone[room] = Counter()
            return room
        self._gone.setdefault(OTHER_ROOMS, Counter())
        return OTHER_ROOMS

    def retire(self, room: str, counters: Mapping[str, int]) -> None:
        """Keep the counters of a peer that has left."""
        self._gone[self.name(room)].update(counters)

    def open(
        self, turned_away: Mapping[Code, int] | None = None, handshakes: Mapping[str, int] | None = None
    ) -> Numbers:
        """Give the numbers of what has gone, for those of what is there to be added; and what gate and endpoint count."""
        rooms = {name: RoomNumbers(counters=counters.copy()) for name, counters in self._gone.items()}
        return Numbers(rooms, self.admitted, dict(turned_away or {}), handshakes or {})
