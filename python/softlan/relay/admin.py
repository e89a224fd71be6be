"""What the relay's operator may ask of a running relay: kick, ban, unban, look, and issue invites.

It goes over a unix socket that only the relay's own user can connect to, beside the status socket: one JSON object with a newline asks, one
answers. The relay's side is here; `admin_cli.py` asks.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta, Struct

from softlan.config import MAX_INVITE_S, parse_room
from softlan.control.codes import Code
from softlan.control.fields import Role
from softlan.control.keys import issue
from softlan.errors import ConfigError, SoftlanError
from softlan.observe.events import Event
from softlan.observe.local import listen_privately, runtime_directory
from softlan.observe.logs import log_event
from softlan.relay.bans import Ban, parse_target, parse_where
from softlan.relay.gate import Gate
from softlan.relay.limits import line_of
from softlan.relay.rooms import Member
from softlan.relay.server import Relay
from softlan.relay.state import RelayState
from softlan.relay.writer import on_disk
from softlan.texts import harmless

__all__ = [
    "ADMIN_SUFFIX",
    "AdminServer",
    "AskBan",
    "AskBans",
    "AskInvite",
    "AskKick",
    "AskPeers",
    "AskUnban",
    "Desk",
    "Pins",
    "Request",
]

logger = logging.getLogger(__name__)

ADMIN_SUFFIX = ".admin"
MAX_REQUEST = 4096
TIMEOUT_S = 2.0
SAVED_WITHIN_S = 1.0
"""How long an answer waits for a disk that takes its time. What was asked for holds all the same."""


class _Asked(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="ask"):
    """Base of all requests."""


class AskKick(_Asked, frozen=True, kw_only=True, tag="kick"):
    """Send a peer away for a minute; `peer` is its id or MAC."""

    room: str
    peer: str


class AskBan(_Asked, frozen=True, kw_only=True, tag="ban"):
    """Keep a MAC, address or network out of a room or, for `*`, of all; for so many seconds, or for good."""

    room: str
    target: str
    for_s: Annotated[float, Meta(gt=0)] | None = None


class AskUnban(_Asked, frozen=True, kw_only=True, tag="unban"):
    """Lift the bans against a target, in one room or, for `*`, in all."""

    room: str
    target: str


class AskBans(_Asked, frozen=True, kw_only=True, tag="bans"):
    """List the bans."""


class AskPeers(_Asked, frozen=True, kw_only=True, tag="peers"):
    """List the rooms and who is in them; one room, or all."""

    room: str | None = None


class AskInvite(_Asked, frozen=True, kw_only=True, tag="invite"):
    """Issue a key for a room."""

    room: str
    gateway: bool = False
    expires_s: Annotated[float, Meta(gt=0, le=MAX_INVITE_S)] = 86400.0
    once: bool = False


Request: TypeAlias = AskKick | AskBan | AskUnban | AskBans | AskPeers | AskInvite


class Pins:
    """The pins a joining side should hold: the present certificate's, and those of certificates that come next."""

    def __init__(self, present: str, following: Callable[[], Iterable[str]]) -> None:
        self._following = following
        self.present = present
        self.next = tuple(following())

    def replace(self, present: str) -> None:
        """Take note that the certificate was replaced.

        Raises ConfigError: the next certificate cannot be read; the present pin is taken note of all the same, and there is no next.
        """
        self.present, self.next = present, ()
        self.next = tuple(self._following())

    @property
    def all(self) -> list[str]:
        """All of them, the present first, each once."""
        return list(dict.fromkeys((self.present, *self.next)))


