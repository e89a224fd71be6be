"""Who may be in which room: the relay's policy as a pure machine, without I/O, clock or threads.

`Rooms.admit` judges a hello and either takes the peer in or says why not; `Rooms.leave` takes it out. Both
return what there is to do (whom to tell what) and leave the doing to the server. A connection is any hashable
thing that stands for one QUIC connection; this module only compares them. The order of events is the order of
calls: the server calls from one task and need not know any rule of this file.
"""

from __future__ import annotations

import hmac
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypeVar

from softlan._core import (
    MAX_TAP_MTU,
    MIN_TAP_MTU,
    Mac,
    datagram_for_tap_mtu,
    room_tap_mtu,
    tap_mtu_for_datagram,
)
from softlan.control.codes import Code
from softlan.control.fields import MAX_PEER_ID, normalise_room_code
from softlan.control.messages import (
    PROTOCOL,
    Hello,
    PeerFacts,
    PeerJoined,
    PeerLeft,
    Reject,
    Role,
    RoomFacts,
    Welcome,
)
from softlan.texts import several

__all__ = ["Admission", "Departure", "Member", "Place", "Rejection", "Room", "RoomPolicy", "Rooms"]

C = TypeVar("C", bound=Hashable)
"""What the server uses to stand for one connection."""

Place: TypeAlias = tuple[str, Role, Mac | None]
"""Room, role and MAC of a peer."""

MAX_PEERS_PER_ROOM = 1000
"""As many as a welcome can name within one control frame, at less than 60 bytes of JSON a peer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomPolicy:
    """What a relay allows. `allowed_rooms` None means any room; `room_mtu` is an IP MTU in bytes.

    Peers are clients and gateways together, each room's gateway counts as one.
    """

    max_rooms: int = 256
    max_peers: int = 1024
    max_peers_per_room: int = 64
    room_mtu: int = MAX_TAP_MTU
    allowed_rooms: frozenset[str] | None = None

    def __post_init__(self) -> None:
        for name in ("max_rooms", "max_peers", "max_peers_per_room"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.max_peers_per_room > MAX_PEERS_PER_ROOM:
            raise ValueError(f"max_peers_per_room must be at most {MAX_PEERS_PER_ROOM}")
        if not MIN_TAP_MTU <= self.room_mtu <= MAX_TAP_MTU:
            raise ValueError(f"room_mtu must be {MIN_TAP_MTU} to {MAX_TAP_MTU}")
        if self.allowed_rooms is not None:
            folded = frozenset(map(normalise_room_code, self.allowed_rooms))
            object.__setattr__(self, "allowed_rooms", folded)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member(Generic[C]):
    """One peer that is in a room now."""

    connection: C
    room: str
    peer_id: int
    role: Role
    mac: Mac | None
    fragments: bool
    software: str | None
    resume: str | None = field(repr=False)

    @property
    def place(self) -> Place:
        """What tells it from all others: a room has one gateway, and one client of a MAC."""
        return self.room, self.role, self.mac

    @property
    def facts(self) -> PeerFacts:
        """What other peers are told about this one."""
        return PeerFacts(peer_id=self.peer_id, role=self.role, mac=self.mac)


@dataclass(slots=True)
class Room(Generic[C]):
    """One room, from its first admission until the last peer has left; `tap_mtu` holds for all that time."""

    code: str
    tap_mtu: int
    members: dict[C, Member[C]] = field(default_factory=dict)
    last_peer_id: int = 0

    @property
    def gateway(self) -> Member[C] | None:
        """The peer that brings the LAN, if one is there."""
        return next((member for member in self.members.values() if member.role is Role.GATEWAY), None)

    def others(self, connection: C) -> list[Member[C]]:
        """Everybody but this one, in order of admission."""
        return [member for member in self.members.values() if member.connection != connection]

    def next_peer_id(self) -> int:
        """Pick the id for a newcomer.

        Ids go round all 65535 before one comes back, so that datagrams still in flight from a peer that left
        are never taken for those of its successor.
        """
        taken = {member.peer_id for member in self.members.values()}
        peer_id = self.last_peer_id
        while True:
            peer_id = peer_id % MAX_PEER_ID + 1
            if peer_id not in taken:
                return peer_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission(Generic[C]):
    """The peer is in. The server plugs it into the switch, sends `welcome`, and tells `notify`.

    When `replaces` is not None, that connection's peer has been taken out already: the server unplugs it,
    ends it with `Code.REPLACED`, and tells `notify` of `peer_left` before `peer_joined`.
    """

    room: str
    peer_id: int
    tap_mtu: int
    peers: tuple[PeerFacts, ...]
    notify: tuple[C, ...]
    peer_joined: PeerJoined
    room_is_new: bool
    replaces: C | None = None
    peer_left: PeerLeft | None = None

    @property
    def welcome(self) -> Welcome:
        """The relay's answer to the hello."""
        gateway = any(peer.role is Role.GATEWAY for peer in self.peers) or (
            self.peer_joined.role is Role.GATEWAY
        )
        return Welcome(
            protocol=PROTOCOL,
            peer_id=self.peer_id,
            tap_mtu=self.tap_mtu,
            room=RoomFacts(code=self.room, peers=self.peers, gateway=gateway),
        )


