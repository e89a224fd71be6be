"""What every command has in common: shared options, running until a signal, and how errors reach a person.

Logs go to stderr; an error is one or two lines on stderr (`error:`, `hint:`) and an exit status: 0 ended as asked, 1 failed,
2 used wrongly.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
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
from softlan.config import CONGESTION_CONTROLLERS, HOST_PORT, ROOM, Congestion, HostPort
from softlan.control.messages import PROTOCOL, Role
from softlan.errors import SoftlanError
from softlan.observe.capture import CaptureServer, start_capture
from softlan.observe.counters import Change, Reading
from softlan.observe.events import Event
from softlan.observe.local import StatusServer
from softlan.observe.logs import LogFormat, configure_logging, log_event
from softlan.trust import load_trusted_certificates, system_trusted_certificates

__all__ = [
    "Part",
    "frame_log_options",
    "log_options",
    "reported",
    "run_part",
    "session_config",
    "session_options",
    "version_option",
]

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])

logger = logging.getLogger("softlan.parts")

_SUMMARY_S = 60.0
_GRACE_S = 1.8
"""A part that is told to end is given this long before it is cut off: people expect Ctrl-C to work within two seconds."""


def version_option(command: F) -> F:
    """Add `--version`: package, core, protocols, each on what it can differ."""
    text = f"softlan {__version__} (core {core_version}, control protocol {PROTOCOL}, overlay version {WIRE_VERSION})"
    return click.version_option(message=text, version=__version__)(command)


def log_options(command: F) -> F:
    """Add `--log-format` and `--log-level`, and set logging up before the command runs."""

    @click.option(
        "--log-format", type=click.Choice([f.value for f in LogFormat]), default="text", show_default=True
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
        click.option(
            "--relay",
            type=HOST_PORT,
            required=True,
            metavar="HOST:PORT",
            help="The relay's name or address, and its UDP port.",
        ),
        click.option(
            "--server-name",
            metavar="NAME",
            help="The name the relay's certificate is made for; the host of --relay if not given.",
        ),
        click.option(
            "--relay-ca-cert",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="The relay's certificate or its authority's, DER or PEM; the system's authorities if not given.",
        ),
        click.option(
            "--room",
            type=ROOM,
            required=True,
            metavar="CODE",
            help="The room: 1 to 32 letters, digits, '-' or '_'.",
        ),
        click.option(
            "--identity",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Where this peer's identity is kept; made if missing.",
        ),
        click.option(
            "--congestion",
            type=click.Choice(CONGESTION_CONTROLLERS),
            default="calm",
            show_default=True,
            help="Congestion control: by delay (calm, for tunnels), or cubic, or bbr.",
        ),
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
) -> SessionConfig:
    """Put the session options together.

    Raises:
        ConfigError: the certificate file cannot be read.

    """
    name = server_name or relay.host
    if relay_ca_cert is None:
        trusted = system_trusted_certificates
    else:
        trusted = functools.partial(load_trusted_certificates, relay_ca_cert)
        trusted()  # so that a wrong file is named before anything else happens
    return SessionConfig(
        relay=relay,
        server_name=name,
        trusted=trusted,
        room=room,
        pinned=relay_ca_cert is not None,
        role=role,
        mac=identity.mac,
        resume=identity.resume_key(name, room),
        congestion=congestion,
    )


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
    click.echo(f"error: {error}", err=True)
    if error.hint:
        click.echo(f"hint: {error.hint}", err=True)
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


def run_part(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run `main` until it is done; SIGTERM and SIGINT set the event it is given, and a second one cuts it off."""
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_supervise(main))


async def _supervise(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    stopping = asyncio.Event()
    work = asyncio.ensure_future(main(stopping))
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if stopping.is_set():
            work.cancel()
        stopping.set()
        # Whatever hangs must not keep the user: after the grace the work is cancelled.
        loop.call_later(_GRACE_S, work.cancel)

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

        helpers = [asyncio.ensure_future(h) for h in (watch(), follow(part), _summarise(part))]
        try:
            async with (
                StatusServer(kind, lambda: _session_snapshot(part)),
                CaptureServer(
                    kind,
                    lambda asked: start_capture(part.frame_log, asked, only_room=part.session.config.room),
                ),
            ):
                await part.run()
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)

    run_part(main)


def _session_snapshot(part: Part) -> Mapping[str, Any]:
    session = part.session
    connection, welcome = session.connection, session.welcome
    connected = connection is not None and welcome is not None
    return {
        "relay": str(session.config.relay),
        "room": session.config.room,
        "connected": connected,
        "peer_id": welcome.peer_id if connected and welcome else None,
        "tap_mtu": welcome.tap_mtu if welcome else None,
        "joins": session.joins,
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
