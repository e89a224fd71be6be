"""What the switch tells, in words people understand: who, what, and what to do."""

from dataclasses import dataclass, field

import pytest

from softlan._core import Mac
from softlan.control.messages import PeerFacts, Role, decode_from_relay, encode
from softlan.relay.notices import put_into_words

MAC = "02:00:5e:10:00:01"
PRESENT = {
    1: PeerFacts(peer_id=1, role=Role.CLIENT, mac=Mac(MAC)),
    2: PeerFacts(peer_id=2, role=Role.CLIENT, mac=Mac("02:00:5e:10:00:02")),
    3: PeerFacts(peer_id=3, role=Role.GATEWAY),
}


@dataclass
class Said:
    """As the core's RoomEvent."""

    kind: str
    peers: list[int] = field(default_factory=list)
    mac: str | None = None
    address: str | None = None
    dropped: int = 0


def test_a_loop_names_both_peers_and_the_way_out():
    found = put_into_words(Said("loop-found", [1, 3], "00:11:22:33:44:55"), PRESENT)
    assert found.event == "room.loop"
    assert f"client 1 ({MAC}) and gateway 3 are connected outside the room" in found.notice.reason
    assert "00:11:22:33:44:55" in found.notice.reason
    assert "bridge" in found.hint
    assert "player" in found.hint
    assert found.tell == (1, 3)
    gone = put_into_words(Said("loop-gone", [1, 3]), {})
    assert (gone.key, gone.notice.over, gone.hint, gone.event) == (found.key, True, None, "room.calm")
    assert "peer 1 and peer 3" in gone.notice.reason


def test_an_echo_accuses_nobody_of_a_bridge():
    found = put_into_words(Said("echo-found", [1, 3], MAC), PRESENT)
    assert "what one of client 1" in found.notice.reason
    assert "connected" not in found.notice.reason
    assert "virtual switch" in found.hint
    assert put_into_words(Said("loop-gone", [1, 3]), PRESENT).key == found.key


def test_a_storm_of_one_is_told_to_one_and_a_storm_of_all_to_all():
    one = put_into_words(Said("storm-began", [2]), PRESENT)
    assert one.tell == (2,)
    assert one.event == "room.storm"
    everybody = put_into_words(Said("storm-began"), PRESENT)
    assert everybody.tell == (1, 2, 3)
    assert "together" in everybody.notice.reason
    over = put_into_words(Said("storm-ended", dropped=77), PRESENT)
    assert over.key == everybody.key
    assert "77 frames" in over.notice.reason


def test_an_address_conflict_names_the_address_and_accuses_nobody():
    found = put_into_words(Said("address-conflict", [1, 2], address="192.168.88.7"), PRESENT)
    assert found.event == "room.conflict"
    assert (
        f"client 1 ({MAC}) and client 2 (02:00:5e:10:00:02) both use the IP address 192.168.88.7"
        in found.notice.reason
    )
    assert "another address" in found.hint
    assert found.tell == (1, 2)
    gone = put_into_words(Said("address-settled", [1, 2]), PRESENT)
    assert (gone.key, gone.notice.over, gone.hint, gone.event) == (found.key, True, None, "room.calm")


def test_a_mac_conflict_names_the_mac_and_both_ways_it_can_be():
    found = put_into_words(Said("mac-conflict", [1, 3], MAC), PRESENT)
    assert found.event == "room.conflict"
    assert f"client 1 ({MAC}) and gateway 3 both show the MAC {MAC}" in found.notice.reason
    assert "bridge" in found.hint
    assert "softlan admin kick" in found.hint
    assert found.tell == (1, 3)
    gone = put_into_words(Said("mac-settled", [1, 3]), PRESENT)
    assert (gone.key, gone.notice.over, gone.hint, gone.event) == (found.key, True, None, "room.calm")


@pytest.mark.parametrize(
    "kind",
    [
        "loop-found",
        "echo-found",
        "loop-gone",
        "storm-began",
        "storm-ended",
        "table-full",
        "table-eased",
        "address-conflict",
        "address-settled",
        "mac-conflict",
        "mac-settled",
    ],
)
def test_every_kind_makes_a_notice_that_can_be_sent(kind):
    peers = [65534, 65535] if kind.startswith(("loop", "echo", "address", "mac")) else [3]
    trouble = put_into_words(Said(kind, peers, MAC, "fe80:" + 7 * ":abcd", 2**60), PRESENT)
    assert decode_from_relay(encode(trouble.notice)) == trouble.notice
    assert (trouble.hint is None) == trouble.notice.over
