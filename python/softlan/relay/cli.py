"""`softlan relay`: options in, a running relay out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from softlan.command import PartCommand, config_option
from softlan.config import (
    HOST,
    LISTEN,
    Listen,
)
from softlan.errors import SoftlanError
from softlan.notify import Service
from softlan.observe.capture import CaptureServer, start_capture
from softlan.observe.events import Event
from softlan.observe.local import StatusServer
from softlan.observe.logs import log_event
from softlan.observe.page.options import page_options, serve_page
from softlan.options import path_option
from softlan.parts import frame_log_options, log_options, reported, run_part, version_option
from softlan.relay.access_options import AccessChoices, access_options
from softlan.relay.admin import AdminServer, Desk, Pins
from softlan.relay.certificates import (
    ServerCertificate,
    write_der,
)
from softlan.relay.inviting import Inviting
from softlan.relay.options import (
    CertificateChoices,
    EndChoices,
    PeerChoices,
    RoomChoices,
    certificate_options,
    end_options,
    peer_options,
    room_options,
)
from softlan.relay.server import Relay, RelayConfig
from softlan.texts import several

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
        "misbehaved_per_minute",
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
@certificate_options
@room_options
@peer_options
@end_options
@click.option(
    "--page",
    metavar="[HOST:]PORT",
    help="Serve a page, /metrics and /healthz here, over HTTP; on this machine only if HOST is not given.",
)
@path_option(
    "--page-token-file", "The secret to be shown for the page; needed where other machines reach it."
)
@access_options
@frame_log_options
@log_options
@version_option
@reported
def relay(
    *,
    listen: Listen,
    public_host: tuple[str, int | None] | None,
    certificate: CertificateChoices,
    room: RoomChoices,
    peer: PeerChoices,
    end: EndChoices,
    access: AccessChoices,
    page: str | None,
    page_token_file: Path | None,
    frame_log: str,
    frame_log_sample: int,
) -> None:
    """Run the relay: the switch in the middle of the party.

    It logs the line that players join with; softlan invite ROOM makes more of them. Without --cert and --key it makes a certificate of
    its own, which invites pin and --state keeps.
    """
    certificate.check()
    web = page_options(page, page_token_file)
    config = RelayConfig(
        listen=str(Listen("::", listen.port)) if listen.address is None else str(listen),
        policy=room.policy(),
        admission_timeout_s=peer.admission_timeout,
        idle_timeout_s=peer.idle_timeout,
        limit_broadcast=peer.limit_broadcast,
        limit_unknown=peer.limit_unknown,
        limit_total=peer.limit_total,
        limit_storm=peer.limit_storm,
        malformed_limit=peer.malformed_limit,
        filters_off=peer.filters_off,
        congestion=peer.congestion,
        frame_log=frame_log,
        frame_log_sample=frame_log_sample,
        back_in_s=end.back_in,
        successor=end.successor,
        gate=access.limits(),
    )
    kept = certificate.kept(access.directory)

    def load() -> ServerCertificate:
        return certificate.load(access.directory)

    async def main(stopping: asyncio.Event) -> None:
        with contextlib.ExitStack() as stack:
            await serve(stopping, stack)

    async def serve(stopping: asyncio.Event, stack: contextlib.ExitStack) -> None:
        rules, state = access.rules(), access.memory()
        stack.callback(state.close)
        shown = load()  # after the state, whose directory may be its own
        pins = Pins(shown.pin, access.next_pins)
        running = Relay.start(config, shown, rules, state)
        service = Service(
            running.answers,
            lambda: f"{several(running.peer_count, 'peer')} in {several(running.room_count, 'room')}",
        )
        reload_on_hangup = certificate.cert is not None or kept is not None

        def hangup() -> None:
            with service.reloading():
                if reload_on_hangup:
                    _reload(running, load, certificate.dev_cert_der_out, pins)
                _reload_rules(running, access)

        # Windows has no SIGHUP, and no handlers on its event loop.
        with contextlib.suppress(NotImplementedError, AttributeError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hangup)
        # What follows tells the world that the relay is ready, for signals too.
        _write_der(certificate.dev_cert_der_out, shown)
        log_event(
            logger,
            Event.RELAY_LISTENING,
            f"listening on {running.local_address}/udp",
            address=running.local_address,
            pin=shown.pin,
            next_pin=pins.next[0] if pins.next else None,
            certificate=None if certificate.dev_cert_der_out is None else str(certificate.dev_cert_der_out),
        )
        inviting = Inviting(
            relay=running,
            pins=pins,
            public=public_host,
            kept=kept is not None or certificate.cert is not None,
            allowed=room.allowed_rooms,
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
            await _serve(running, service, stopping, end.drain)
        log_event(logger, Event.RELAY_STOPPED, "stopped")

    run_part(main, drain_s=end.drain)


async def _serve(running: Relay, service: Service, stopping: asyncio.Event, drain_s: float) -> None:
    """Serve until told to stop; then drain, tell the peers and close."""
    serving = asyncio.ensure_future(running.serve())
    told = asyncio.ensure_future(stopping.wait())
    service.ready()
    try:
        await asyncio.wait((serving, told), return_when=asyncio.FIRST_COMPLETED)
        service.stopping()
        if not told.done():
            # Whatever ended it: nobody asked for it, and who started the relay should know.
            serving.result()
            raise SoftlanError(
                "the relay's data plane ended by itself", hint="this is a bug in softlan: please report it"
            )
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


def _reload(running: Relay, load: Callable[[], ServerCertificate], der_out: Path | None, pins: Pins) -> None:
    """Read the certificate again; when that fails the relay goes on with the one it has."""
    try:
        fresh = load()
        running.replace_certificate(fresh)
    except SoftlanError as error:
        log_event(
            logger, Event.CERTIFICATE_FAILED, f"the former certificate stays in use: {error}", hint=error.hint
        )
        return
    try:
        pins.replace(fresh.pin)
    except SoftlanError as error:
        log_event(
            logger,
            Event.CERTIFICATE_FAILED,
            f"the certificate was read again, but not the one to follow it: {error}",
            hint=error.hint,
        )
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
