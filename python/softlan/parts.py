"""What every command has in common: shared options, running until a signal, and how errors reach a person.

Logs go to stderr; an error is one or two lines on stderr (`error:`, `hint:`) and an exit status: 0 ended as asked, 1 failed,
2 used wrongly.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, NoReturn, ParamSpec, Protocol, TypeVar

import click

from softlan import __version__
from softlan._core import WIRE_VERSION, FrameLog
from softlan._core import __version__ as core_version
from softlan.client.identity import Identity
from softlan.client.session import RelaySession, SessionConfig
from softlan.command import InvitedOption, invite_options, outranked, settings_file
from softlan.config import HOST_PORT, ROOM, SERVER_NAME, Congestion, HostPort, option_type
from softlan.control.keys import RoomKey, parse_key
from softlan.control.messages import PROTOCOL, Role
from softlan.errors import ConfigError, SoftlanError
from softlan.files import read_text
from softlan.notify import Service
from softlan.observe.capture import CaptureServer, start_capture
from softlan.observe.counters import Change, Reading
from softlan.observe.events import Event
from softlan.observe.local import StatusServer
from softlan.observe.logs import LogFormat, configure_logging, log_event
from softlan.options import congestion_option, path_option
from softlan.texts import one_line
from softlan.trust import load_trusted_certificates, parse_pin, system_trusted_certificates

__all__ = [
    "ROOM_OPTIONS",
    "SETTINGS_OPTIONS",
    "Part",
    "frame_log_options",
    "log_options",
    "player_log_options",
    "reported",
    "run_part",
    "session_config",
    "session_options",
    "version_option",
]

ROOM_OPTIONS = ("relay", "room", "pins", "key", "key_file", "server_name", "relay_ca_cert", "invite")
"""Parameters of client and gateway that say which room to enter, for their help."""

SETTINGS_OPTIONS = ("config", "frame_log", "frame_log_sample", "log_format", "log_level")

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])

logger = logging.getLogger("softlan.parts")

PIN = option_type("pin", parse_pin)

_SUMMARY_S = 60.0
_GRACE_S = 1.8
"""A part that is told to end is given this long before it is cut off: people expect Ctrl-C to work within two seconds."""


def version_option(command: F) -> F:
    """Add `--version`: package, core, protocols, each on what it can differ."""
    text = f"softlan {__version__} (core {core_version}, control protocol {PROTOCOL}, overlay version {WIRE_VERSION})"
    return click.version_option(message=text, version=__version__)(command)


def log_options(command: F) -> F:
    """Add `--log-format` and `--log-level`, and set logging up before the command runs."""
    return _log_options(command, LogFormat.TEXT)


def player_log_options(command: F) -> F:
    """Add the same, for who is no operator: plain words at a terminal."""
    return _log_options(command, LogFormat.AUTO)


def _log_options(command: F, usual: LogFormat) -> F:
    @click.option(
        "--log-format",
        type=click.Choice([f.value for f in LogFormat]),
        default=usual.value,
        show_default=True,
        help="Plain words, text with names and numbers, or json for machines; auto is plain at a terminal, else text.",
    )
    @click.option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        default="info",
        show_default=True,
        help="How much is logged on stderr.",
    )
    @functools.wraps(command)
    def wrapped(*args: Any, log_format: str, log_level: str, **kwargs: Any) -> Any:
        configure_logging(LogFormat(log_format), getattr(logging, log_level.upper()))
        file = settings_file(click.get_current_context())
        if file is not None and file != Path(os.devnull):
            log_event(logger, Event.SETTINGS_READ, f"settings from {file}", file=str(file))
        return command(*args, **kwargs)

    return wrapped  # type: ignore[return-value]


def frame_log_options(command: F) -> F:
    """Add `--frame-log` and `--frame-log-sample`."""
    command = click.option(
        "--frame-log-sample",
        type=click.IntRange(1, 1_000_000),
        default=100,
        show_default=True,
        metavar="N",
        help="With --frame-log sampled: one frame in N.",
    )(command)
    return click.option(
        "--frame-log",
        type=click.Choice(["off", "drops", "sampled", "full"]),
        default="off",
        show_default=True,
        help="Log what is decided about frames: none, dropped ones, one in N, all.",
    )(command)


def session_options(command: F) -> F:
    """Add what client and gateway need to find their relay and room."""
    options = [
        invite_options,
        click.option(
            "--relay",
            cls=InvitedOption,
            type=HOST_PORT,
            required=True,
            metavar="HOST:PORT",
            help="The relay's name or address, and its UDP port.",
        ),
        click.option(
            "--server-name",
            cls=InvitedOption,
            type=SERVER_NAME,
            metavar="NAME",
            help="The name the relay's certificate is made for; the host of the invite or of --relay if not given.",
        ),
        path_option(
            "--relay-ca-cert",
            "The relay's certificate or its authority's, DER or PEM; the system's authorities if not given.",
            cls=InvitedOption,
        ),
        click.option(
            "--room",
            cls=InvitedOption,
            type=ROOM,
            required=True,
            metavar="CODE",
            help="The room: 1 to 32 letters, digits, '-' or '_'.",
        ),
        click.option(
            "--pin",
            "pins",
            cls=InvitedOption,
            type=PIN,
            multiple=True,
            metavar="PIN",
            help="The relay's pin (it logs it at start), in place of a certificate and its name; several may be given.",
        ),
        click.option(
            "--key",
            cls=InvitedOption,
            envvar="SOFTLAN_KEY",
            metavar="TEXT",
            help="The room's key or an invite's. Other users of this machine see it: --key-file and SOFTLAN_KEY are safer.",
        ),
        path_option("--key-file", "A file with the key.", cls=InvitedOption),
        path_option("--identity", "Where this peer's identity is kept; made if missing."),
        congestion_option,
    ]
    for option in reversed(options):
        command = option(command)
    return command


def session_config(
    *,
    relay: HostPort,
    server_name: str | None,
    relay_ca_cert: Path | None,
    room: str,
    congestion: Congestion,
    role: Role,
    identity: Identity,
    pins: tuple[bytes, ...] = (),
    key: str | None = None,
    key_file: Path | None = None,
) -> SessionConfig:
    """Put the session options together.

    Raises:
        ConfigError: the certificate or key file cannot be read, or options that were given in the same place exclude each other.

    """
    name = server_name or relay.name
    if pins and relay_ca_cert is not None:
        match outranked("pins", "relay_ca_cert"):
            case "pins":
                pins = ()
            case "relay_ca_cert":
                relay_ca_cert = None
            case _:
                raise ConfigError(
                    "--pin and --relay-ca-cert exclude each other",
                    hint="a pin needs no certificate; leave --relay-ca-cert away",
                )
    if pins:
        trusted: Callable[[], list[bytes]] = list
    elif relay_ca_cert is None:
        trusted = system_trusted_certificates
    else:
        trusted = functools.partial(load_trusted_certificates, relay_ca_cert)
        trusted()  # so that a wrong file is named before anything else happens
    return SessionConfig(
        relay=relay,
        server_name=name,
        trusted=trusted,
        room=room,
        pinned=relay_ca_cert is not None or bool(pins),
        pins=pins,
        key=_room_key(key, key_file),
        role=role,
        mac=identity.mac,
        resume=identity.resume_key(name, room),
        congestion=congestion,
    )


def _room_key(key: str | None, key_file: Path | None) -> RoomKey | None:
    if key is not None and key_file is not None:
        match outranked("key", "key_file"):
            case "key":
                key = None
            case "key_file":
                key_file = None
            case _:
                raise ConfigError("--key and --key-file exclude each other", hint="leave one of them away")
    if key_file is not None:
        key = read_text(key_file, f"the key in {key_file}")
    return None if key is None else parse_key(key)


def reported(command: Callable[P, R]) -> Callable[P, R]:
    """Turn softlan's errors into lines for a person and an exit status; anything else is a bug and keeps its traceback."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except SoftlanError as error:
            _fail(error)

    return wrapped


