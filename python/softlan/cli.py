"""The `softlan` command: one word for each part of a party."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import click
import msgspec

from softlan.client.cli import client, join
from softlan.command import HELP_WIDTH
from softlan.completion import completion
from softlan.config_cli import config_group
from softlan.doctor.cli import doctor
from softlan.doctor.ping_cli import ping
from softlan.errors import ConfigError
from softlan.gateway.cli import gateway
from softlan.invite_cli import invite
from softlan.lab.cli import command as demo
from softlan.observe.cli import capture
from softlan.observe.counters import DROP_COUNTERS
from softlan.observe.local import PartStatus, fault_in, need_local_sockets, read_all, why_untold
from softlan.observe.watch import watch
from softlan.parts import reported, version_option
from softlan.relay.admin_cli import admin
from softlan.relay.cli import relay
from softlan.texts import several

__all__ = ["main"]


class _Commands(click.Group):
    """Lists commands in the order people need them in, not by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Give the names, those most needed first."""
        return sorted(
            self.commands, key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name)
        )


_MOST_PEERS = 16
"""Other peers of a client's room that `status` lists."""

_ORDER = ("join", "relay", "invite", "gateway", "client", "status", "doctor", "ping", "admin", "config")


@click.group(
    cls=_Commands,
    context_settings={
        "max_content_width": HELP_WIDTH,
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "SOFTLAN",
    },
)
@version_option
def main() -> None:
    """A LAN party over the internet: players in different places, and a real LAN, share one Ethernet.

    \b
    To join one:  softlan join "softlan://..."     the line you were given, in double quotes
    To host one:  softlan relay                    on a machine that everyone can reach over UDP
                  softlan invite ROOM              the line to give to players

    Options count in this order: the command line, the environment (--listen of relay is SOFTLAN_RELAY_LISTEN), a file (--config), the
    default.
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON: a list with one object a running part.")
@click.option("--live", is_flag=True, help="Stay, and show rates, peers and drops as they change.")
@reported
def status(*, as_json: bool, live: bool) -> None:
    """Show what runs on this machine, and how it does."""
    need_local_sockets()
    if live:
        if as_json:
            raise ConfigError("--live is for people, --json for programs", hint="give one of them")
        watch()
        return
    parts = read_all()
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(parts), indent=2))
        return
    if not parts:
        click.echo(
            "nothing of softlan is running here for this user (as root, `sudo softlan status` sees more)"
        )
        return
    for part in parts:
        _print_part(part)


def _print_part(part: PartStatus) -> None:
    click.echo(f"{part.part} (pid {part.pid}, softlan {part.version}, up {part.uptime_s:.0f} s)")
    for line in _lines(part):
        click.echo(f"  {line}")


def _lines(part: PartStatus) -> list[str]:
    # A part of another version may tell other things.
    with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
        if fault_in(part.status) is None:
            return _of_relay(part.status) if part.part == "relay" else _of_session(part.status)
    return [why_untold(part.status)]


def _of_relay(status: dict[str, Any]) -> list[str]:
    lines = [f"listens on {status['listen']}, {several(status['peer_count'], 'peer')}"]
    if away := status.get("turned_away"):
        lines.append("turned away: " + ", ".join(f"{code} {count}" for code, count in away.items()))
    strangers = {
        name: count
        for name, count in status.get("handshakes", {}).items()
        if count and name not in ("begun", "unfinished")
    }
    if strangers:
        told = ", ".join(f"{name} {count}" for name, count in sorted(strangers.items()))
        lines.append(f"first packets: {told}")
    for room in status["rooms"]:
        gateway = "with gateway" if room["gateway"] else "no gateway"
        lines.append(f"room {room['code']}: MTU {room['tap_mtu']}, {gateway}")
        lines += [f"  warning: {trouble}" for trouble in room.get("troubles", [])]
        for peer in room["peers"]:
            who = f"{peer['role']} {peer['peer_id']} {peer['mac'] or ''}".rstrip()
            lines.append(f"  {who} at {peer['address']}, {peer['rtt_ms']} ms: {_traffic(peer['counters'])}")
    return lines


def _of_session(status: dict[str, Any]) -> list[str]:
    if status["connected"]:
        state = f"in room {status['room']} as peer {status['peer_id']}, {status['rtt_ms']} ms to {status['relay']}"
    else:
        state = f"not connected to {status['relay']}, trying"
    lines = [f"{state}; interface {status['interface']}, MTU {status['tap_mtu']}"]
    if others := status.get("peers"):
        told = [f"{peer['peer_id']} ({peer['mac'] or peer['role']})" for peer in others[:_MOST_PEERS]]
        more = f", and {len(others) - _MOST_PEERS} more" if len(others) > _MOST_PEERS else ""
        lines.append(f"with {', '.join(told)}{more}")
    lines += [f"warning: {notice}" for notice in status.get("notices", [])]
    return [*lines, _traffic(status["counters"])]


def _traffic(counters: dict[str, int]) -> str:
    received, sent = counters.get("frames_received", 0), counters.get("frames_sent", 0)
    drops = ", ".join(
        f"{reason} {counters[name]}" for name, reason in DROP_COUNTERS.items() if counters.get(name)
    )
    return f"{received} frames in, {sent} out" + (f", dropped: {drops}" if drops else "")


for _command in (
    join,
    relay,
    gateway,
    client,
    invite,
    doctor,
    ping,
    admin,
    capture,
    config_group({"relay": relay, "gateway": gateway, "client": client}),
    completion,
    demo,
):
    main.add_command(_command)
