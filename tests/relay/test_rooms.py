"""The relay's room policy, rule by rule."""

import pytest

from softlan._core import Mac
from softlan.control.codes import Code
from softlan.control.messages import Hello, Role
from softlan.relay.rooms import MAX_PEERS_PER_ROOM, Admission, Rejection, RoomPolicy, Rooms

SECRET = "5a" * 32


def mac(number):
    return Mac.from_bytes(b"\x02\0\0\0" + number.to_bytes(2, "big"))


def client(number=1, room="ROOM1", budget=1434, **more):
    return Hello(protocol=1, role=Role.CLIENT, room=room, mac=mac(number), datagram_budget=budget, **more)


def gateway(room="ROOM1", budget=1434, **more):
    return Hello(protocol=1, role=Role.GATEWAY, room=room, datagram_budget=budget, **more)


def rooms(**policy):
    return Rooms(RoomPolicy(**policy))


def admit(machine, hello, connection):
    answer = machine.admit(hello, connection)
    assert isinstance(answer, Admission), answer
    return answer


def reject(machine, hello, connection):
    before = (len(machine), machine.peer_count)
    answer = machine.admit(hello, connection)
    assert isinstance(answer, Rejection), answer
    assert (len(machine), machine.peer_count) == before
    assert machine.member(connection) is None
    return answer.message


def test_the_first_peer_opens_the_room():
    admission = admit(rooms(), client(), "a")
    assert admission.room_is_new
    assert admission.peers == ()
    assert admission.notify == ()
    assert admission.replaces is None
    assert admission.welcome.room.gateway is False


def test_the_next_learns_of_the_others_and_they_of_it():
    machine = rooms()
    first = admit(machine, client(1), "a")
    second = admit(machine, gateway(), "b")
    third = admit(machine, client(2), "c")
    assert not second.room_is_new
    assert [peer.peer_id for peer in third.peers] == [first.peer_id, second.peer_id]
    assert [peer.mac for peer in third.peers] == [mac(1), None]
    assert third.notify == ("a", "b")
    assert third.peer_joined.peer_id == third.peer_id
    assert third.peer_joined.mac == mac(2)
    assert third.welcome.room.gateway is True
    assert second.welcome.room.gateway is True


def test_rooms_know_nothing_of_each_other():
    machine = rooms()
    admit(machine, client(1, "A"), "a")
    other = admit(machine, client(1, "B"), "b")
    assert other.room_is_new
    assert other.peers == other.notify == ()
    assert machine.leave("a", Code.GOODBYE).notify == ()


# The MTU


@pytest.mark.parametrize(
    ("budget", "configured", "expected"),
    [(1434, 1500, 1416), (1434, 1400, 1400), (1100, 1500, 1280), (9000, 1500, 1500), (9000, 1280, 1280)],
)
def test_the_first_admission_settles_the_mtu(budget, configured, expected):
    assert admit(rooms(room_mtu=configured), client(budget=budget), "a").tap_mtu == expected


def test_the_mtu_stays_as_long_as_the_room_lives():
    machine = rooms()
    admit(machine, client(1, budget=1434), "a")
    assert admit(machine, client(2, budget=1200), "b").tap_mtu == 1416
    machine.leave("a", Code.GOODBYE)
    assert admit(machine, client(3, budget=9000), "c").tap_mtu == 1416
    machine.leave("b", Code.GOODBYE)
    machine.leave("c", Code.GOODBYE)
    assert admit(machine, client(3, budget=1400), "c").tap_mtu == 1382


def test_only_a_peer_without_fragments_needs_the_budget():
    machine = rooms()
    admit(machine, client(1, budget=1434), "a")
    message = reject(machine, client(2, budget=1433, fragments=False), "b")
    assert message.code is Code.BUDGET_TOO_SMALL
    assert message.required_budget == 1434
    assert message.field == "datagram_budget"
    admit(machine, client(2, budget=message.required_budget, fragments=False), "b")
    admit(machine, client(3, budget=1000), "c")


def test_a_first_peer_without_fragments_needs_the_smallest_mtu():
    machine = rooms()
    message = reject(machine, client(budget=1200, fragments=False), "a")
    assert message.required_budget == 1298
    admit(machine, client(budget=1298, fragments=False), "a")


# Who may not


def test_one_gateway_a_room():
    machine = rooms()
    admit(machine, gateway("A"), "a")
    assert reject(machine, gateway("A"), "b").code is Code.GATEWAY_PRESENT
    admit(machine, gateway("B"), "b")
    machine.leave("a", Code.GOODBYE)
    admit(machine, gateway("A"), "c")


