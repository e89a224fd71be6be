"""`softlan admin`: what an operator asks of the relay that runs on this machine."""

from __future__ import annotations

import datetime
import json
import socket
from pathlib import Path
from typing import Any

import click
import msgspec

from softlan.config import INVITE_TIME, ROOM, SECONDS, option_type
from softlan.errors import SoftlanError
from softlan.observe.local import find_sockets
from softlan.parts import reported
from softlan.relay.admin import (
    ADMIN_SUFFIX,
    AskBan,
    AskBans,
    AskInvite,
    AskKick,
    AskPeers,
    AskUnban,
    Request,
)
from softlan.relay.bans import parse_target, parse_where
from softlan.texts import harmless, several

__all__ = ["admin", "ask", "read_answer"]

_WHERE = option_type("room or *", parse_where)
_TARGET = option_type("mac or address", parse_target)
_TIMEOUT_S = 5.0
_MAX_ANSWER = 1 << 22


@click.group(
    short_help="Look after the relay that runs here: kick, ban, unban.",
    context_settings={"show_default": True, "help_option_names": ["-h", "--help"]},
)
@click.option("--pid", type=int, metavar="N", help="The relay's process id, where several run.")
@click.option("--json", "as_json", is_flag=True, help="Print the relay's answer as JSON.")
@click.pass_context
def admin(context: click.Context, *, pid: int | None, as_json: bool) -> None:
    """Look after the relay that runs on this machine, as the user it runs as."""
    context.obj = _Teller(pid, as_json=as_json)


@admin.command()
@click.argument("room", type=ROOM)
@click.argument("peer")
@click.pass_obj
@reported
def kick(teller: _Teller, *, room: str, peer: str) -> None:
    """Send PEER (its id or MAC) of ROOM away for a minute.

    Who means to come back at once does so under another MAC; what bans its address is printed.
    """
    done = teller.ask(AskKick(room=room, peer=peer))
    kicked = done.get("kicked", {})
    teller.tell(done, f"sent {_who(kicked)} away; it may come back in a minute")
    if not teller.as_json and (line := done.get("line")):
        under = "under another MAC" if kicked.get("mac") else "as a player"
        click.echo(
            f"hint: {under} it may come back at once; to keep its address out, and all who share it:"
            f" softlan admin ban {room} {line} --for 1h",
            err=True,
        )


@admin.command()
@click.argument("room", type=_WHERE)
@click.argument("target", type=_TARGET)
@click.option(
    "--for", "for_s", type=SECONDS, metavar="TIME", help="How long, like 1h or 7d; for good if not given."
)
@click.pass_obj
@reported
def ban(teller: _Teller, *, room: str, target: str, for_s: float | None) -> None:
    """Keep TARGET (a MAC, an address or a network) out of ROOM, or out of all rooms for '*'."""
    done = teller.ask(AskBan(room=room, target=target, for_s=for_s))
    gone = [_who(entry) for entry in done.get("disconnected", [])]
    teller.tell(done, f"banned {target}" + (f"; disconnected {', '.join(gone)}" if gone else ""))


@admin.command()
@click.argument("room", type=_WHERE)
@click.argument("target", type=_TARGET)
@click.pass_obj
@reported
def unban(teller: _Teller, *, room: str, target: str) -> None:
    """Lift what bans TARGET from ROOM; '*' lifts it in all rooms."""
    teller.tell(teller.ask(AskUnban(room=room, target=target)), f"{target} may come in again")


@admin.command()
@click.pass_obj
@reported
def bans(teller: _Teller) -> None:
    """List the bans."""
    done = teller.ask(AskBans())
    lines = [
        f"{entry['target']} from {entry['room']} {_until(entry.get('until'))}"
        + (" (kicked)" if entry.get("kick") else "")
        for entry in done.get("bans", [])
    ]
    teller.tell(done, "\n".join(lines) or "nobody is banned")


@admin.command()
@click.pass_obj
@reported
def rooms(teller: _Teller) -> None:
    """List the rooms that are in use."""
    done = teller.ask(AskPeers())
    lines = [
        f"{room['code']}: {several(len(room['peers']), 'peer')}, {'with' if room['gateway'] else 'no'} gateway, MTU {room['tap_mtu']}"
        for room in done.get("rooms", [])
    ]
    teller.tell(done, "\n".join(lines) or "no room is in use")


