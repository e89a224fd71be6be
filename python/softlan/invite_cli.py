"""`softlan invite`: makes the line that players are given, from the relay that runs here or from what is said."""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass
from typing import Any

import click
import msgspec

from softlan.config import HOST, INVITE_TIME, ROOM, HostPort
from softlan.errors import ConfigError, SoftlanError
from softlan.invite import DEFAULT_PORT, Invite
from softlan.observe.local import PartStatus, fault_in, need_local_sockets, read_all
from softlan.parts import reported
from softlan.qr import qr_code
from softlan.relay.whereabouts import InviteFacts, needed_pins

__all__ = ["invite"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """What was asked for."""

    room: str | None
    gateway: bool
    expires_s: float | None
    once: bool
    host: tuple[str, int | None] | None
    pid: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """An invite, and what its maker should know."""

    invite: Invite
    expires: float | None = None
    notes: tuple[str, ...] = ()


@click.command(
    short_help="Make the line that players are given.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("room", type=ROOM, required=False)
@click.option("--gateway", is_flag=True, help="For a gateway; for a player if not given.")
@click.option(
    "--expires",
    "expires_s",
    type=INVITE_TIME,
    metavar="TIME",
    help="How long it lets in, like 24h or 7d; 366d at most.",
)
@click.option("--single-use", "once", is_flag=True, help="Good for the first that uses it alone.")
@click.option("--qr", is_flag=True, help="Draw it as a QR code too (extra `qr`).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: one object.")
@click.option(
    "--host",
    type=HOST,
    metavar="HOST[:PORT]",
    help="Where players reach the relay, if it was not started with --public-host.",
)
@click.option(
    "--pin", "pins", multiple=True, metavar="PIN", help="Without a relay here: its pin (may be given again)."
)
@click.option("--key", metavar="TEXT", help="Without a relay here: the room's key.")
@click.option("--pid", type=int, metavar="N", help="The relay's process id, where several run here.")
@reported
def invite(*, pins: tuple[str, ...], key: str | None, qr: bool, as_json: bool, **wished: Any) -> None:
    """Make an invite to ROOM: a line to send to players, who type softlan join "softlan://...".

    The relay that runs on this machine makes it, for the user it runs as. Where the room asks for a key, the invite has one of its own,
    good for 24 hours unless --expires says otherwise. With --host and --pin it is put together from these alone.
    """
    wish = _Wish(**wished)
    made = _from_options(wish, pins, key) if pins or key is not None else _from_relay(wish)
    link = str(made.invite)
    role = "gateway" if wish.gateway else "client"
    command = f'softlan gateway "{link}" --interface eth0' if wish.gateway else made.invite.command
    if as_json:
        told: dict[str, Any] = {"invite": link, "command": command, "room": made.invite.room, "role": role}
        told |= {"relay": str(made.invite.relay), "pins": list(made.invite.pins)}
        told |= {"expires": made.expires, "single_use": wish.once, "notes": list(made.notes)}
        click.echo(json.dumps(told, indent=2))
        return
    click.echo(link)
    if qr:
        click.echo(qr_code(link))
    click.echo(f"to use it: {command}", err=True)
    if made.expires is not None:
        until = datetime.datetime.fromtimestamp(made.expires).astimezone()
        click.echo(
            f"it lets in until {until:%Y-%m-%d %H:%M %Z}{', the first that uses it alone' if wish.once else ''}",
            err=True,
        )
    for note in made.notes:
        click.echo(f"note: {note}", err=True)


def _from_options(wish: _Wish, pins: tuple[str, ...], key: str | None) -> _Made:
    if wish.host is None or wish.room is None:
        raise ConfigError("--pin and --key stand for a relay elsewhere", hint="give ROOM and --host too")
    if wish.gateway or wish.once or wish.expires_s is not None:
        raise ConfigError(
            "only the relay itself makes invites for a gateway, for a time or for one use",
            hint="run softlan invite on the relay's machine",
        )
    return _Made(invite=Invite(wish.host[0], wish.host[1] or DEFAULT_PORT, wish.room, pins, key))


def _from_relay(wish: _Wish) -> _Made:
    from softlan.relay.admin import AskInvite
    from softlan.relay.admin_cli import ask

    part = _running(wish.pid)
    where = _facts(part)
    room = wish.room or _only_room(where)
    relay = _relay(wish.host, where, part.status["listen"])
    pins, about_address = where.pins, where.address_notes
    if wish.host:
        pins, about_address = needed_pins(relay, where.all_pins, where.certified_names)
    notes = [*about_address, *where.notes]
    if where.only and room not in where.rooms:
        raise ConfigError(f"the relay does not serve room {room}: it has {', '.join(where.rooms)}")
    is_open = where.rooms.get(room, where.open_rooms)
    if is_open and not (wish.gateway or wish.once or wish.expires_s is not None):
        return _Made(invite=Invite(relay.host, relay.port, room, pins), notes=tuple(notes))
    asked = AskInvite(room=room, gateway=wish.gateway, expires_s=wish.expires_s or 86400.0, once=wish.once)
    done = ask(asked, part.pid)
    if not done["lasting"]:
        notes.append("the relay keeps no --state, so the invite is void once it restarts")
    if is_open:
        notes.append(f"room {room} is open: who knows its name needs no invite")
    made = Invite(relay.host, relay.port, done["room"], pins, done["key"])
    return _Made(invite=made, expires=done["expires"], notes=tuple(notes))


def _running(pid: int | None) -> PartStatus:
    """Give the status of the one relay that is meant."""
    need_local_sockets("give --host and --pin, which the relay logs at start")
    relays = [part for part in read_all() if part.part == "relay" and pid in (None, part.pid)]
    if not relays:
        raise SoftlanError(
            "no relay runs here for this user",
            hint="run this as the relay's user (sudo softlan invite ...), or give --host and --pin, which the relay logs at start",
        )
    if len(relays) > 1:
        numbers = ", ".join(str(part.pid) for part in relays)
        raise SoftlanError(f"several relays run here: {numbers}", hint="choose one with --pid")
    if fault := fault_in(relays[0].status):
        raise SoftlanError(f"the relay that runs here makes no invites: {fault}", hint="its log says more")
    return relays[0]


def _facts(part: PartStatus) -> InviteFacts:
    try:
        return msgspec.convert(part.status.get("invite"), InviteFacts)
    except msgspec.ValidationError as error:
        # As between an upgrade and the restart.
        raise SoftlanError(
            f"the relay that runs here (softlan {part.version}) makes no invites", hint="restart it"
        ) from error


def _only_room(where: InviteFacts) -> str:
    rooms = list(where.rooms)
    if len(rooms) == 1 and not where.open_rooms:
        return rooms[0]
    known = f": it has {', '.join(rooms)}" if rooms else ""
    raise ConfigError(f"which room?{known}", hint="softlan invite ROOM")


def _relay(host: tuple[str, int | None] | None, where: InviteFacts, listening: str) -> HostPort:
    port = int(listening.rpartition(":")[2])
    if host is not None:
        return HostPort(host[0], host[1] or port)
    if where.relay is None:
        raise SoftlanError("the relay does not know where players reach it", hint="add --host NAME")
    name, _, known_port = where.relay.rpartition(":")
    return HostPort(name.strip("[]"), int(known_port))