def test_one_client_a_mac():
    machine = rooms()
    admit(machine, client(1), "a")
    message = reject(machine, client(1), "b")
    assert message.code is Code.DUPLICATE_MAC
    assert message.field == "mac"
    machine.leave("a", Code.CONNECTION_LOST)
    admit(machine, client(1), "b")


def test_no_client_has_the_mac_of_a_machine_on_the_lan():
    machine = rooms()
    admit(machine, gateway(), "a")
    before = (len(machine), machine.peer_count)
    answer = machine.admit(client(1), "b", mac_is_on_lan=True)
    assert isinstance(answer, Rejection)
    assert (answer.message.code, answer.message.field) == (Code.DUPLICATE_MAC, "mac")
    assert str(mac(1)) in answer.message.reason
    assert "LAN" in answer.message.reason
    assert (len(machine), machine.peer_count) == before
    admit(machine, client(1, resume=SECRET), "c")
    # Its own former place it takes whatever the LAN shows of it.
    again = machine.admit(client(1, resume=SECRET), "d", mac_is_on_lan=True)
    assert isinstance(again, Admission)
    assert again.replaces == "c"


def test_a_room_holds_its_number_of_peers():
    machine = rooms(max_peers_per_room=2)
    admit(machine, client(1), "a")
    admit(machine, gateway(), "b")
    assert reject(machine, client(2), "c").code is Code.ROOM_FULL
    machine.leave("b", Code.GOODBYE)
    admit(machine, client(2), "c")


def test_a_relay_holds_its_number_of_rooms_and_peers():
    machine = rooms(max_rooms=2, max_peers=3)
    admit(machine, client(1, "A"), "a")
    admit(machine, client(1, "B"), "b")
    assert reject(machine, client(1, "C"), "c").code is Code.RELAY_FULL
    admit(machine, client(2, "B"), "c")
    assert reject(machine, client(2, "A"), "d").code is Code.RELAY_FULL
    machine.leave("a", Code.GOODBYE)
    admit(machine, client(1, "C"), "d")


def test_a_relay_may_serve_named_rooms_only():
    machine = rooms(allowed_rooms=frozenset({"room1"}))
    admit(machine, client(1, "Room1"), "a")
    message = reject(machine, client(1, "ROOM2"), "b")
    assert message.code is Code.INVALID_ROOM
    assert message.field == "room"