@dataclass(frozen=True, slots=True)
class Rejection:
    """The peer is not in, nothing has changed; `message` says why."""

    message: Reject


@dataclass(frozen=True, slots=True, kw_only=True)
class Departure(Generic[C]):
    """The peer is out. The server unplugs it and tells `notify`; an empty room is gone already."""

    room: str
    peer: PeerFacts
    notify: tuple[C, ...]
    peer_left: PeerLeft
    room_is_empty: bool


class Rooms(Generic[C]):
    """All rooms of one relay."""

    def __init__(self, policy: RoomPolicy) -> None:
        self.policy = policy
        self._rooms: dict[str, Room[C]] = {}
        self._members: dict[C, Member[C]] = {}
        self._kept: dict[Place, Member[C]] = {}

    def __len__(self) -> int:
        """Count the rooms."""
        return len(self._rooms)

    def __iter__(self) -> Iterator[Room[C]]:
        """Walk through the rooms; they are for reading only."""
        return iter(self._rooms.values())

    @property
    def peer_count(self) -> int:
        """How many peers are in all rooms together."""
        return len(self._members)

    def member(self, connection: C) -> Member[C] | None:
        """Find who a connection is, None when it is in no room."""
        return self._members.get(connection)

    def admit(
        self, hello: Hello, connection: C, *, max_peers: int | None = None, mac_is_on_lan: bool = False
    ) -> Admission[C] | Rejection:
        """Judge a valid hello and take its sender in, or say why not.

        `max_peers` is the room's own number of places; `mac_is_on_lan` says that the gateway's LAN has a machine with the hello's MAC.
        """
        if connection in self._members:
            raise ValueError("this connection is in a room already")
        room = self._rooms.get(hello.room)
        replaced = None if room is None else _former_self(room, hello)
        refusal = self.refusal(hello, max_peers=max_peers, mac_is_on_lan=mac_is_on_lan)
        if refusal is not None:
            return Rejection(refusal)

        room_is_new = room is None
        if room is None:
            room = Room(hello.room, room_tap_mtu(hello.datagram_budget, self.policy.room_mtu))
            self._rooms[hello.room] = room
        if replaced is not None:
            del room.members[replaced.connection], self._members[replaced.connection]
        others = tuple(room.members.values())
        member = Member(
            connection=connection,
            room=room.code,
            peer_id=room.next_peer_id(),
            role=hello.role,
            mac=hello.mac,
            fragments=hello.fragments,
            software=hello.software,
            resume=hello.resume,
        )
        room.last_peer_id = member.peer_id
        room.members[connection] = self._members[connection] = member
        return Admission(
            room=room.code,
            peer_id=member.peer_id,
            tap_mtu=room.tap_mtu,
            peers=tuple(other.facts for other in others),
            notify=tuple(other.connection for other in others),
            peer_joined=PeerJoined(peer_id=member.peer_id, role=member.role, mac=member.mac),
            room_is_new=room_is_new,
            replaces=None if replaced is None else replaced.connection,
            peer_left=None if replaced is None else PeerLeft(peer_id=replaced.peer_id, reason=Code.REPLACED),
        )

    def refusal(
        self, hello: Hello, *, max_peers: int | None = None, mac_is_on_lan: bool = False
    ) -> Reject | None:
        """Say why `admit` would not take the sender of a hello in now; None when it would."""
        room = self._rooms.get(hello.room)
        replaced = None if room is None else _former_self(room, hello)
        places = max_peers or self.policy.max_peers_per_room
        return self._refuse(hello, room, replaced, places, mac_is_on_lan)

    def comes_back(self, hello: Hello) -> bool:
        """Whether a hello takes over a connection that is in its room."""
        room = self._rooms.get(hello.room)
        return room is not None and _former_self(room, hello) is not None

    def keep_places(self) -> None:
        """Remember who is in which room now, so that `has_kept_place` knows them when they have left."""
        self._kept = {member.place: member for member in self._members.values()}

    def has_kept_place(self, hello: Hello) -> bool:
        """Whether a hello comes from somebody who was in its room at `keep_places`: the same role, MAC and secret."""
        member = self._kept.get((hello.room, hello.role, hello.mac))
        return member is not None and _is_of(hello, member)

    def leave(self, connection: C, code: Code) -> Departure[C] | None:
        """Take a peer out; None when it was in no room (any more), so that leaving twice does no harm."""
        member = self._members.pop(connection, None)
        if member is None:
            return None
        room = self._rooms[member.room]
        del room.members[connection]
        if not room.members:
            del self._rooms[room.code]
        return Departure(
            room=room.code,
            peer=member.facts,
            notify=tuple(room.members),
            peer_left=PeerLeft(peer_id=member.peer_id, reason=code),
            room_is_empty=not room.members,
        )

    def _refuse(
        self,
        hello: Hello,
        room: Room[C] | None,
        replaced: Member[C] | None,
        places: int,
        mac_is_on_lan: bool,
    ) -> Reject | None:
        """Find the first rule the hello breaks. A peer that replaces itself takes no new place."""
        allowed = self.policy.allowed_rooms
        if allowed is not None and hello.room not in allowed:
            return Reject(
                code=Code.INVALID_ROOM,
                reason=f"this relay does not serve room {hello.room}",
                field="room",
            )
        if replaced is None:
            refusal = _refuse_identity(hello, room, mac_is_on_lan) or self._refuse_place(room, places)
            if refusal is not None:
                return refusal
        return self._refuse_budget(hello, room)

    def _refuse_place(self, room: Room[C] | None, places: int) -> Reject | None:
        """Hold to the numbers of peers and rooms."""
        policy = self.policy
        if room is not None and len(room.members) >= places:
            return Reject(
                code=Code.ROOM_FULL,
                reason=f"room {room.code} is full: it holds {several(places, 'peer')}",
            )
        if len(self._members) >= policy.max_peers:
            return Reject(
                code=Code.RELAY_FULL,
                reason=f"this relay is full: it holds {several(policy.max_peers, 'peer')}",
            )
        if room is None and len(self._rooms) >= policy.max_rooms:
            return Reject(
                code=Code.RELAY_FULL,
                reason=f"this relay is full: it holds {several(policy.max_rooms, 'room')}",
            )
        return None

    def _refuse_budget(self, hello: Hello, room: Room[C] | None) -> Reject | None:
        """Hold a peer without fragments to what a whole frame of the room takes."""
        if hello.fragments:
            return None
        tap_mtu = room_tap_mtu(hello.datagram_budget, self.policy.room_mtu) if room is None else room.tap_mtu
        if tap_mtu_for_datagram(hello.datagram_budget) >= tap_mtu:
            return None
        required = datagram_for_tap_mtu(tap_mtu)
        return Reject(
            code=Code.BUDGET_TOO_SMALL,
            reason=(
                f"room {hello.room} has an MTU of {tap_mtu}, which without fragments takes datagrams of "
                f"{required} bytes; this peer can send {hello.datagram_budget}"
            ),
            field="datagram_budget",
            required_budget=required,
        )