class Desk:
    """Does what is asked of one relay."""

    def __init__(self, relay: Relay, pins: Pins) -> None:
        self._relay = relay
        self._pins = pins
        self._saved: Future[None] | None = None

    def handle(self, request: Request) -> dict[str, Any]:
        """Do it, and give what to tell.

        Raises SoftlanError: it cannot be done, and why.
        """
        match request:
            case AskKick():
                return self._kick(request)
            case AskBan():
                return self._ban(request)
            case AskUnban():
                return self._unban(request)
            case AskBans():
                return {"bans": self._bans()}
            case AskPeers(room=room):
                return self._peers(None if room is None else parse_room(room))
            case AskInvite():
                return self._invite(request)

    async def saved(self, within: float) -> None:
        """Wait, at most `within` seconds, until what was changed is on the disk."""
        if self._saved is not None:
            await on_disk(self._saved, within)

    @property
    def _gate(self) -> Gate:
        return self._relay.gate

    @property
    def _state(self) -> RelayState:
        return self._gate.state

    def _bans(self) -> list[dict[str, Any]]:
        """List bans, and kicks as bans that end within the minute."""
        now = time.time()
        bans = [msgspec.to_builtins(ban) for ban in self._state.bans.held(now)]
        kicks = [
            {**msgspec.to_builtins(kicked), "until": now + left, "kick": True}
            for kicked, left in self._gate.kicks.held(time.monotonic())
        ]
        return bans + kicks

    def _kick(self, request: AskKick) -> dict[str, Any]:
        room = parse_room(request.room)
        wanted = request.peer.strip().lower().replace("-", ":")
        for member, address, came_from in self._relay.peers():
            if member.room == room and wanted in {str(member.peer_id), str(member.mac)}:
                self._send_away(member, address, Code.KICKED, "the relay's operator sent you away")
                # It may really have moved, or say so.
                for one in (address, came_from):
                    self._gate.kicks.add(room, member.role, member.mac, one, time.monotonic())
                # With it what `ban` takes for the address it has proven.
                return {"kicked": _names(member, address, came_from), "line": line_of(came_from)}
        raise ConfigError(
            f"there is no peer {request.peer!r} in room {room}", hint="`softlan admin peers` lists them"
        )

    def _ban(self, request: AskBan) -> dict[str, Any]:
        now = time.time()
        until = None if request.for_s is None else now + request.for_s
        ban = Ban(room=parse_where(request.room), target=parse_target(request.target), until=until)
        self._state.bans.add(ban, now)
        self._saved = self._state.save_bans()
        log_event(
            logger,
            Event.BAN_ADDED,
            f"banned {ban.target} from {_place(ban.room)}",
            room=ban.room,
            target=ban.target,
            until=until,
        )
        gone = []
        for member, address, came_from in self._relay.peers():
            addresses = {address, came_from}
            if any(ban.is_against(member.room, member.role, member.mac, one) for one in addresses):
                self._send_away(member, address, Code.BANNED, Code.BANNED.meaning)
                gone.append(_names(member, address, came_from))
        return {"banned": msgspec.to_builtins(ban), "disconnected": gone}

    def _unban(self, request: AskUnban) -> dict[str, Any]:
        room, target = parse_where(request.room), parse_target(request.target)
        lifted = self._state.bans.lift(room, target) + self._gate.kicks.lift(room, target)
        if not lifted:
            raise ConfigError(
                f"nothing bans {target} from {_place(room)}", hint="`softlan admin bans` lists what does"
            )
        self._saved = self._state.save_bans()
        log_event(
            logger, Event.BAN_LIFTED, f"{target} may enter {_place(room)} again", room=room, target=target
        )
        return {"lifted": lifted}

    def _peers(self, room: str | None) -> dict[str, Any]:
        snapshot = self._relay.snapshot()
        rooms = [entry for entry in snapshot["rooms"] if room is None or entry["code"] == room]
        return {"rooms": rooms}

    def _invite(self, request: AskInvite) -> dict[str, Any]:
        room = parse_room(request.room)
        role = Role.GATEWAY if request.gateway else Role.CLIENT
        if request.gateway and self._relay.gate.rules.of(room).gateways == "none":
            raise ConfigError(
                f"room {room} takes no gateways", hint='gateways = "key" in the file of --rooms lets one in'
            )
        expires = int(time.time() + request.expires_s)
        key = issue(self._state.invite_key, room, role, expires=expires, once=request.once)
        log_event(
            logger,
            Event.INVITE_ISSUED,
            f"issued an invite for a {role.value} of room {room}",
            room=room,
            role=role,
            expires=expires,
            once=request.once,
        )
        return {
            "room": room,
            "role": role.value,
            "key": key,
            "pins": self._pins.all,
            "expires": expires,
            "single_use": request.once,
            # An invite of a key that is in no directory is void after the relay's next start.
            "lasting": self._state.directory is not None,
        }

    def _send_away(self, member: Member[int], address: str, code: Code, reason: str) -> None:
        log_event(
            logger,
            Event.PEER_KICKED,
            f"{member.role.value} {member.peer_id} of room {member.room} was sent away",
            room=member.room,
            peer_id=member.peer_id,
            mac=member.mac,
            address=address,
            code=code,
        )
        self._relay.send_away(member, code, reason)


class AdminServer:
    """Answers the operator while it is entered, where there are unix sockets."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._server: asyncio.Server | None = None
        self._path: Path | None = None

    async def __aenter__(self) -> AdminServer:
        """Begin to answer; where that cannot be, log why and do nothing."""
        if sys.platform == "win32":
            return self
        path = runtime_directory() / f"relay-{os.getpid()}{ADMIN_SUFFIX}"
        try:
            listener = listen_privately(path)
        except (SoftlanError, OSError) as error:
            words = f"`softlan admin` will not reach this relay: {error}"
            log_event(logger, Event.STATUS_UNAVAILABLE, words, part="relay")
            return self
        self._server = await asyncio.start_unix_server(self._answer, sock=listener, limit=MAX_REQUEST)
        self._path = path
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop answering and take the socket away."""
        if self._server is not None:
            self._server.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                asked = await reader.readuntil(b"\n")
                reply = self._reply(asked)
                await self._desk.saved(SAVED_WITHIN_S)
                writer.write(msgspec.json.encode(reply, enc_hook=str) + b"\n")
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            # The operator's tool went away or said nothing that makes sense.
            writer.transport.abort()

    def _reply(self, asked: bytes) -> dict[str, Any]:
        try:
            return {"done": self._desk.handle(msgspec.json.decode(asked, type=Request))}
        except SoftlanError as error:
            return {"error": harmless(error.message), "hint": error.hint}
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return {
                "error": harmless(f"this relay does not understand that: {error}"),
                "hint": "is it of another version?",
            }
        except Exception as error:  # a fault here must not end the relay
            log_event(logger, Event.FAULT, f"an operator's request failed: {error}", exc_info=error)
            return {"error": f"a fault in the relay: {error}", "hint": "its log says more"}


def _names(member: Member[int], address: str, came_from: str) -> dict[str, Any]:
    mac = None if member.mac is None else str(member.mac)
    return {
        "room": member.room,
        "peer_id": member.peer_id,
        "role": member.role.value,
        "mac": mac,
        "address": address,
        "came_from": came_from,
    }


def _place(room: str) -> str:
    return "all rooms" if room == "*" else f"room {room}"
