"""From snapshots, one after the other, to what a person wants to see: rates, rooms and peers, recent drops.

Pure: snapshots (`Relay.snapshot()`, or what the status socket gives of any part) and the time come in as arguments. The live
view and the page both show an `Overview` of a relay; a client or gateway has a `SessionOverview`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from softlan.observe.counters import Change, Reading

__all__ = [
    "KEPT_POINTS",
    "ROOM_POINTS",
    "Overview",
    "PeerView",
    "Point",
    "Rates",
    "RelayView",
    "RoomView",
    "SessionOverview",
    "SessionView",
]

KEPT_POINTS = 300
"""Readings kept of the whole relay: ten minutes at two seconds each."""

ROOM_POINTS = 60
"""Readings kept of each room."""


class Rates(msgspec.Struct, frozen=True):
    """What goes through a second: in is from peers to the relay, out from the relay to peers."""

    in_bits: float = 0.0
    out_bits: float = 0.0
    in_frames: float = 0.0
    out_frames: float = 0.0
    drops: float = 0.0

    @classmethod
    def of(cls, change: Change) -> Rates:
        """Take a part's rates from how its counters moved."""
        per_second = change.per_second
        dropped = sum(change.drops.values())
        return cls(
            round(8 * per_second("bytes_received")),
            round(8 * per_second("bytes_sent")),
            round(per_second("frames_received"), 1),
            round(per_second("frames_sent"), 1),
            round(dropped / change.interval_s, 1) if change.interval_s > 0 else 0.0,
        )

    @classmethod
    def together(cls, several: Sequence[Rates]) -> Rates:
        """Add them up."""
        return cls(
            sum(r.in_bits for r in several),
            sum(r.out_bits for r in several),
            round(sum(r.in_frames for r in several), 1),
            round(sum(r.out_frames for r in several), 1),
            round(sum(r.drops for r in several), 1),
        )


class PeerView(msgspec.Struct, frozen=True):
    """One peer. `dropped` is since it joined, `rtt_ms` between it and the relay."""

    peer_id: int
    role: str
    mac: str | None
    rtt_ms: float
    connected_s: float
    dropped: int
    rates: Rates


class RoomView(msgspec.Struct, frozen=True):
    """One room. `rtt_ms` is the median of its peers', None when there are none."""

    code: str
    mtu: int
    gateway: bool
    peers: tuple[PeerView, ...]
    rates: Rates
    rtt_ms: float | None


class Point(msgspec.Struct, frozen=True, array_like=True):
    """One moment of the whole relay, for a curve: seconds since the Unix epoch, bits and drops a second, peers."""

    at: float
    in_bits: float
    out_bits: float
    drops: float
    peers: int


class RelayView(msgspec.Struct, frozen=True):
    """A relay at one moment. `drops` counts frames by reason over what is kept, the most frequent first."""

    at: float
    peer_count: int
    rooms: tuple[RoomView, ...]
    rates: Rates
    drops: dict[str, int]
    drops_over_s: float


