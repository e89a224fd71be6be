"""What a room's switch tells, in words: for the relay's log, and for the peers it concerns.

Pure: from an event of the core and the facts of the peers still there to a log line and a `notice`; sending is the server's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from softlan._core import RoomEvent
from softlan.control.messages import Notice, PeerFacts, Role
from softlan.observe.events import Event

__all__ = ["Trouble", "put_into_words"]


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing to tell: the log's event, the hint for whoever can mend it, and whom to send the notice (peer ids)."""

    event: Event
    notice: Notice
    hint: str | None
    tell: tuple[int, ...]

    @property
    def key(self) -> tuple[str, tuple[int, ...]]:
        """The same for a beginning and its end."""
        return self.notice.topic, self.notice.peers


_KINDS: Final[Mapping[str, tuple[str, Event]]] = {
    "loop-found": ("loop", Event.ROOM_LOOP),
    "echo-found": ("loop", Event.ROOM_LOOP),
    "loop-gone": ("loop", Event.ROOM_CALM),
    "storm-began": ("storm", Event.ROOM_STORM),
    "storm-ended": ("storm", Event.ROOM_CALM),
    "table-full": ("table-full", Event.ROOM_CROWDED),
    "table-eased": ("table-full", Event.ROOM_CALM),
    "address-conflict": ("address-conflict", Event.ROOM_CONFLICT),
    "address-settled": ("address-conflict", Event.ROOM_CALM),
    "mac-conflict": ("mac-conflict", Event.ROOM_CONFLICT),
    "mac-settled": ("mac-conflict", Event.ROOM_CALM),
}


def put_into_words(event: RoomEvent, present: Mapping[int, PeerFacts]) -> Trouble:
    """Say what an event means. `present` are the room's peers by id; one that has left is named by its id alone."""
    topic, name = _KINDS[event.kind]
    peers = tuple(event.peers)
    who = " and ".join(_name(peer, present) for peer in peers) or "all peers of the room together"
    reason = _SENTENCES[event.kind].format(
        who=who, mac=event.mac, address=event.address, dropped=event.dropped
    )
    is_over = name is Event.ROOM_CALM
    return Trouble(
        event=name,
        notice=Notice(topic=topic, reason=reason, peers=peers, over=is_over),
        hint=None if is_over else _hint(event.kind, peers, present),
        tell=peers or tuple(present),
    )


_SENTENCES: Final = {
    "loop-found": (
        "{who} are connected outside the room as well: frames (of {mac}) come back and would go round for ever;"
        " the copies are dropped"
    ),
    "echo-found": "what one of {who} sends (as {mac}) comes back through the other; the copies are dropped",
    "loop-gone": "nothing comes back through {who} any more",
    "storm-began": "{who} flood the room with broadcasts; those above the limit are dropped",
    "storm-ended": "the flood of broadcasts from {who} is over; {dropped} frames were dropped",
    "table-full": (
        "the LAN behind {who} shows more MAC addresses than the room remembers; those heard only once make room"
    ),
    "table-eased": "the LAN behind {who} has room for new MAC addresses again",
    "address-conflict": (
        "{who} both use the IP address {address}: what is for one of them reaches the other, now and then or always"
    ),
    "address-settled": "{who} no longer use one IP address",
    "mac-conflict": (
        "{who} both show the MAC {mac}: what is for it goes to the client, and what a machine on the LAN says under it is dropped"
    ),
    "mac-settled": "{who} no longer show one MAC",
}


def _hint(kind: str, peers: tuple[int, ...], present: Mapping[int, PeerFacts]) -> str:
    if kind == "echo-found":
        return (
            "look for a loop on the LAN behind the other, for a virtual switch that shows promiscuous ports their own"
            " frames, or for a softlan adapter in a bridge"
        )
    if kind == "storm-began":
        return (
            "look for a loop or a broken machine behind it; --frame-log drops on the relay shows the frames"
        )
    if kind == "address-conflict":
        return (
            "give one of the two another address; if neither has it by mistake, one of them wants to read what is for the"
            " other, and the relay's operator can send it away: `softlan admin kick ROOM PEER`"
        )
    if kind == "mac-conflict":
        return (
            "if the MAC is the client's by right, its machine stands on that LAN too: take the softlan adapter out of any bridge; if it"
            " is a machine's on the LAN, the client has taken it, by mistake or to read what is for that machine, and the relay's"
            " operator can send it away: `softlan admin kick ROOM PEER`"
        )
    if kind == "table-full":
        return "a machine on that LAN makes addresses up, or the LAN is very large"
    if any(peer in present and present[peer].role is Role.GATEWAY for peer in peers):
        return "take the player's softlan adapter out of any bridge with the LAN, or unplug one of the two"
    return "take one of the two softlan adapters out of its bridge"


def _name(peer: int, present: Mapping[int, PeerFacts]) -> str:
    facts = present.get(peer)
    if facts is None:
        return f"peer {peer}"
    return f"gateway {peer}" if facts.mac is None else f"client {peer} ({facts.mac})"
