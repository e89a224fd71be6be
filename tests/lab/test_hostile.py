"""What the relay's counters of an attacker say about an attack."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from softlan.lab.hostile import COUNTED, CROSSING, ELSEWHERE, KINDS, LIMITED, UNICAST, Books, let_through
from softlan.lab.programs import Event, Program
from softlan.observe.counters import DROP_COUNTERS


def test_each_kind_has_a_counter_that_there_is() -> None:
    assert set(COUNTED.values()) <= set(DROP_COUNTERS)
    assert set(LIMITED) < set(KINDS)
    assert set(ELSEWHERE) < set(CROSSING) < set(KINDS)
    assert UNICAST not in KINDS, "which has none"


@pytest.mark.parametrize(
    ("kind", "counters", "passed"),
    [
        ("spoofed", {"frames_received": 5000, "drop_source_foreign": 5000}, 0),
        ("spoofed", {"frames_received": 5000, "drop_source_foreign": 11}, 4989),
        ("runt", {"frames_received": 2, "drop_queue_full": 2}, 2),  # that was on the attacker's own way out
        ("garbage", {"datagrams_received": 5000, "drop_malformed": 5000}, 0),
        # What is dropped before the switch is no frame, so that one which became a frame has passed.
        ("garbage", {"datagrams_received": 5000, "drop_malformed": 4999, "frames_received": 1}, 1),
        ("incomplete", {"drop_reassembly": 9, "frames_received": 3}, 3),
    ],
)
def test_what_is_not_dropped_was_let_through(kind: str, counters: dict[str, int], passed: int) -> None:
    assert let_through(kind, counters) == passed


def status(*peers: Mapping[str, Any], **handshakes: int) -> dict[str, Any]:
    nothing = dict.fromkeys(("begun", "retries", "held_back", "dropped", "unfinished"), 0)
    rooms = [{"code": "PARTY1", "peers": list(peers)}] if peers else []
    return {"rooms": rooms, "handshakes": nothing | handshakes, "unannounced": 3, "turned_away": {}}


def peer(peer_id: int, address: str, said: int | None = None) -> dict[str, Any]:
    return {
        "peer_id": peer_id,
        "came_from": address,
        "reported": {} if said is None else {"frames_received": said},
    }


@pytest.fixture
def books() -> Books:
    """Books of an attacker with two addresses, at a relay whose log had a line before it came."""
    program = Program(SimpleNamespace(), "relay", [])
    log(program, "peer.joined", peer_id=1, address="203.0.113.9:1")
    attacker = SimpleNamespace(addresses=["203.0.113.9", "203.0.113.100"])
    return Books(SimpleNamespace(program=program), attacker, status(begun=5))


def log(program: Program, name: str, **fields: object) -> None:
    program.events.append(Event(name, {"room": "PARTY1", **fields}, 0.0))


def test_only_an_attackers_own_peers_are_counted_once_they_have_left(books: Books) -> None:
    program = books.relay.program
    log(program, "peer.joined", peer_id=2, address="203.0.113.9:1000")
    log(program, "peer.joined", peer_id=3, address="203.0.113.100:1000")
    log(program, "peer.joined", peer_id=4, address="203.0.113.90:1000")
    assert books.joined() == [("PARTY1", 2), ("PARTY1", 3)]
    log(program, "peer.left", peer_id=2, code="goodbye", frames_received=7, drop_runt=5)
    log(program, "peer.left", peer_id=4, frames_received=1)
    assert books.counters() == {("PARTY1", 2): {"frames_received": 7, "drop_runt": 5}}


def test_what_was_said_is_the_last_that_each_reported(books: Books) -> None:
    books.enter(status(peer(2, "203.0.113.9:1", 10), peer(3, "203.0.113.100:1"), unfinished=9))
    books.enter(status(peer(2, "203.0.113.9:1", 30), peer(4, "203.0.113.90:1", 500), unfinished=4))
    books.enter(status(peer(5, "203.0.113.9:2", 2)))
    assert books.said == 32
    assert books.most == {"unfinished": 9, "unannounced": 3}


def test_who_was_turned_away_before_is_not_counted(books: Books) -> None:
    books.last = status(begun=8, retries=2) | {"turned_away": {"slow-reader": 4}}
    assert books.turned_away("slow-reader") == 4
    assert books.turned_away("control-flood") == 0
    assert books.handshakes() == {"begun": 3, "retries": 2, "held_back": 0, "dropped": 0}