@admin.command()
@click.argument("room", type=ROOM, required=False)
@click.pass_obj
@reported
def peers(teller: _Teller, *, room: str | None) -> None:
    """List who is in ROOM, or in all rooms."""
    done = teller.ask(AskPeers(room=room))
    lines = [
        f"{entry['code']} {_who(peer)}, {peer['rtt_ms']} ms, {peer['software'] or 'unknown software'}"
        for entry in done.get("rooms", [])
        for peer in entry["peers"]
    ]
    teller.tell(done, "\n".join(lines) or "nobody is there")


@admin.command()
@click.argument("room", type=ROOM)
@click.option("--gateway", is_flag=True, help="For a gateway; for a player if not given.")
@click.option(
    "--expires",
    "expires_s",
    type=INVITE_TIME,
    default="24h",
    metavar="TIME",
    help="How long it lets in, like 24h or 7d; 366d at most.",
)
@click.option("--single-use", "once", is_flag=True, help="Good for the first peer that uses it only.")
@click.pass_obj
@reported
def invite(teller: _Teller, *, room: str, gateway: bool, expires_s: float, once: bool) -> None:
    """Issue a key for ROOM, to be given to a player with the relay's pin."""
    done = teller.ask(AskInvite(room=room, gateway=gateway, expires_s=expires_s, once=once))
    lines = [f"room {done['room']}", f"key  {done['key']}", *(f"pin  {pin}" for pin in done["pins"])]
    teller.tell(done, "\n".join(lines))
    if not teller.as_json:
        click.echo(f"it lets a {done['role']} in {_until(done['expires'])}", err=True)
        if not done["lasting"]:
            click.echo("hint: without --state it is void once the relay restarts", err=True)


class _Teller:
    """Asks the one relay that is meant, and prints what it says."""

    def __init__(self, pid: int | None, *, as_json: bool) -> None:
        self._pid = pid
        self.as_json = as_json

    def ask(self, request: Request) -> dict[str, Any]:
        """Ask; raises SoftlanError with the relay's words when it refuses."""
        return ask(request, self._pid)

    def tell(self, done: dict[str, Any], words: str) -> None:
        """Print the answer."""
        click.echo(json.dumps(done, indent=2) if self.as_json else words)


def ask(request: Request, pid: int | None = None) -> dict[str, Any]:
    """Ask the relay with this process id, or the one there is, and give its answer.

    Raises SoftlanError: there is none or more than one, it does not answer, or it refuses.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise SoftlanError("this system has no unix sockets, over which a relay is looked after")
    path = _find(pid)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_TIMEOUT_S)
            connection.connect(str(path))
            connection.sendall(msgspec.json.encode(request) + b"\n")
            with connection.makefile("rb") as answers:
                return read_answer(answers.read(_MAX_ANSWER))
    except (OSError, ValueError, RecursionError) as error:
        raise SoftlanError(
            f"the relay at {path} does not answer: {harmless(str(error))}",
            hint="does it still run, and as this user?",
        ) from error


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a relay says: what it has done, or why not."""

    done: dict[str, Any] | None = None
    error: str | None = None
    hint: str | None = None


def read_answer(data: bytes) -> dict[str, Any]:
    """Read what a relay answers: what it has done.

    Raises SoftlanError: the relay refuses, in its words. Raises ValueError, RecursionError: that is no answer.
    """
    answer = msgspec.json.decode(data, type=_Answer)
    if answer.error is not None:
        raise SoftlanError(harmless(answer.error), hint=answer.hint and harmless(answer.hint))
    if answer.done is None:
        raise ValueError("it says nothing that makes sense here")
    return answer.done


def _find(pid: int | None) -> Path:
    alive = [
        one for one in find_sockets(ADMIN_SUFFIX) if one.part == "relay" and (pid is None or one.pid == pid)
    ]
    if len(alive) == 1:
        return alive[0].path
    if not alive:
        raise SoftlanError(
            "no relay runs here for this user",
            hint="run it as the relay's user, or as root: sudo softlan admin ...",
        )
    numbers = ", ".join(str(one.pid) for one in alive)
    raise SoftlanError(f"several relays run here: {numbers}", hint="choose one with --pid")


def _who(entry: dict[str, Any]) -> str:
    mac = f" {entry['mac']}" if entry.get("mac") else ""
    address, came_from = entry.get("address"), entry.get("came_from")
    moved = "" if came_from in {None, address} else f", which joined from {came_from}"
    return f"{entry.get('role')} {entry.get('peer_id')}{mac} at {address}{moved}"


def _until(moment: float | None) -> str:
    if moment is None:
        return "for good"
    try:
        return f"until {datetime.datetime.fromtimestamp(moment).astimezone():%Y-%m-%d %H:%M %Z}"
    except (OSError, OverflowError, ValueError):
        # What datetime cannot hold is after 9999: a time that is over is not shown.
        return "until after the year 9999"
