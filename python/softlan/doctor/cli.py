"""`softlan doctor`: says what stands between this machine and a party."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import click

from softlan.client.identity import Identity
from softlan.command import PartCommand
from softlan.config import INTERFACE, SECONDS, HostPort
from softlan.control.messages import Role
from softlan.errors import ConfigError
from softlan.observe.logs import LogFormat, configure_logging
from softlan.parts import ROOM_OPTIONS, reported, session_config, session_options, version_option

__all__ = ["doctor"]

_NO_ROOM = "DOCTOR"
"""Stands in the session's place for a room where none was named; it is not entered."""

_MAX_SECONDS = 600.0


@click.command(
    cls=PartCommand,
    short_help="Say what stands between this machine and a party.",
    groups={
        "Which room": ROOM_OPTIONS,
        "What is looked at": ("tap", "attach", "adapter", "interface", "seconds", "no_join", "identity"),
    },
)
@session_options
@click.option(
    "--tap", type=INTERFACE, metavar="NAME", help="Linux: try to make the virtual adapter under this name."
)
@click.option(
    "--attach", type=INTERFACE, metavar="IF", help="Linux: try this interface in place of a virtual adapter."
)
@click.option("--adapter", metavar="NAME", help="Windows: which TAP-Windows6 adapter.")
@click.option(
    "--interface",
    type=INTERFACE,
    metavar="IF",
    help="This machine is to be a gateway: look at its LAN's interface.",
)
@click.option(
    "--seconds",
    type=SECONDS,
    default="3",
    show_default=True,
    metavar="TIME",
    help="How long the line is measured; 0 for not at all.",
)
@click.option("--no-join", is_flag=True, help="Do not enter the room.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: one object.")
@version_option
@reported
def doctor(
    *,
    relay: HostPort | None,
    room: str | None,
    identity: Path | None,
    tap: str | None,
    attach: str | None,
    adapter: str | None,
    interface: str | None,
    seconds: float,
    no_join: bool,
    as_json: bool,
    **session: Any,
) -> None:
    """Say what stands between this machine and a party, and what to do about it.

    INVITE is the line you were given, softlan://..., in double quotes; --relay HOST:PORT does without. Without either, this
    machine alone is looked at. The room is entered for some seconds, by two visitors that send each other frames; those who play there
    see them come and go.

    Exit status: 0 all is good, 1 something is bad, 2 used wrongly, 3 something is poor.
    """
    from softlan.doctor.examine import Wish, examine
    from softlan.doctor.findings import Finding, exit_status
    from softlan.doctor.report import Teller, summary
    from softlan.doctor.report import as_json as report_json

    configure_logging(LogFormat.TEXT, logging.ERROR)  # What a session would log is told by the lines below.
    if seconds > _MAX_SECONDS:
        raise ConfigError(f"--seconds: {_MAX_SECONDS:g} are enough")
    if relay is None and room is not None:
        raise ConfigError("--room needs a relay", hint="give the invite, or --relay HOST:PORT")
    role = Role.GATEWAY if interface is not None else Role.CLIENT
    config = None
    if relay is not None:
        # MAC and secret come in when the room is entered: until then nobody is asked for an identity.
        nobody = Identity(None, bytes(32))
        config = session_config(relay=relay, room=room or _NO_ROOM, role=role, identity=nobody, **session)
    wish = Wish(
        session=config,
        room=room is not None,
        identity=identity,
        interface=interface,
        tap=adapter if sys.platform == "win32" else tap,
        attach=attach,
        seconds=seconds,
        join=not no_join,
    )
    found: list[Finding] = []
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    teller = Teller(click.echo, colour=colour, width=min(110, shutil.get_terminal_size((110, 24)).columns))

    async def run() -> None:
        async for finding in examine(wish):
            found.append(finding)
            if not as_json:
                teller.tell(finding)

    asyncio.run(run())
    click.echo(report_json(found) if as_json else f"\n{summary(found)}")
    sys.exit(exit_status(found))


for _parameter in doctor.params:
    # A part cannot do without relay and room; the doctor can.
    _parameter.required = False