def test_a_connection_is_in_one_room():
    machine = rooms()
    admit(machine, client(1), "a")
    with pytest.raises(ValueError, match="already"):
        machine.admit(client(2), "a")


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("max_rooms", 0, "max_rooms"),
        ("max_peers", 0, "max_peers"),
        ("max_peers_per_room", 0, "max_peers_per_room"),
        ("max_peers_per_room", MAX_PEERS_PER_ROOM + 1, "max_peers_per_room"),
        ("room_mtu", 1279, "room_mtu"),
        ("room_mtu", 1501, "room_mtu"),
        ("allowed_rooms", frozenset({"no good"}), "room code"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(setting, value, words):
    with pytest.raises(ValueError, match=words):
        RoomPolicy(**{setting: value})


# Leaving


def test_leaving_tells_the_others():
    machine = rooms()
    admit(machine, client(1), "a")
    second = admit(machine, client(2), "b")
    departure = machine.leave("b", Code.CONNECTION_LOST)
    assert departure.notify == ("a",)
    assert departure.peer_left.peer_id == second.peer_id == departure.peer.peer_id
    assert departure.peer_left.reason is Code.CONNECTION_LOST
    assert not departure.room_is_empty
    assert machine.leave("a", Code.GOODBYE).room_is_empty
    assert len(machine) == machine.peer_count == 0


def test_leaving_twice_does_no_harm():
    machine = rooms()
    admit(machine, client(1), "a")
    machine.leave("a", Code.GOODBYE)
    assert machine.leave("a", Code.GOODBYE) is None
    assert machine.leave("never seen", Code.GOODBYE) is None


def test_ids_come_back_only_after_all_others():
    machine = rooms()
    admit(machine, gateway(), "stays")
    seen = []
    for _ in range(65535):
        seen.append(admit(machine, client(1), "comes and goes").peer_id)
        machine.leave("comes and goes", Code.GOODBYE)
    assert len(set(seen)) == 65534, "all but the one that is taken"
    assert seen[-1] == seen[0]


# Taking over


def test_the_same_identity_takes_over_at_once():
    machine = rooms()
    admit(machine, client(2), "other")
    old = admit(machine, client(1, resume=SECRET), "old")
    new = admit(machine, client(1, resume=SECRET), "new")
    assert new.replaces == "old"
    assert new.peer_left.peer_id == old.peer_id
    assert new.peer_left.reason is Code.REPLACED
    assert new.peer_id != old.peer_id
    assert new.notify == ("other",)
    assert old.peer_id not in [peer.peer_id for peer in new.peers]
    assert machine.leave("old", Code.REPLACED) is None
    assert machine.member("new").mac == mac(1)


def test_a_gateway_takes_over_as_well():
    machine = rooms()
    admit(machine, gateway(resume=SECRET), "old")
    assert admit(machine, gateway(resume=SECRET), "new").replaces == "old"


@pytest.mark.parametrize(
    ("former", "later", "code"),
    [
        (client(1, resume=SECRET), client(1, resume="00" * 32), Code.DUPLICATE_MAC),
        (client(1, resume=SECRET), client(1), Code.DUPLICATE_MAC),
        (client(1), client(1, resume=SECRET), Code.DUPLICATE_MAC),
        (gateway(resume=SECRET), gateway(resume="00" * 32), Code.GATEWAY_PRESENT),
        (gateway(), gateway(), Code.GATEWAY_PRESENT),
    ],
)
def test_nobody_else_takes_over(former, later, code):
    machine = rooms()
    admit(machine, former, "old")
    assert reject(machine, later, "new").code is code
    assert machine.member("old") is not None


def test_the_secret_alone_takes_nothing_over():
    machine = rooms()
    admit(machine, client(1, resume=SECRET), "a")
    assert admit(machine, client(2, resume=SECRET), "b").replaces is None
    assert admit(machine, gateway(resume=SECRET), "c").replaces is None
    assert admit(machine, client(1, "OTHER", resume=SECRET), "d").replaces is None


def test_a_takeover_needs_no_place_of_its_own():
    machine = rooms(max_rooms=1, max_peers=1, max_peers_per_room=1)
    old = admit(machine, client(1, resume=SECRET), "old")
    new = admit(machine, client(1, resume=SECRET, budget=9000), "new")
    assert new.replaces == "old"
    assert not new.room_is_new
    assert new.tap_mtu == old.tap_mtu


def test_a_takeover_that_is_refused_takes_nothing():
    machine = rooms()
    admit(machine, client(1, resume=SECRET), "old")
    message = reject(machine, client(1, resume=SECRET, budget=1300, fragments=False), "new")
    assert message.code is Code.BUDGET_TOO_SMALL
    assert machine.member("old") is not None


# Places that are kept


def test_who_was_there_is_known_again_by_its_secret():
    machine = rooms()
    for connection, hello in enumerate((client(1, resume=SECRET), gateway(resume=SECRET), client(2))):
        admit(machine, hello, connection)
    machine.keep_places()
    admit(machine, client(3, resume=SECRET), "late")
    for connection in (0, 1, 2, "late"):
        machine.leave(connection, Code.CONNECTION_LOST)
    for known in (client(1, resume=SECRET), client(1, budget=1000, resume=SECRET), gateway(resume=SECRET)):
        assert machine.has_kept_place(known)
    other = "00" * 32
    for stranger in (
        client(1),
        client(1, resume=other),
        client(1, "OTHER", resume=SECRET),
        client(2),
        client(2, resume=SECRET),
        client(3, resume=SECRET),
        gateway(resume=other),
        gateway("OTHER", resume=SECRET),
    ):
        assert not machine.has_kept_place(stranger)


def test_secrets_are_in_no_repr():
    machine = rooms()
    admit(machine, client(1, resume=SECRET), "a")
    assert SECRET not in repr(machine.member("a"))
    assert SECRET not in repr(list(machine))


def test_the_largest_welcome_fits_one_control_frame():
    from softlan.control.messages import encode
    from softlan.control.stream import encode_frame

    machine = rooms(max_peers_per_room=MAX_PEERS_PER_ROOM, max_peers=MAX_PEERS_PER_ROOM)
    for number in range(1, MAX_PEERS_PER_ROOM):
        machine.admit(client(number, "R" * 32), number)
    last = admit(machine, gateway("R" * 32), "last")
    encode_frame(encode(last.welcome))
