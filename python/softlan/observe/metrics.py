"""A relay's numbers in the text format of Prometheus; needs the extra `page`.

Names are stable and bounded in number: labels are rooms (the first hundred, `softlan.relay.ledger`), drop reasons, roles and codes,
never peers. Counters are those of `softlan._core`, and go on counting when peers leave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from softlan import __version__
from softlan.control.codes import Code
from softlan.control.fields import Role
from softlan.observe.counters import COUNTER_NAMES, DROP_COUNTERS

if TYPE_CHECKING:
    from softlan.relay.ledger import Numbers, RoomNumbers

__all__ = ["CONTENT_TYPE", "Exporter"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_UNITS = {
    "frames": "Ethernet frames",
    "bytes": "Bytes of Ethernet frames, without the overlay's headers",
    "datagrams": "QUIC datagrams that carried frames",
    "fragments": "Fragments of frames that do not fit one datagram",
}
_WAYS = {
    "received": "received from peers",
    "sent": "sent to peers",
    "marked_ce": "marked 'congestion experienced' in a queue that stood (RFC 3168)",
}


class Exporter:
    """Tells the numbers that `read` gives, at the moment they are asked for, and those of this process."""

    def __init__(self, read: Callable[[], Numbers]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_RelayCollector(read))
        ProcessCollector(registry=self._registry)

    def page(self) -> bytes:
        """Give all of it, as `CONTENT_TYPE`."""
        return generate_latest(self._registry)


class _RelayCollector(Collector):
    def __init__(self, read: Callable[[], Numbers]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        numbers = self._read()
        rooms = sorted(numbers.rooms.items())
        yield InfoMetricFamily("softlan", "What runs here.", value={"version": __version__})
        yield _gauge("softlan_rooms", "Rooms that are open.", [], [((), sum(n.rooms for _, n in rooms))])
        yield _gauge(
            "softlan_peers",
            "Peers in rooms.",
            ["room", "role"],
            [((name, role.value), n.roles[role.value]) for name, n in rooms for role in Role],
        )
        yield from _round_trips(rooms)
        yield _counter("softlan_admissions", "Peers let in.", [], [((), numbers.admitted)])
        yield _counter(
            "softlan_rejections",
            "Peers turned away or thrown out, by the code they were told.",
            ["code"],
            [((code.value,), numbers.turned_away.get(code, 0)) for code in Code],
        )
        handshakes = numbers.handshakes
        yield _counter(
            "softlan_handshakes",
            "First packets of peers, by what became of them (docs/operations.md).",
            ["outcome"],
            [((name,), count) for name, count in sorted(handshakes.items()) if name != "unfinished"],
        )
        yield _gauge(
            "softlan_handshakes_unfinished",
            "Handshakes of peers under way.",
            [],
            [((), handshakes.get("unfinished", 0))],
        )
        if numbers.certificate_not_after is not None:
            yield _gauge(
                "softlan_certificate_not_after_seconds",
                "When the relay's certificate ends, in seconds since 1970.",
                [],
                [((), numbers.certificate_not_after)],
            )
        for name in COUNTER_NAMES:
            if name not in DROP_COUNTERS:
                yield _counter(
                    f"softlan_{name}",
                    _help(name),
                    ["room"],
                    [((room,), n.counters[name]) for room, n in rooms],
                )
        yield _counter(
            "softlan_frames_dropped",
            "Frames and datagrams dropped, by reason (docs/protocol.md).",
            ["room", "reason"],
            # A room shows the reasons it has had: all of them for every room would be thousands of zeros.
            [
                ((room, reason), n.counters[name])
                for room, n in rooms
                for name, reason in DROP_COUNTERS.items()
                if n.counters[name]
            ],
        )


def _round_trips(rooms: Sequence[tuple[str, RoomNumbers]]) -> Iterator[Metric]:
    times = [(name, sorted(n.rtts_s)) for name, n in rooms if n.rtts_s]
    yield _gauge(
        "softlan_rtt_median_seconds",
        "Round-trip time between the relay and a room's peers, the median of them.",
        ["room"],
        [((name,), found[len(found) // 2]) for name, found in times],
    )
    yield _gauge(
        "softlan_rtt_max_seconds",
        "Round-trip time between the relay and a room's peers, the longest of them.",
        ["room"],
        [((name,), found[-1]) for name, found in times],
    )


def _help(counter: str) -> str:
    what, _, way = counter.partition("_")
    return f"{_UNITS.get(what, what)}, {_WAYS.get(way, way)}."


Samples = Sequence[tuple[Sequence[str], float]]


def _gauge(name: str, text: str, labels: Sequence[str], samples: Samples) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _counter(name: str, text: str, labels: Sequence[str], samples: Samples) -> Metric:
    """Make a family of counters; the format adds `_total` to their names."""
    family = CounterMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family
