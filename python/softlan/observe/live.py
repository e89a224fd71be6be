"""`softlan status --live` as lines on a screen; needs the extra `live`.

What is shown comes in as views (`overview.py`), keys as names; the terminal itself is `watch.py`'s. All of it is one list of
lines of which the screen shows a part, so that 200 peers scroll as well as two, in any size of window.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from rich.text import Text

from softlan.observe.counters import format_rate
from softlan.observe.local import PartStatus, fault_in, why_untold
from softlan.observe.overview import (
    Overview,
    PeerView,
    Rates,
    RelayView,
    RoomView,
    SessionOverview,
    SessionView,
)
from softlan.texts import several

__all__ = ["Screen"]

_BARS = "▁▂▃▄▅▆▇█"
_QUIET, _STRONG, _BAD, _GOOD = "dim", "bold", "red", "green"

View: TypeAlias = RelayView | SessionView | None

ORDERS: dict[str, Callable[[RoomView], tuple[float, str]]] = {
    "name": lambda room: (0, room.code),
    "traffic": lambda room: (-room.rates.in_bits - room.rates.out_bits, room.code),
    "drops": lambda room: (-room.rates.drops, room.code),
}


@dataclass(frozen=True, slots=True)
class _Column:
    title: str
    width: int
    right: bool = True
    needs: int = 0
    """How wide the window must be for it to be shown."""


_COLUMNS = (
    _Column("room, peer", 20, right=False),
    _Column("MAC", 18, right=False, needs=84),
    _Column("RTT", 9),
    _Column("in", 12),
    _Column("out", 12),
    _Column("drops/s", 9, needs=66),
)


@dataclass
class _Seen:
    """What is remembered of one part."""

    relay: Overview = field(default_factory=Overview)
    session: SessionOverview = field(default_factory=SessionOverview)


class Screen:
    """What the live view shows; `feed` it, tell it of keys, ask for its lines."""

    def __init__(self) -> None:
        self.order = "name"
        self.shows_peers = True
        self.scroll = 0
        self._seen: dict[tuple[str, int], _Seen] = {}
        self._parts: list[tuple[PartStatus, _Seen, View]] = []

    def feed(self, at: float, wall: float, parts: Iterable[PartStatus]) -> None:
        """Take what all parts told at monotonic time `at`, `wall` by the calendar, in seconds."""
        seen, self._seen = self._seen, {}
        self._parts = []
        for part in parts:
            key = part.part, part.pid
            known = self._seen[key] = seen.get(key) or _Seen()
            view: View = None
            # A part of another version may tell other things.
            with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
                if fault_in(part.status) is None:
                    view = (
                        known.relay.feed(at, wall, part.status)
                        if part.part == "relay"
                        else known.session.feed(at, part.status)
                    )
            self._parts.append((part, known, view))

    def press(self, key: str, height: int) -> bool:
        """Take a key; False when it is time to end. `height` is the window's, in lines."""
        page = max(height - 3, 1)
        steps = {"up": -1, "k": -1, "down": 1, "j": 1, "page-up": -page, "page-down": page, " ": page}
        if key in ("q", "Q", "ctrl-c", "ctrl-d"):
            return False
        if key == "home":
            self.scroll = 0
        elif key == "end":
            self.scroll = 1 << 30
        elif key == "p":
            self.shows_peers = not self.shows_peers
        elif key == "o":
            names = list(ORDERS)
            self.order = names[(names.index(self.order) + 1) % len(names)]
        self.scroll = max(self.scroll + steps.get(key, 0), 0)
        return True

    def lines(self, width: int, height: int) -> list[Text]:
        """Give the window's lines, no more than fit it; the last one says which keys there are."""
        every = self._every(width)
        room = max(height - 1, 1)
        self.scroll = max(min(self.scroll, len(every) - room), 0)
        shown = every[self.scroll : self.scroll + room]
        shown += [Text()] * (room - len(shown))
        return [_cut(line, width) for line in [*shown, self._foot(len(every), room)]]

    def _every(self, width: int) -> list[Text]:
        if not self._parts:
            return [
                Text("nothing of softlan is running here for this user", _STRONG),
                Text("as root, `sudo softlan status --live` sees more; this view waits", _QUIET),
            ]
        found: list[Text] = []
        for part, seen, view in self._parts:
            if found:
                found.append(Text())
            if isinstance(view, RelayView):
                found += self._relay(part, seen, view, width)
            elif view is not None:
                found += _session(part, seen, view, width)
            else:
                found += [_title(part, ""), Text(why_untold(part.status), _BAD)]
        return found

    def _relay(self, part: PartStatus, seen: _Seen, view: RelayView, width: int) -> list[Text]:
        count = f"{several(view.peer_count, 'peer')} in {several(len(view.rooms), 'room')}"
        found = [
            _title(part, f"listens on {part.status.get('listen')}"),
            Text.assemble((count, _STRONG), *_drop_words(view.rates)),
            _curve("in ", view.rates.in_bits, [point.in_bits for point in seen.relay.points], width),
            _curve("out", view.rates.out_bits, [point.out_bits for point in seen.relay.points], width),
        ]
        if view.drops:
            reasons = ", ".join(f"{reason} {count}" for reason, count in view.drops.items())
            found.append(Text(f"dropped in {_span(view.drops_over_s)}: {reasons}", _BAD))
        columns = [column for column in _COLUMNS if width >= column.needs]
        found.append(_row(columns, [column.title for column in columns], _QUIET))
        for told in sorted(view.rooms, key=ORDERS[self.order]):
            found.append(_room(columns, told))
            if self.shows_peers:
                found += [_peer(columns, peer) for peer in told.peers]
        return found

    def _foot(self, count: int, room: int) -> Text:
        peers = "hide peers" if self.shows_peers else "show peers"
        keys = f"q end   p {peers}   o order: {self.order}"
        if count > room:
            last = min(self.scroll + room, count)
            keys += f"   ↑↓ PgUp PgDn scroll: {self.scroll + 1}-{last} of {count}"
        return Text(keys, "reverse")