def _fail(error: SoftlanError) -> NoReturn:
    # The demo's errors hold a program's log, line by line; nothing else here is for a terminal to act on.
    click.echo("error: " + "\n".join(map(one_line, str(error).splitlines())), err=True)
    if error.hint:
        click.echo(f"hint: {one_line(error.hint)}", err=True)
    sys.exit(error.exit_code)


class Part(Protocol):
    """A client or gateway, as `run_session_part` sees it."""

    session: RelaySession
    frame_log: FrameLog

    async def run(self) -> None:
        """Work until `stop`."""

    def stop(self) -> None:
        """End soon."""

    def snapshot(self) -> dict[str, Any]:
        """What `softlan status` shows of it alone."""

    def counters(self) -> dict[str, int]:
        """The tunnel counters."""


def run_part(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]], *, drain_s: float = 0.0) -> None:
    """Run `main` until it is done; SIGTERM and SIGINT set the event it is given, and a second one cuts it off.

    `drain_s` is how long, in seconds, it may take its time on top of the grace.
    """
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_supervise(main, _GRACE_S + drain_s))


async def _supervise(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]], grace_s: float) -> None:
    stopping = asyncio.Event()
    work = asyncio.ensure_future(main(stopping))
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if stopping.is_set():
            work.cancel()
        stopping.set()
        # Whatever hangs must not keep the user: after the grace the work is cancelled.
        loop.call_later(grace_s, cut_off)

    def cut_off() -> None:
        if work.cancel():
            words = f"it was told to end and had not within {grace_s:g} s: it is cut off, and something may be left undone"
            log_event(logger, Event.SERVICE_HUNG, words, seconds=grace_s)

    for number in (signal.SIGINT, signal.SIGTERM):
        # Windows' event loop has no signal handlers; there Ctrl-C arrives as KeyboardInterrupt.
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stop)
    try:
        await work
    except asyncio.CancelledError:
        if not stopping.is_set():
            raise