def _former_self(room: Room[C], hello: Hello) -> Member[C] | None:
    """Find the connection this hello takes over: the same role, MAC and secret."""
    return next((member for member in room.members.values() if _is_of(hello, member)), None)


def _is_of(hello: Hello, member: Member[C]) -> bool:
    """Whether a hello for a member's room is that member's own: the same role, MAC and secret."""
    return (
        member.role is hello.role
        and member.mac == hello.mac
        and member.resume is not None
        and hello.resume is not None
        # In constant time: how long it takes must not tell a stranger how much of a guess was right.
        and hmac.compare_digest(member.resume.encode(), hello.resume.encode())
    )


def _refuse_identity(hello: Hello, room: Room[C] | None, mac_is_on_lan: bool) -> Reject | None:
    """Hold to one gateway a room, and one client a MAC that no machine on the LAN has."""
    if room is None:
        return None
    if hello.role is Role.GATEWAY:
        if room.gateway is not None:
            return Reject(code=Code.GATEWAY_PRESENT, reason=f"room {room.code} has a gateway already")
    elif any(member.mac == hello.mac for member in room.members.values()):
        return Reject(
            code=Code.DUPLICATE_MAC,
            reason=f"another client in room {room.code} has the MAC {hello.mac}",
            field="mac",
        )
    elif mac_is_on_lan:
        return Reject(
            code=Code.DUPLICATE_MAC,
            reason=f"a machine on the LAN behind the gateway of room {room.code} has the MAC {hello.mac}",
            field="mac",
        )
    return None
