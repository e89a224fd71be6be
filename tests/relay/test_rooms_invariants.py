"""The relay's room policy under any sequence of comings and goings."""

import itertools

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from softlan._core import Mac, tap_mtu_for_datagram
from softlan.control.codes import Code, Retry
from softlan.control.messages import Hello, Role, encode
from softlan.relay.rooms import Admission, RoomPolicy, Rooms

POLICY = RoomPolicy(
    max_rooms=3, max_peers=7, max_peers_per_room=4, allowed_rooms=frozenset({"A", "B", "C", "D"})
)

HELLOS = st.builds(
    lambda role, number, **more: Hello(
        protocol=1,
        role=role,
        mac=Mac.from_bytes(bytes([2, 0, 0, 0, 0, number])) if role is Role.CLIENT else None,
        **more,
    ),
    role=st.sampled_from([Role.CLIENT, Role.CLIENT, Role.GATEWAY]),
    number=st.integers(1, 5),
    room=st.sampled_from("ABCDE"),
    datagram_budget=st.integers(1000, 1600),
    fragments=st.booleans(),
    resume=st.sampled_from([None, "0a" * 32, "0b" * 32]),
)


class Party(RuleBasedStateMachine):
    """Checks the rooms against what their peers have been told."""

    def __init__(self):
        super().__init__()
        self.rooms = Rooms(POLICY)
        self.connections = itertools.count()
        self.inside = {}  # connection -> (hello, admission)
        self.told = {}  # connection -> the ids it knows of
        self.ids = {}  # room -> all ids of its life
        self.mtu = {}

    def forget(self, connection, peer_left):
        hello, admission = self.inside.pop(connection)
        assert peer_left.peer_id == admission.peer_id
        del self.told[connection]
        return hello.room

    def tell(self, room, notify, change):
        assert set(notify) == {c for c, (hello, _) in self.inside.items() if hello.room == room}
        for connection in notify:
            change(self.told[connection])

    @rule(hello=HELLOS)
    def come(self, hello):
        connection = next(self.connections)
        before = dict(self.inside)
        answer = self.rooms.admit(hello, connection)
        if not isinstance(answer, Admission):
            encode(answer.message)
            assert self.rooms.member(connection) is None
            assert answer.message.code.retry is not Retry.NOT_APPLICABLE
            self.check_refusal(hello, answer.message.code)
            return
        encode(answer.welcome)
        room = hello.room
        assert answer.room_is_new == (room not in self.mtu)
        if answer.replaces is not None:
            former, _ = before[answer.replaces]
            assert (former.role, former.mac, former.resume) == (hello.role, hello.mac, hello.resume)
            assert hello.resume is not None
            self.forget(answer.replaces, answer.peer_left)
            self.tell(room, answer.notify, lambda known: known.remove(answer.peer_left.peer_id))
        assert self.mtu.setdefault(room, answer.tap_mtu) == answer.tap_mtu
        assert answer.peer_id not in self.ids.setdefault(room, set())
        self.ids[room].add(answer.peer_id)
        self.tell(room, answer.notify, lambda known: known.add(answer.peer_id))
        self.inside[connection] = (hello, answer)
        self.told[connection] = {peer.peer_id for peer in answer.peers}

    def check_refusal(self, hello, code):
        there = [h for h, _ in self.inside.values() if h.room == hello.room]
        match code:
            case Code.INVALID_ROOM:
                assert hello.room == "E"
            case Code.GATEWAY_PRESENT:
                assert any(h.role is Role.GATEWAY for h in there)
            case Code.DUPLICATE_MAC:
                assert any(h.mac == hello.mac for h in there)
            case Code.ROOM_FULL:
                assert len(there) == POLICY.max_peers_per_room
            case Code.RELAY_FULL:
                assert len(self.inside) == POLICY.max_peers or len(self.mtu) == POLICY.max_rooms
            case Code.BUDGET_TOO_SMALL:
                assert not hello.fragments
            case _:
                raise AssertionError(code)

    @precondition(lambda self: self.inside)
    @rule(data=st.data(), code=st.sampled_from([Code.GOODBYE, Code.CONNECTION_LOST, Code.KICKED]))
    def go(self, data, code):
        connection = data.draw(st.sampled_from(sorted(self.inside)))
        departure = self.rooms.leave(connection, code)
        assert departure.peer_left.reason is code
        room = self.forget(connection, departure.peer_left)
        self.tell(room, departure.notify, lambda known: known.remove(departure.peer_left.peer_id))
        if departure.room_is_empty:
            del self.mtu[room], self.ids[room]

    @rule()
    def go_again(self):
        gone = next(self.connections)
        assert self.rooms.leave(gone, Code.GOODBYE) is None

    @invariant()
    def everybody_knows_just_the_others(self):
        for connection, (hello, admission) in self.inside.items():
            others = {
                a.peer_id for c, (h, a) in self.inside.items() if h.room == hello.room and c != connection
            }
            assert self.told[connection] == others
            assert admission.peer_id not in others

    @invariant()
    def limits_hold(self):
        assert self.rooms.peer_count == len(self.inside) <= POLICY.max_peers
        assert {room.code for room in self.rooms} == set(self.mtu)
        assert len(self.rooms) <= POLICY.max_rooms
        for room in self.rooms:
            members = list(room.members.values())
            assert 1 <= len(members) <= POLICY.max_peers_per_room
            assert sum(member.role is Role.GATEWAY for member in members) <= 1
            macs = [member.mac for member in members if member.mac is not None]
            assert len(set(macs)) == len(macs)
            assert 1280 <= room.tap_mtu <= 1500

    @invariant()
    def whoever_cannot_fragment_carries_the_rooms_frames(self):
        for hello, admission in self.inside.values():
            assert hello.fragments or tap_mtu_for_datagram(hello.datagram_budget) >= admission.tap_mtu


Party.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestParty = Party.TestCase