def run_session_part(kind: str, make: Callable[[], Part], follow: Callable[[Part], Awaitable[None]]) -> None:
    """Run a client or gateway with its status socket, its summary line and its frame log."""

    async def main(stopping: asyncio.Event) -> None:
        part = make()

        async def watch() -> None:
            await stopping.wait()
            part.stop()

        service = Service(part.session.answers, lambda: _status_line(part.session))

        async def tell_ready() -> None:
            await part.session.entered.wait()
            service.ready()

        helpers = [asyncio.ensure_future(h) for h in (watch(), follow(part), _summarise(part), tell_ready())]
        try:
            async with (
                StatusServer(kind, lambda: _session_snapshot(part)),
                CaptureServer(
                    kind,
                    lambda asked: start_capture(part.frame_log, asked, only_room=part.session.config.room),
                ),
                service,
            ):
                await part.run()
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)

    run_part(main)


def _status_line(session: RelaySession) -> str:
    if session.connection is None:
        return f"trying to reach {session.relay}"
    return f"in room {session.config.room} of {session.relay}, {session.connection.rtt * 1000:.0f} ms away"


def _session_snapshot(part: Part) -> Mapping[str, Any]:
    session = part.session
    connection, welcome = session.connection, session.welcome
    connected = connection is not None and welcome is not None
    return {
        "relay": str(session.relay),
        "room": session.config.room,
        "connected": connected,
        "peer_id": welcome.peer_id if connected and welcome else None,
        "tap_mtu": welcome.tap_mtu if welcome else None,
        "joins": session.joins,
        "notices": list(session.notices.values()),
        "rtt_ms": round(connection.rtt * 1000, 3) if connection else None,
        "datagram_budget": connection.max_datagram_size if connection else None,
        "relay_address": connection.remote_address if connection else None,
        **part.snapshot(),
        "counters": part.counters(),
        "relay_counters": session.relay_counters,
    }


async def _summarise(part: Part) -> None:
    """Log one line a minute of what went through."""
    before = Reading(time.monotonic(), part.counters())
    while True:
        await asyncio.sleep(_SUMMARY_S)
        now = Reading(time.monotonic(), part.counters())
        if part.session.connection is not None:
            log_event(logger, Event.COUNTERS_SUMMARY, Change.between(before, now).summary())
        before = now