def _session(part: PartStatus, seen: _Seen, view: SessionView, width: int) -> list[Text]:
    state = (
        Text.assemble(
            ("in room ", ""),
            (view.room, _STRONG),
            f" as peer {view.peer_id}, {_ms(view.rtt_ms)} to {view.relay}",
        )
        if view.connected
        else Text(f"not connected to {view.relay}, trying", _BAD)
    )
    more = f"interface {view.interface or '-'}, MTU {view.mtu or '-'}"
    if view.joins > 1:
        more += f", came back {several(view.joins - 1, 'time')}"
    found = [
        _title(part, ""),
        state,
        Text.assemble(more, *_drop_words(view.rates)),
        _curve("in ", view.rates.in_bits, [rates.in_bits for rates in seen.session.rates], width),
        _curve("out", view.rates.out_bits, [rates.out_bits for rates in seen.session.rates], width),
    ]
    if view.drops:
        reasons = ", ".join(f"{reason} {count}" for reason, count in view.drops.items())
        found.append(Text(f"dropped so far: {reasons}", _QUIET))
    return found


def _title(part: PartStatus, more: str) -> Text:
    facts = [more, f"pid {part.pid}", f"up {_span(part.uptime_s)}", f"softlan {part.version}"]
    return Text.assemble((part.part, f"{_STRONG} {_GOOD}"), "  ", (", ".join(filter(None, facts)), _QUIET))


def _room(columns: Sequence[_Column], room: RoomView) -> Text:
    about = f"{several(len(room.peers), 'peer')}{', gateway' if room.gateway else ''}"
    values = [f"{room.code}", about, _ms(room.rtt_ms), *_rate_words(room.rates)]
    return _row(columns, _fit(columns, values), _STRONG, bad=room.rates.drops > 0)


def _peer(columns: Sequence[_Column], peer: PeerView) -> Text:
    values = [f"  {peer.role} {peer.peer_id}", peer.mac or "", _ms(peer.rtt_ms), *_rate_words(peer.rates)]
    return _row(columns, _fit(columns, values), "", bad=peer.rates.drops > 0)


def _fit(columns: Sequence[_Column], values: Sequence[str]) -> list[str]:
    return [value for column, value in zip(_COLUMNS, values, strict=True) if column in columns]


def _row(columns: Sequence[_Column], values: Sequence[str], style: str, *, bad: bool = False) -> Text:
    line = Text()
    for column, value in zip(columns, values, strict=True):
        cell = value[: column.width - 1]
        padded = cell.rjust(column.width) if column.right else cell.ljust(column.width)
        line.append(padded, f"{style} {_BAD}" if bad and column.title == "drops/s" else style)
    return line


def _rate_words(rates: Rates) -> tuple[str, str, str]:
    return format_rate(rates.in_bits), format_rate(rates.out_bits), f"{rates.drops:g}" if rates.drops else "-"


def _drop_words(rates: Rates) -> list[tuple[str, str]]:
    return [(f"   {rates.drops:g} drops/s", _BAD)] if rates.drops else [("   no drops", _QUIET)]


def _curve(name: str, now: float, values: Sequence[float], width: int) -> Text:
    shown = list(values)[-max(width - 32, 1) :]
    top = max(shown, default=0.0)
    bars = "".join(_BARS[round(value / top * (len(_BARS) - 1))] if top else _BARS[0] for value in shown)
    return Text.assemble(
        f"{name} {format_rate(now):>11}  ", (bars, _GOOD), (f"  top {format_rate(top)}", _QUIET)
    )


def _cut(line: Text, width: int) -> Text:
    line = line.copy()
    line.truncate(max(width, 1), overflow="ellipsis")
    return line


def _ms(value: float | None) -> str:
    # A second or more without the fraction, which would leave no room for the unit.
    return "-" if value is None else f"{value:.{1 if value < 999.95 else 0}f} ms"


def _span(seconds: float) -> str:
    for factor, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 1.5 * factor:
            return f"{seconds / factor:.0f} {unit}"
    return f"{seconds:.0f} s"
