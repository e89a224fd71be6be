"""Where players reach a relay, as far as it can know, and the invites that follow from it.

A relay behind a router does not know its public address, and asking somebody else for it is not its business: it says what it knows, and
what the operator has to tell it (`--public-host`).
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from msgspec import Struct

from softlan.config import HostPort, parse_host_port
from softlan.invite import Invite

__all__ = ["InviteFacts", "Whereabouts", "find_whereabouts", "needed_pins", "own_addresses"]

_ELSEWHERE = (("192.0.2.1", socket.AF_INET), ("2001:db8::1", socket.AF_INET6))
"""Documentation addresses (RFC 5737, RFC 3849) that are routed by default, if anything is; nothing is sent there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Whereabouts:
    """What an invite to this relay says. `relay` is None where not even a guess can be made.

    `notes` are for the operator: those about the address, and those that hold under any.
    """

    relay: HostPort | None
    pins: tuple[str, ...]
    address_notes: tuple[str, ...] = ()
    other_notes: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """All of them."""
        return self.address_notes + self.other_notes

    def invite(self, room: str, key: str | None = None) -> Invite:
        """Make an invite to a room. `relay` must not be None."""
        assert self.relay is not None
        return Invite(self.relay.host, self.relay.port, room, self.pins, key)


class InviteFacts(Struct, frozen=True, kw_only=True):
    """What `softlan invite` needs of a running relay, as a part of its status. A relay of a former version tells less."""

    relay: str | None
    pins: tuple[str, ...]
    """Those that an invite for `relay` needs."""

    all_pins: tuple[str, ...]
    certified_names: tuple[str, ...] | None
    """As for `find_whereabouts`."""

    address_notes: tuple[str, ...]
    notes: tuple[str, ...]
    """Those that hold under any address."""

    rooms: dict[str, bool]
    """The rooms that are known by name, and whether each is open to all who know the name."""

    open_rooms: bool
    only: bool
    """Whether there can be no others than `rooms`."""


def find_whereabouts(
    listening: str,
    public: tuple[str, int | None] | None,
    *,
    pins: tuple[str, ...],
    certified_names: tuple[str, ...] | None,
    kept: bool = True,
    own: tuple[str, ...] = (),
) -> Whereabouts:
    """Put together what is known. Pure.

    `listening` is the bound `IP:PORT`, `public` what the operator said, `own` are the machine's addresses towards the internet, `pins`
    the relay's, `certified_names` the names in a certificate of an authority, None for one that no authority vouches for, `kept` whether
    that one will be the same after a restart.
    """
    bound = parse_host_port(listening)
    address = ipaddress.ip_address(bound.host.partition("%")[0])
    about_address: list[str] = []
    others: tuple[str, ...] = ()
    relay: HostPort | None
    if public is not None:
        relay = HostPort(public[0], public[1] or bound.port)
    else:
        known = own if address.is_unspecified else (bound.host,)
        best = next((text for text in known if ipaddress.ip_address(text).is_global), next(iter(known), None))
        relay = None if best is None else HostPort(best, bound.port)
        if best is None:
            about_address.append(
                "this machine has no address to the outside: tell players' way in with --public-host NAME"
            )
        elif not ipaddress.ip_address(best).is_global:
            about_address.append(
                f"{best} is good in this machine's own network only; for players elsewhere give your public name or address"
                " with --public-host NAME, and let the router forward the UDP port"
            )
    needed, about_pins = needed_pins(relay, pins, certified_names)
    if certified_names is None and not kept:
        others = (
            "the certificate is made anew at each start, and invites end with it: keep it with --state DIR",
        )
    return Whereabouts(
        relay=relay, pins=needed, address_notes=(*about_address, *about_pins), other_notes=others
    )


def needed_pins(
    relay: HostPort | None, pins: Sequence[str], certified_names: Collection[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Choose the pins that an invite for this address of the relay needs, and say what its operator should know of them. Pure.

    `pins` are all the relay has, `certified_names` as for `find_whereabouts`.
    """
    if certified_names is None:
        return tuple(pins), ()
    if relay is not None and _is_certified(relay.name, certified_names):
        return (), ()  # A renewed certificate may have another key; its authority and name say enough.
    name = relay.host if relay else "that name"
    return tuple(pins), (
        f"the certificate is not for {name}, so invites carry its key's pin and end with the key",
    )


def _is_certified(name: str, names: Collection[str]) -> bool:
    """Compare as peers do: in ASCII, whatever the case, and with `*` for one whole label in front (RFC 6125 section 6.4)."""
    name = name.lower().removesuffix(".")
    _, _, parent = name.partition(".")
    return any(certified.lower() in (name, f"*.{parent}") for certified in names)


def own_addresses() -> tuple[str, ...]:
    """List the addresses this machine would speak to the internet from, IPv4 first; sends nothing."""
    found = []
    for address, family in _ELSEWHERE:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            found.append(str(probe.getsockname()[0]))
    return tuple(found)
