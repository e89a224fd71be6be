"""From snapshots to rates, curves and recent drops."""

from softlan._core import COUNTER_NAMES
from softlan.observe.overview import KEPT_POINTS, ROOM_POINTS, Overview, Rates, SessionOverview


def peer(number=1, role="client", rtt_ms=10.0, **counters):
    return {
        "peer_id": number,
        "role": role,
        "mac": None if role == "gateway" else "02:00:00:00:00:01",
        "rtt_ms": rtt_ms,
        "connected_s": 5.0,
        "counters": {**dict.fromkeys(COUNTER_NAMES, 0), **counters},
    }


def relay(**rooms):
    return {
        "rooms": [
            {
                "code": code,
                "tap_mtu": 1416,
                "gateway": any(p["role"] == "gateway" for p in peers),
                "peers": peers,
            }
            for code, peers in rooms.items()
        ]
    }


def test_rates_are_changes_over_time():
    overview = Overview()
    first = overview.feed(10.0, 1000.0, relay(A=[peer(bytes_received=100, frames_received=1)]))
    assert first.rates.in_bits == 0, "of one reading there is no rate"
    view = overview.feed(
        12.0,
        1002.0,
        relay(A=[peer(bytes_received=1100, frames_received=11, bytes_sent=250, drop_queue_full=4)]),
    )
    assert view.rates == Rates(4000, 1000, 5, 0, 2)
    assert view.rooms[0].rates == view.rooms[0].peers[0].rates == view.rates
    assert [(p.at, p.in_bits, p.drops, p.peers) for p in overview.points] == [
        (1000.0, 0, 0, 1),
        (1002.0, 4000, 2, 1),
    ]


def test_rooms_and_peers_are_in_order():
    overview = Overview()
    told = relay(B=[peer(2), peer(1), peer(3, "gateway", rtt_ms=50.0)], A=[])
    view = overview.feed(1.0, 1.0, told)
    assert [(room.code, room.gateway, room.rtt_ms) for room in view.rooms] == [
        ("A", False, None),
        ("B", True, 10.0),
    ]
    assert [p.peer_id for p in view.rooms[1].peers] == [3, 1, 2]
    assert view.peer_count == 3


def test_recent_drops_are_counted_and_forgotten():
    overview = Overview()
    overview.feed(0.0, 0.0, relay(A=[peer(drop_runt=100)]))
    view = overview.feed(2.0, 2.0, relay(A=[peer(drop_runt=103, drop_jumbo=7)]))
    assert view.drops == {"jumbo": 7, "runt": 3}, "what was lost before anybody looked is no news"
    assert list(view.drops) == ["jumbo", "runt"]
    assert view.rooms[0].peers[0].dropped == 110
    for n in range(KEPT_POINTS):
        view = overview.feed(4.0 + n, 4.0 + n, relay(A=[peer(drop_runt=103, drop_jumbo=7)]))
    assert view.drops == {}
    assert len(overview.points) == KEPT_POINTS


def test_a_peer_that_came_between_two_looks_counts():
    overview = Overview()
    overview.feed(0.0, 0.0, relay())
    view = overview.feed(2.0, 2.0, relay(A=[peer(drop_runt=3, bytes_received=1000)]))
    assert view.drops == {"runt": 3}
    assert view.rates.in_bits == 0


def test_a_room_that_closes_is_forgotten():
    overview = Overview()
    for n in range(ROOM_POINTS + 5):
        overview.feed(n, n, relay(A=[peer(bytes_received=n)], B=[peer()]))
    assert len(overview.room_points["A"]) == ROOM_POINTS
    overview.feed(500.0, 500.0, relay(B=[peer()]))
    assert list(overview.room_points) == ["B"]


def test_a_session():
    overview = SessionOverview()
    told = {"connected": True, "relay": "r:1", "room": "A", "peer_id": 2, "rtt_ms": 5.5, "joins": 1}
    overview.feed(0.0, {**told, "counters": {"bytes_sent": 0}})
    view = overview.feed(1.0, {**told, "counters": {"bytes_sent": 1000, "drop_port_full": 2}})
    assert (view.rates.out_bits, view.rates.drops, view.drops) == (8000, 2, {"port-full": 2})
    assert not overview.feed(2.0, {"connected": False, "relay": "r:1", "room": "A"}).connected
