"""`softlan relay`: options in, a running relay out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from pathlib import Path
from typing import Any

import click

from softlan._core import FILTER_NAMES
from softlan.command import PartCommand, config_option
from softlan.config import (
    CONGESTION_CONTROLLERS,
    FRAME_RATE,
    HOST,
    HOST_PORT,
    LISTEN,
    RATE,
    ROOM,
    SECONDS,
    Listen,
)
from softlan.errors import ConfigError, SoftlanError
from softlan.notify import Service
from softlan.observe.capture import CaptureServer, start_capture
from softlan.observe.events import Event
from softlan.observe.local import StatusServer
from softlan.observe.logs import log_event
from softlan.observe.page.options import page_options, serve_page
from softlan.parts import frame_log_options, log_options, reported, run_part, version_option
from softlan.relay.access_options import AccessChoices, access_options
from softlan.relay.admin import AdminServer, Desk, Pins
from softlan.relay.certificates import (
    ServerCertificate,
    kept_dev_certificate,
    load_certificate,
    make_dev_certificate,
    write_der,
)
from softlan.relay.inviting import Inviting
from softlan.relay.rooms import RoomPolicy
from softlan.relay.server import Relay, RelayConfig

__all__ = ["relay"]

logger = logging.getLogger(__name__)


HELP_GROUPS = {
    "Where it is, and who it says it is": (
        "listen",
        "public_host",
        "cert",
        "key",
        "dev_cert_name",
        "dev_cert_der_out",
        "dev_cert_state",
        "next_cert",
    ),
    "Rooms, and who may come in": (
        "rooms",
        "open_rooms",
        "allowed_rooms",
        "state",
        "max_rooms",
        "max_peers",
        "max_peers_per_room",
        "room_mtu",
    ),
    "What a peer may do": (
        "max_connections_per_address",
        "hellos_per_address",
        "wrong_keys_per_minute",
        "admission_timeout",
        "idle_timeout",
        "limit_broadcast",
        "limit_unknown",
        "limit_total",
        "limit_storm",
        "malformed_limit",
        "filters_off",
        "congestion",
    ),
    "Going down": ("drain", "back_in", "successor"),
    "Watching it": ("page", "page_token_file"),
    "Settings and logs": ("config", "frame_log", "frame_log_sample", "log_format", "log_level"),
}


@click.command(cls=PartCommand, groups=HELP_GROUPS, context_settings={"show_default": True})
@config_option("relay")
@click.option(
    "--listen",
    type=LISTEN,
    default="443/udp",
    metavar="ADDRESS",
    help="443/udp (all addresses), IP:PORT or [IPv6]:PORT.",
)
@click.option(
    "--public-host",
    type=HOST,
    metavar="HOST[:PORT]",
    help="The name or address players reach this relay at, for the invites it prints.",
)
@click.option(
    "--cert",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Production: certificate chain, PEM, leaf first. SIGHUP reloads it.",
)
@click.option(
    "--key", type=click.Path(path_type=Path), metavar="FILE", help="Production: the chain's private key, PEM."
)
@click.option(
    "--dev-cert-name",
    default="lanparty-relay.local",
    metavar="NAME",
    help="The name the dev certificate is made for.",
)
@click.option(
    "--dev-cert-der-out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the certificate (DER) for players to pin, once the relay listens.",
)
@click.option(
    "--dev-cert-state",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Keep the dev certificate and its key here, so that pins survive a restart; with --state it is kept there.",
)
@click.option(
    "--room-mtu",
    type=click.IntRange(1280, 1500),
    default=1500,
    metavar="BYTES",
    help="The largest MTU a room may get.",
)
@click.option("--max-rooms", type=click.IntRange(1, 65535), default=256, metavar="N", help="Rooms at once.")
@click.option(
    "--max-peers",
    type=click.IntRange(1, 1_000_000),
    default=1024,
    metavar="N",
    help="Peers at once, in all rooms.",
)
@click.option(
    "--max-peers-per-room",
    type=click.IntRange(1, 1000),
    default=64,
    metavar="N",
    help="Peers in one room, its gateway included.",
)
@click.option(
    "--allow-room",
    "allowed_rooms",
    type=ROOM,
    multiple=True,
    metavar="CODE",
    help="Serve only this room (may be given again). Any room if not given.",
)
@click.option(
    "--admission-timeout",
    type=SECONDS,
    default="5",
    metavar="SECONDS",
    help="How long a peer may take for its hello.",
)
@click.option(
    "--idle-timeout",
    type=SECONDS,
    default="2.5",
    metavar="SECONDS",
    help="A peer that is silent for this long is gone.",
)
@click.option(
    "--limit-broadcast",
    type=RATE,
    default="2mbit",
    metavar="RATE",
    help="Broadcast and multicast of each client, or off.",
)
@click.option(
    "--limit-unknown",
    type=RATE,
    default="2mbit",
    metavar="RATE",
    help="Unicast of each client to unknown MACs, or off.",
)
@click.option(
    "--limit-total", type=RATE, default="off", metavar="RATE", help="Everything of each client, or off."
)
@click.option(
    "--limit-storm",
    type=FRAME_RATE,
    default="500",
    metavar="FRAMES",
    help="Broadcasts and multicasts a second of each client, or off; a gateway may have 4 times as many, a room 8 times.",
)
@click.option(
    "--malformed-limit",
    type=click.IntRange(1, 1_000_000),
    default=64,
    metavar="N",
    help="Malformed datagrams after which a peer is disconnected.",
)
@click.option(
    "--no-filter",
    "filters_off",
    type=click.Choice(FILTER_NAMES),
    multiple=True,
    help="Switch a safety filter off (may be given again).",
)
@click.option(
    "--congestion",
    type=click.Choice(CONGESTION_CONTROLLERS),
    default="calm",
    help="Congestion control: by delay (calm, for tunnels), or cubic, or bbr.",
)
@click.option(
    "--drain",
    type=SECONDS,
    default="0",
    metavar="SECONDS",
    help="On SIGTERM, let peers play on for so long, or until all have left; a second SIGTERM ends it at once.",
)
@click.option(
    "--back-in",
    type=SECONDS,
    metavar="SECONDS",
    help="When going down, tell peers to come back after so long; they try at once if not given.",
)
@click.option(
    "--successor",
    type=HOST_PORT,
    metavar="HOST:PORT",
    help="When going down, send peers to this relay, which they must trust as they do this one.",
)
@click.option(
    "--page",
    metavar="[HOST:]PORT",
    help="Serve a page, /metrics and /healthz here, over HTTP; on this machine only if HOST is not given.",
)
@click.option(
    "--page-token-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The secret to be shown for the page; needed where other machines reach it.",
)
@access_options
@frame_log_options
@log_options
@version_option
@reported
def relay(
    *,
    listen: Listen,
    cert: Path | None,
    key: Path | None,
    dev_cert_name: str,
    dev_cert_der_out: Path | None,
    dev_cert_state: Path | None,
    room_mtu: int,
    max_rooms: int,
    max_peers: int,
    max_peers_per_room: int,
    allowed_rooms: tuple[str, ...],
    admission_timeout: float,
    limit_broadcast: int | None,
    limit_unknown: int | None,
    limit_total: int | None,
    access: AccessChoices,
    page: str | None,
    page_token_file: Path | None,
    **others: Any,
) -> None:
    """Run the relay: the switch in the middle of the party.

    It logs the line that players join with; softlan invite ROOM makes more of them. Without --cert and --key it makes a certificate of
    its own, which invites pin and --state keeps.
    """
    if (cert is None) != (key is None):
        raise ConfigError(
            "--cert and --key belong together", hint="give both, or neither for a dev certificate"
        )
    web = page_options(page, page_token_file)
    policy = RoomPolicy(
        max_rooms=max_rooms,
        max_peers=max_peers,
        max_peers_per_room=max_peers_per_room,
        room_mtu=room_mtu,
        allowed_rooms=frozenset(allowed_rooms) or None,
    )
    config = RelayConfig(
        listen=str(Listen("::", listen.port)) if listen.address is None else str(listen),
        policy=policy,
        admission_timeout_s=admission_timeout,
        limit_broadcast=limit_broadcast,
        limit_unknown=limit_unknown,
        limit_total=limit_total,
        idle_timeout_s=others["idle_timeout"],
        limit_storm=others["limit_storm"],
        malformed_limit=others["malformed_limit"],
        filters_off=others["filters_off"],
        congestion=others["congestion"],
        frame_log=others["frame_log"],
        frame_log_sample=others["frame_log_sample"],
        back_in_s=others["back_in"],
        successor=others["successor"],
        gate=access.limits(),
    )
    drain_s: float = others["drain"]

    if dev_cert_state is None and access.state is not None:
        dev_cert_state = access.state / "certificate.pem"

    def certificate() -> ServerCertificate:
        if cert is not None and key is not None:
            return load_certificate(cert, key)
        if dev_cert_state is not None:
            return kept_dev_certificate(dev_cert_state, dev_cert_name)
        return make_dev_certificate(dev_cert_name)

    async def main(stopping: asyncio.Event) -> None:
        with contextlib.ExitStack() as stack:
            await serve(stopping, stack)

    async def serve(stopping: asyncio.Event, stack: contextlib.ExitStack) -> None:
        rules, state = access.rules(), access.memory()
        stack.callback(state.close)
        shown = certificate()  # after the state, whose directory may be its own
        pins = Pins(shown.pin, access.next_pins)
        running = Relay.start(config, shown, rules, state)
        service = Service(
            running.answers, lambda: f"{running.peer_count} peers in {running.room_count} rooms"
        )
        reload_on_hangup = cert is not None or dev_cert_state is not None

        def hangup() -> None:
            service.reloading()
            if reload_on_hangup:
                _reload(running, certificate, dev_cert_der_out, pins)
            _reload_rules(running, access)
            service.ready()

        # Windows has no SIGHUP, and no handlers on its event loop.
        with contextlib.suppress(NotImplementedError, AttributeError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hangup)
        # What follows tells the world that the relay is ready, for signals too.
        _write_der(dev_cert_der_out, shown)
        log_event(
            logger,
            Event.RELAY_LISTENING,
            f"listening on {running.local_address}/udp",
            address=running.local_address,
            pin=shown.pin,
            next_pin=pins.next[0] if pins.next else None,
            certificate=None if dev_cert_der_out is None else str(dev_cert_der_out),
        )
        inviting = Inviting(
            relay=running,
            pins=pins,
            public=others["public_host"],
            certified_names=None if cert is None else shown.names,
            kept=dev_cert_state is not None,
            allowed=allowed_rooms,
        )
        if running.gate.rules.open_rooms:
            log_event(
                logger,
                Event.ROOMS_OPEN,
                "whoever reaches this relay may open rooms on it; --rooms FILE or --no-open-rooms changes that",
            )
        inviting.tell()

        def snapshot() -> dict[str, Any]:
            return {**running.snapshot(), "invite": inviting.facts()}

        async with (
            StatusServer("relay", snapshot),
            CaptureServer("relay", lambda request: start_capture(running.frame_log, request)),
            AdminServer(Desk(running, pins)),
            serve_page(web, running),
            service,
        ):
            await _serve(running, service, stopping, drain_s)
        log_event(logger, Event.RELAY_STOPPED, "stopped")

    run_part(main, drain_s=drain_s)


async def _serve(running: Relay, service: Service, stopping: asyncio.Event, drain_s: float) -> None:
    """Serve until told to stop; then drain, tell the peers and close."""
    serving = asyncio.ensure_future(running.serve())
    told = asyncio.ensure_future(stopping.wait())
    service.ready()
    try:
        await asyncio.wait((serving, told), return_when=asyncio.FIRST_COMPLETED)
        service.stopping()
        if drain_s and (count := running.peer_count):
            words = (
                f"going down within {drain_s:g} s; {count} peers are told and may finish, nobody new comes in"
            )
            log_event(logger, Event.RELAY_DRAINING, words, peers=count, seconds=drain_s)
            await running.drain(drain_s)
    finally:
        log_event(logger, Event.RELAY_STOPPING, "stopping; telling the peers")
        await running.close()
        for task in (serving, told):
            task.cancel()
        await asyncio.gather(serving, told, return_exceptions=True)


def _reload_rules(running: Relay, access: AccessChoices) -> None:
    """Read the rooms again; when that fails the relay goes on with the rules it has."""
    if access.rooms is None:
        return
    try:
        running.replace_rules(access.rules())
    except SoftlanError as error:
        log_event(logger, Event.RULES_FAILED, f"the former rules stay in use: {error}", hint=error.hint)
    else:
        log_event(logger, Event.RULES_LOADED, "the rooms were read again", file=str(access.rooms))


def _reload(running: Relay, certificate: Any, der_out: Path | None, pins: Pins) -> None:
    """Read the certificate again; when that fails the relay goes on with the one it has."""
    try:
        fresh = certificate()
        running.replace_certificate(fresh)
        pins.replace(fresh.pin)
    except SoftlanError as error:
        log_event(
            logger, Event.CERTIFICATE_FAILED, f"the former certificate stays in use: {error}", hint=error.hint
        )
        return
    try:
        _write_der(der_out, fresh)
    except SoftlanError as error:
        log_event(
            logger,
            Event.CERTIFICATE_FAILED,
            f"the certificate that is in use now could not be written for players: {error}",
            hint="make room, then reload again; who has the former file is refused until then",
        )
    log_event(logger, Event.CERTIFICATE_LOADED, "the certificate was read again", pin=fresh.pin)


def _write_der(path: Path | None, certificate: ServerCertificate) -> None:
    if path is not None:
        write_der(path, certificate)
