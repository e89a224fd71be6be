"""Faults built into the code under test on purpose, to see that the stories find them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from softlan.client import session
from softlan.client.session import RelaySession
from softlan.control.channel import ControlChannel
from softlan.control.codes import Code
from softlan.relay import rooms
from softlan.relay.bans import Bans
from softlan.relay.gate import Gate
from softlan.relay.rooms import Rooms
from softlan.relay.server import Relay

__all__ = ["SABOTAGE"]

Fault = Callable[[pytest.MonkeyPatch], None]


def _nobody_is_told_of_a_departure(patch: pytest.MonkeyPatch) -> None:
    leave = Rooms.leave

    def silently(rooms: Any, connection: Any, code: Code) -> Any:
        departure = leave(rooms, connection, code)
        return departure and dataclasses.replace(departure, notify=())

    patch.setattr(Rooms, "leave", silently)


def _one_is_not_told_of_an_arrival(patch: pytest.MonkeyPatch) -> None:
    admit = Rooms.admit

    def partly(*args: Any, **options: Any) -> Any:
        admission = admit(*args, **options)
        if len(getattr(admission, "notify", ())) > 1:
            return dataclasses.replace(admission, notify=admission.notify[1:])
        return admission

    patch.setattr(Rooms, "admit", partly)


def _a_welcome_names_who_has_left(patch: pytest.MonkeyPatch) -> None:
    admit, gone = Rooms.admit, []

    def with_ghost(*args: Any, **options: Any) -> Any:
        admission = admit(*args, **options)
        if getattr(admission, "peer_left", None) is None:
            return admission
        ghost = (
            msgspec.structs.replace(admission.peers[0], peer_id=admission.peer_left.peer_id)
            if admission.peers
            else None
        )
        gone.append(ghost)
        return admission if ghost is None else dataclasses.replace(admission, peers=(*admission.peers, ghost))

    patch.setattr(Rooms, "admit", with_ghost)


def _who_was_replaced_keeps_the_place(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Relay, "_unplug", lambda *_: None)


def _who_was_replaced_is_not_told(patch: pytest.MonkeyPatch) -> None:
    def replace(relay: Any, admission: Any) -> None:
        relay._unplug(relay._peers.pop(admission.replaces))
        for other in admission.notify:
            relay._peers[other].channel.post(admission.peer_left)

    patch.setattr(Relay, "_replace", replace)


def _bans_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Bans, "against", lambda *_: None)


def _connections_are_not_counted_out(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Gate, "leave", lambda *_: None)


def _what_passes_ends_a_session(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(session, "_is_final", lambda error: True)


def _writers_outlive_their_channels(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ControlChannel, "abandon", lambda *_: None)


def _a_resume_secret_is_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rooms, "_former_self", lambda *_: None)


def _a_second_connection_is_taken_for_anothers(patch: pytest.MonkeyPatch) -> None:
    reason = session._reason
    patch.setattr(session, "_reason", lambda listening, *, is_doubled: reason(listening, is_doubled=False))


def _a_session_forgets_to_say_that_it_is_lost(patch: pytest.MonkeyPatch) -> None:
    def enter(run: Any, joined: Any) -> None:
        run._handler.lost = lambda: None
        really(run, joined)

    really = RelaySession._enter
    patch.setattr(RelaySession, "_enter", enter)


def _an_old_key_is_good_for_ever(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Gate, "replace_rules", lambda *_: None)


def _who_comes_back_takes_too_long(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(session, "_BACKOFF_S", (20.0,))


def _an_identifier_is_used_again_at_once(patch: pytest.MonkeyPatch) -> None:
    def lowest(room: Any) -> int:
        taken = {member.peer_id for member in room.members.values()}
        return min(set(range(1, 100)) - taken)

    patch.setattr(rooms.Room, "next_peer_id", lowest)


SABOTAGE: dict[str, Fault] = {
    fault.__name__.strip("_").replace("_", " "): fault
    for fault in (
        _nobody_is_told_of_a_departure,
        _one_is_not_told_of_an_arrival,
        _a_welcome_names_who_has_left,
        _who_was_replaced_keeps_the_place,
        _who_was_replaced_is_not_told,
        _bans_are_forgotten,
        _connections_are_not_counted_out,
        _what_passes_ends_a_session,
        _writers_outlive_their_channels,
        _a_resume_secret_is_not_looked_at,
        _a_second_connection_is_taken_for_anothers,
        _a_session_forgets_to_say_that_it_is_lost,
        _an_old_key_is_good_for_ever,
        _who_comes_back_takes_too_long,
        _an_identifier_is_used_again_at_once,
    )
}
