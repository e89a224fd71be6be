"""The live view as lines, and its keys; in a real terminal it is in tests/observe/test_terminal.py."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import Synthetic

from softlan.observe.live import Screen
from softlan.observe.local import PartStatus
from softlan.observe.watch import read_keys

SESSION = {
    "connected": True,
    "relay": "party.example.org:443",
    "room": "ROOM1",
    "peer_id": 3,
    "tap_mtu": 1416,
    "joins": 2,
    "rtt_ms": 12.3,
    "interface": "softlan0",
    "counters": {"bytes_received": 0, "drop_port_full": 4},
}


def part(name, status, pid=1):
    return PartStatus(part=name, pid=pid, version="1", uptime_s=5, status=status)


def screen(*parts, times=3):
    made = Screen()
    for n in range(times):
        made.feed(float(n), 1000.0 + n, parts or (part("relay", relay_at(n)),))
    return made


def relay_at(seconds, **shape):
    source = Synthetic(**shape)
    source.at = 100.0 + seconds
    return source.snapshot()


def text(lines):
    return "\n".join(line.plain for line in lines)


def test_a_relay_with_200_peers_scrolls_through_all_of_them():
    made = screen()
    seen = set()
    for _ in range(40):
        lines = made.lines(100, 30)
        assert len(lines) == 30
        seen.update(line.plain for line in lines)
        made.press("page-down", 30)
    assert sum(line.startswith(("  client", "  gateway")) for line in map(str, seen)) == 200
    assert "200 peers in 30 rooms" in text(seen_line for seen_line in screen().lines(100, 30))


def test_peers_can_be_hidden_and_rooms_ordered():
    made = screen()
    made.press("p", 24)
    assert "client" not in text(made.lines(100, 60))
    first = [line.plain.split()[0] for line in made.lines(100, 60)[6:36]]
    made.press("o", 24)
    by_traffic = [line.plain.split()[0] for line in made.lines(100, 60)[6:36]]
    assert first == sorted(first)
    assert sorted(by_traffic) == first
    assert by_traffic != first


@given(
    st.integers(1, 300),
    st.integers(1, 100),
    st.lists(st.sampled_from(["up", "down", "end", "home", "page-down", "p", "o"])),
)
def test_any_window_is_filled_and_never_left(width, height, keys):
    made = screen(part("relay", relay_at(1, rooms=3, peers=9)), part("client", SESSION, 2), times=2)
    for key in keys:
        assert made.press(key, height)
        lines = made.lines(width, height)
        assert len(lines) == max(height, 2)
        assert all(line.cell_len <= width for line in lines)


@pytest.mark.parametrize(
    ("rtt_ms", "shown"),
    [
        (0.04, " 0.0 ms "),
        (99.94, " 99.9 ms "),
        (999.94, " 999.9 ms "),
        (999.95, " 1000 ms "),
        (12345.6, " 12346 ms "),
    ],
)
def test_a_round_trip_keeps_its_unit(rtt_ms, shown):
    status = relay_at(1, rooms=1, peers=1)
    status["rooms"][0]["peers"][0]["rtt_ms"] = rtt_ms
    lines = [line.plain for line in screen(part("relay", status)).lines(100, 20)]
    room = next(n for n, line in enumerate(lines) if line.startswith(status["rooms"][0]["code"]))
    assert all(shown in line for line in lines[room : room + 2])


def test_a_client():
    told = text(screen(part("client", SESSION)).lines(100, 20))
    assert "in room ROOM1 as peer 3, 12.3 ms to party.example.org:443" in told
    assert "interface softlan0, MTU 1416, came back 1 time" in told
    assert "port-full 4" in told
    assert "not connected to party.example.org:443" in text(
        screen(part("gateway", {**SESSION, "connected": False})).lines(100, 20)
    )


@pytest.mark.parametrize("status", [{"rooms": [{}]}, {"rooms": 3}, {"rooms": [{"code": 1, "peers": [{}]}]}])
def test_another_version_is_no_reason_to_end(status):
    assert "does not understand" in text(screen(part("relay", status)).lines(100, 20))


@pytest.mark.parametrize("name", ["relay", "client"])
def test_a_part_that_cannot_tell_is_not_shown_as_one_that_can(name):
    told = text(screen(part(name, {"error": "no numbers"})).lines(100, 20))
    assert "cannot tell how it does: no numbers" in told
    assert "peers in" not in told
    assert "not connected" not in told


def test_nothing_runs():
    made = Screen()
    made.feed(0.0, 0.0, [])
    assert "nothing of softlan is running" in text(made.lines(80, 24))


@pytest.mark.parametrize("key", ["q", "Q", "ctrl-c", "ctrl-d"])
def test_it_ends(key):
    assert not Screen().press(key, 24)


def test_keys_are_taken_apart():
    assert read_keys("\x1b[A\x1b[6~q") == ["up", "page-down", "q"]
    assert read_keys("\x1bOBx") == ["down", "x"]
    assert read_keys("\x1b") == ["\x1b"]


def test_what_a_socket_tells_is_what_is_shown():
    told = msgspec.json.decode(msgspec.json.encode(part("relay", relay_at(0))), type=PartStatus)
    assert "200 peers in 30 rooms" in text(screen(told).lines(120, 24))
