"""What a running relay says about invites: to its operator when it starts, and to `softlan invite` when that asks."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from softlan.observe.events import Event
from softlan.observe.logs import log_event
from softlan.relay.admin import Pins
from softlan.relay.server import Relay
from softlan.relay.whereabouts import InviteFacts, Whereabouts, find_whereabouts, own_addresses

__all__ = ["Inviting"]

logger = logging.getLogger(__name__)

_TOLD_ROOMS = 8
"""Rooms whose invites are logged at start; more would hide the rest of the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inviting:
    """The facts about one relay's invites; see `find_whereabouts` for what they mean."""

    relay: Relay
    pins: Pins
    public: tuple[str, int | None] | None
    kept: bool
    allowed: Collection[str]
    """Rooms of --allow-room; none: all."""

    @property
    def whereabouts(self) -> Whereabouts:
        """Where players reach it, as far as is known now."""
        return find_whereabouts(
            self.relay.local_address,
            self.public,
            pins=tuple(self.pins.all),
            certified_names=self.certified_names,
            kept=self.kept,
            own=own_addresses(),
        )

    @property
    def certified_names(self) -> tuple[str, ...] | None:
        """The names that an authority vouches for; None where none does."""
        shown = self.relay.certificate
        return None if shown.self_issued else shown.names

    @property
    def rooms(self) -> Mapping[str, bool]:
        """The rooms that are known by name, and whether each is open to all who know the name."""
        rules = self.relay.gate.rules
        known = sorted(self.allowed) or sorted(rules.rooms)
        return {room: rules.of(room).open for room in known if room in rules.rooms or rules.open_rooms}

    @property
    def open_rooms(self) -> bool:
        """Whether rooms of any other name are open too."""
        return self.relay.gate.rules.open_rooms and not self.allowed

    def facts(self) -> dict[str, Any]:
        """Give what `softlan invite` needs, as a part of the status."""
        found = self.whereabouts
        facts = InviteFacts(
            relay=None if found.relay is None else str(found.relay),
            pins=found.pins,
            all_pins=tuple(self.pins.all),
            certified_names=self.certified_names,
            address_notes=found.address_notes,
            notes=found.other_notes,
            rooms=dict(self.rooms),
            open_rooms=self.open_rooms,
            only=bool(self.allowed),
        )
        return msgspec.structs.asdict(facts)

    def tell(self) -> None:
        """Log what players type, and what the operator should know about it. No line holds a key."""
        found = self.whereabouts
        for note in found.notes:
            log_event(logger, Event.INVITE_NOTE, note)
        if found.relay is None:
            return
        for room, is_open in list(self.rooms.items())[:_TOLD_ROOMS]:
            if is_open:
                words = f"to play in room {room}: {found.invite(room).command}"
            else:
                words = f"room {room} asks for a key: softlan invite {room} makes an invite"
            log_event(logger, Event.INVITE_READY, words, room=room)
        if self.open_rooms:
            words = f"to play in a room, any name in place of ROOM: {found.invite('ROOM').command}"
            log_event(logger, Event.INVITE_READY, words)