class Overview:
    """Remembers enough of former snapshots to say what has changed since."""

    def __init__(self) -> None:
        self.points: deque[Point] = deque(maxlen=KEPT_POINTS)
        self.room_points: dict[str, deque[tuple[float, float]]] = {}
        self._readings: dict[tuple[str, int], Reading] = {}
        self._drops: deque[tuple[float, Mapping[str, int]]] = deque(maxlen=KEPT_POINTS)
        self._recent: Counter[str] = Counter()

    def feed(self, at: float, wall: float, snapshot: Mapping[str, Any]) -> RelayView:
        """Take a relay's snapshot at monotonic time `at`, `wall` by the calendar, both in seconds."""
        readings: dict[tuple[str, int], Reading] = {}
        fresh: Counter[str] = Counter()
        rooms = tuple(
            self._room(at, room, readings, fresh)
            for room in sorted(snapshot.get("rooms", ()), key=lambda room: str(room["code"]))
        )
        self._readings = readings
        self._note_drops(at, fresh)
        rates = Rates.together([room.rates for room in rooms])
        peers = sum(len(room.peers) for room in rooms)
        self.points.append(Point(round(wall, 1), rates.in_bits, rates.out_bits, rates.drops, peers))
        self._note_rooms(rooms)
        drops = dict(sorted(self._recent.items(), key=lambda item: (-item[1], item[0])))
        return RelayView(wall, peers, rooms, rates, drops, round(at - self._drops[0][0], 1))

    def _room(
        self,
        at: float,
        room: Mapping[str, Any],
        readings: dict[tuple[str, int], Reading],
        fresh: Counter[str],
    ) -> RoomView:
        code = str(room["code"])
        peers = []
        for told in room["peers"]:
            key = code, int(told["peer_id"])
            reading = readings[key] = Reading(at, told["counters"])
            # A peer that has just come has no rate yet; what it lost counts all the same.
            before = self._readings.get(key, Reading(at, {}))
            change = Change.between(before, reading)
            fresh.update(change.drops)
            peers.append(
                PeerView(
                    key[1],
                    str(told["role"]),
                    told.get("mac"),
                    float(told["rtt_ms"]),
                    float(told["connected_s"]),
                    sum(Change.between(Reading(at, {}), reading).drops.values()),
                    Rates.of(change),
                )
            )
        peers.sort(key=lambda peer: (peer.role != "gateway", peer.peer_id))
        rates = Rates.together([peer.rates for peer in peers])
        return RoomView(
            code, int(room["tap_mtu"]), bool(room["gateway"]), tuple(peers), rates, _median_rtt(peers)
        )

    def _note_drops(self, at: float, fresh: Counter[str]) -> None:
        if len(self._drops) == self._drops.maxlen:
            self._recent.subtract(self._drops[0][1])
        # Before the first reading there is nothing to be new since: what peers had lost by then is no news.
        self._drops.append((at, dict(fresh) if self._drops else {}))
        self._recent.update(self._drops[-1][1])
        self._recent = +self._recent

    def _note_rooms(self, rooms: Sequence[RoomView]) -> None:
        former, self.room_points = self.room_points, {}
        for room in rooms:
            points = former.get(room.code) or deque(maxlen=ROOM_POINTS)
            points.append((room.rates.in_bits, room.rates.out_bits))
            self.room_points[room.code] = points


class SessionView(msgspec.Struct, frozen=True):
    """A client or gateway at one moment: in is from the room, out to it. `drops` are over all its time, by reason."""

    connected: bool
    relay: str
    room: str
    peer_id: int | None
    interface: str | None
    mtu: int | None
    rtt_ms: float | None
    joins: int
    rates: Rates
    drops: dict[str, int]


class SessionOverview:
    """Remembers the last snapshot of a client or gateway."""

    def __init__(self) -> None:
        self.rates: deque[Rates] = deque(maxlen=ROOM_POINTS)
        self._last: Reading | None = None

    def feed(self, at: float, snapshot: Mapping[str, Any]) -> SessionView:
        """Take a snapshot at monotonic time `at`, in seconds."""
        reading = Reading(at, snapshot.get("counters", {}))
        rates = Rates.of(Change.between(self._last or reading, reading))
        self._last = reading
        self.rates.append(rates)
        return SessionView(
            bool(snapshot.get("connected")),
            str(snapshot.get("relay")),
            str(snapshot.get("room")),
            snapshot.get("peer_id"),
            snapshot.get("interface"),
            snapshot.get("tap_mtu"),
            snapshot.get("rtt_ms"),
            int(snapshot.get("joins", 0)),
            rates,
            Change.between(Reading(at, {}), reading).drops,
        )


def _median_rtt(peers: Sequence[PeerView]) -> float | None:
    ordered = sorted(peer.rtt_ms for peer in peers)
    return round(ordered[len(ordered) // 2], 1) if ordered else None
