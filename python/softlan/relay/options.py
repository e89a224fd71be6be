"""The relay's options: its certificate, rooms and peers, what a peer may do, how it ends; each group says what it makes of them.

Who may come in has a file of its own, `access_options.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from softlan._core import FILTER_NAMES
from softlan.config import (
    FRAME_RATE,
    HOST_PORT,
    RATE,
    ROOM,
    SECONDS,
    Congestion,
    HostPort,
)
from softlan.errors import ConfigError
from softlan.options import Decorator, congestion_option, count_option, grouped, path_option
from softlan.relay.certificates import (
    ServerCertificate,
    kept_dev_certificate,
    load_certificate,
    make_dev_certificate,
)
from softlan.relay.rooms import RoomPolicy

__all__ = [
    "CertificateChoices",
    "EndChoices",
    "PeerChoices",
    "RoomChoices",
    "certificate_options",
    "end_options",
    "peer_options",
    "room_options",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateChoices:
    """Which certificate the relay shows."""

    cert: Path | None
    key: Path | None
    dev_cert_name: str
    dev_cert_der_out: Path | None
    dev_cert_state: Path | None

    def check(self) -> None:
        """Raise ConfigError when one half of a certificate was given without the other."""
        if (self.cert is None) != (self.key is None):
            raise ConfigError(
                "--cert and --key belong together", hint="give both, or neither for a dev certificate"
            )

    def kept(self, state: Path | None) -> Path | None:
        """Say where the dev certificate is kept, if it is: beside all else that is kept unless said otherwise."""
        if self.dev_cert_state is None and state is not None:
            return state / "certificate.pem"
        return self.dev_cert_state

    def load(self, state: Path | None) -> ServerCertificate:
        """Read the certificate, or make one. Raises SoftlanError."""
        if self.cert is not None and self.key is not None:
            return load_certificate(self.cert, self.key)
        if (kept := self.kept(state)) is not None:
            return kept_dev_certificate(kept, self.dev_cert_name)
        return make_dev_certificate(self.dev_cert_name)


certificate_options = grouped(
    CertificateChoices,
    "certificate",
    path_option("--cert", "Production: certificate chain, PEM, leaf first. SIGHUP reloads it."),
    path_option("--key", "Production: the chain's private key, PEM."),
    click.option(
        "--dev-cert-name",
        default="lanparty-relay.local",
        metavar="NAME",
        help="The name the dev certificate is made for.",
    ),
    path_option(
        "--dev-cert-der-out", "Write the certificate (DER) for players to pin, once the relay listens."
    ),
    path_option(
        "--dev-cert-state",
        "Keep the dev certificate and its key here, so that pins survive a restart; with --state it is kept there.",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomChoices:
    """How many rooms and peers there may be."""

    room_mtu: int
    max_rooms: int
    max_peers: int
    max_peers_per_room: int
    allowed_rooms: tuple[str, ...]

    def policy(self) -> RoomPolicy:
        """Put them together."""
        return RoomPolicy(
            max_rooms=self.max_rooms,
            max_peers=self.max_peers,
            max_peers_per_room=self.max_peers_per_room,
            room_mtu=self.room_mtu,
            allowed_rooms=frozenset(self.allowed_rooms) or None,
        )


room_options = grouped(
    RoomChoices,
    "room",
    count_option(
        "--room-mtu", 1500, "The largest MTU a room may get.", least=1280, most=1500, metavar="BYTES"
    ),
    count_option("--max-rooms", 256, "Rooms at once."),
    count_option("--max-peers", 1024, "Peers at once, in all rooms.", most=1_000_000),
    count_option("--max-peers-per-room", 64, "Peers in one room, its gateway included.", most=1000),
    click.option(
        "--allow-room",
        "allowed_rooms",
        type=ROOM,
        multiple=True,
        metavar="CODE",
        help="Serve only this room (may be given again). Any room if not given.",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerChoices:
    """What a peer may do; rates in bits a second, None is no limit."""

    admission_timeout: float
    idle_timeout: float
    limit_broadcast: int | None
    limit_unknown: int | None
    limit_total: int | None
    limit_storm: int | None
    malformed_limit: int
    filters_off: tuple[str, ...]
    congestion: Congestion


def _timed(name: str, default: str, words: str) -> Decorator:
    return click.option(name, type=SECONDS, default=default, metavar="SECONDS", help=words)


def _rate(name: str, default: str, words: str) -> Decorator:
    return click.option(name, type=RATE, default=default, metavar="RATE", help=f"{words}, or off.")


peer_options = grouped(
    PeerChoices,
    "peer",
    _timed("--admission-timeout", "5", "How long a peer may take for its hello."),
    _timed(
        "--idle-timeout", "2.5", "A peer that is silent for this long is gone; players' own limit is 2.5 s."
    ),
    _rate("--limit-broadcast", "2mbit", "Broadcast and multicast of each client"),
    _rate("--limit-unknown", "2mbit", "Unicast of each client to unknown MACs"),
    _rate("--limit-total", "off", "Everything of each client"),
    click.option(
        "--limit-storm",
        type=FRAME_RATE,
        default="500",
        metavar="FRAMES",
        help="Broadcasts and multicasts a second of each client, or off; a gateway may have 4 times as many, a room 8 times.",
    ),
    count_option(
        "--malformed-limit", 64, "Malformed datagrams after which a peer is disconnected.", most=1_000_000
    ),
    click.option(
        "--no-filter",
        "filters_off",
        type=click.Choice(FILTER_NAMES),
        multiple=True,
        help="Switch a safety filter off (may be given again).",
    ),
    congestion_option,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndChoices:
    """How the relay goes down, and what it tells its peers then."""

    drain: float
    back_in: float | None
    successor: HostPort | None


end_options = grouped(
    EndChoices,
    "end",
    _timed(
        "--drain",
        "0",
        "On SIGTERM, let peers play on for so long, or until all have left; a second SIGTERM ends it at once.",
    ),
    click.option(
        "--back-in",
        type=SECONDS,
        metavar="SECONDS",
        help="When going down, tell peers to come back after so long; they try at once if not given.",
    ),
    click.option(
        "--successor",
        type=HOST_PORT,
        metavar="HOST:PORT",
        help="When going down, send peers to this relay, which they must trust as they do this one.",
    ),
)
