"""The relay's options about who may come in, and what they make: rules, limits, memory, and the pins to announce."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import click
from cryptography import x509

from softlan.errors import ConfigError
from softlan.files import file_error, is_public
from softlan.observe.events import Event
from softlan.observe.logs import log_event
from softlan.options import count_option, grouped, path_option
from softlan.relay.gate import GateLimits
from softlan.relay.limits import Rate
from softlan.relay.rules import OPEN_RULES, Rules, load_rules
from softlan.relay.state import RelayState
from softlan.trust import UNUSABLE, public_key_pin

__all__ = ["AccessChoices", "access_options"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessChoices:
    """What was chosen."""

    rooms: Path | None = None
    open_rooms: bool | None = None
    state: Path | None = None
    next_cert: Path | None = None
    max_connections_per_address: int = 128
    hellos_per_address: int = 16
    wrong_keys_per_minute: int = 10
    misbehaved_per_minute: int = 10

    def rules(self) -> Rules:
        """Read the rules, anew each time; keys that every user of this machine can read are told in the log.

        Raises ConfigError: the file cannot be used.
        """
        # Without a file anything goes, as it takes no more to have a party; who writes a file lists the rooms that are meant.
        rules = OPEN_RULES if self.rooms is None else load_rules(self.rooms)
        if self.rooms is not None:
            _warn_of_public_keys(self.rooms, rules)
        return rules if self.open_rooms is None else dataclasses.replace(rules, open_rooms=self.open_rooms)

    def limits(self) -> GateLimits:
        """Put the limits together."""
        return GateLimits(
            connections=self.max_connections_per_address,
            # All peers of one address come back at once when a relay was away.
            hellos=Rate(self.hellos_per_address, 16 * self.hellos_per_address),
            wrong_keys=Rate(self.wrong_keys_per_minute / 60, self.wrong_keys_per_minute),
            misbehaved=Rate(self.misbehaved_per_minute / 60, self.misbehaved_per_minute),
        )

    @property
    def directory(self) -> Path | None:
        """Where all that lasts is kept: the directory chosen, or the one systemd gives (systemd.exec(5)), or none."""
        given = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
        return self.state or (Path(given) if given else None)

    def memory(self) -> RelayState:
        """Open the state directory, if there is one.

        Raises what `RelayState.open` does.
        """
        return RelayState() if self.directory is None else RelayState.open(self.directory)

    def next_pins(self) -> list[str]:
        """Say the pins of the certificates that come next.

        A file that is not there any more, as when it was moved into the present one's place, is told in the log alone: a relay that does
        not start for it helps nobody. Raises ConfigError: the file cannot be read or holds no certificate. Raises SoftlanError: it cannot
        be read now (`file_error`).
        """
        if self.next_cert is None:
            return []
        try:
            return [public_key_pin(x509.load_pem_x509_certificates(self.next_cert.read_bytes())[0])]
        except FileNotFoundError:
            log_event(
                logger,
                Event.CERTIFICATE_FAILED,
                f"{self.next_cert} of --next-cert is not there: invites carry the present certificate's pin alone",
                file=str(self.next_cert),
                hint="leave --next-cert out at the next start, if it has taken the present one's place",
            )
            return []
        except OSError as error:
            raise file_error(f"cannot read {self.next_cert}", error) from error
        except UNUSABLE as error:
            raise ConfigError(f"{self.next_cert} holds no certificate in PEM") from error


def _warn_of_public_keys(path: Path, rules: Rules) -> None:
    inside = (path,) if rules.keys_inside else ()
    for file in dict.fromkeys((*inside, *(path.parent / name for name in rules.key_files))):
        with contextlib.suppress(OSError):
            if is_public(file):
                log_event(
                    logger,
                    Event.RULES_EXPOSED,
                    f"every user of this machine can read the room keys in {file}",
                    file=str(file),
                    hint=f"chmod 600 {file}; a service gets it as a credential then, as the comment in its unit shows",
                )


_DEFAULTS = AccessChoices()

access_options = grouped(
    AccessChoices,
    "access",
    path_option("--rooms", "The rooms and their keys, TOML (docs/operations.md). SIGHUP reads it again."),
    click.option(
        "--open-rooms/--no-open-rooms",
        default=None,
        show_default=False,
        help="Whether anybody may use rooms that --rooms does not list. Without --rooms they may, with it not.",
    ),
    path_option(
        "--state",
        "Keep the dev certificate, the key of invites, used invites and bans here, so that they survive a restart.",
        metavar="DIR",
    ),
    path_option(
        "--next-cert",
        "The certificate that will follow the present one, PEM: its pin goes into invites already.",
    ),
    count_option(
        "--max-connections-per-address",
        _DEFAULTS.max_connections_per_address,
        "Connections from one IPv4 address or IPv6 /64 at once.",
    ),
    count_option(
        "--hellos-per-address",
        _DEFAULTS.hellos_per_address,
        "Hellos a second from one address, 16 times as many at once.",
    ),
    count_option(
        "--wrong-keys-per-minute", _DEFAULTS.wrong_keys_per_minute, "Wrong keys a minute from one address."
    ),
    count_option(
        "--misbehaved-per-minute",
        _DEFAULTS.misbehaved_per_minute,
        "Peers of one address disconnected a minute for what they sent, before newcomers of it must wait.",
    ),
)
