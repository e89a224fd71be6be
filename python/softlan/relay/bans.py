"""Who is not let in, where, and until when. Pure: time comes in, in seconds since 1970.

A ban is against a MAC or a network, in one room or in all (`*`). A kick is a ban of a minute against one peer: by its MAC in its
room, and against gateways, which have none, by their address. Gateways and players of one address are told apart, so that a gateway that
was sent away does not take the players of its house along.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
from collections.abc import Iterable
from typing import TypeAlias

import msgspec
from msgspec import Struct

from softlan._core import Mac
from softlan.config import parse_room
from softlan.control.fields import Role
from softlan.errors import ConfigError
from softlan.relay.limits import host_of, line_of

__all__ = ["ALL_ROOMS", "KICK_S", "Ban", "Bans", "checked", "kick", "parse_target", "parse_where"]

ALL_ROOMS = "*"

KICK_S = 60.0
"""How long a kicked peer stays out."""

MAX_BANS = 4096
"""Bans at once: each hello is compared with all of them."""

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


class Ban(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One ban. `room` is a code or `*`, `target` a MAC or a network as `parse_target` prints it, `until` None for ever."""

    room: str
    target: str
    until: float | None = None
    role: Role | None = None
    """Only against peers of this role; None for both."""

    kick: bool = False
    """Made by a kick: short, and not worth keeping over a restart."""

    def holds(self, now: float) -> bool:
        """Say whether its time is not over."""
        return self.until is None or self.until > now

    def is_against(self, room: str, role: Role, mac: Mac | None, address: str) -> bool:
        """Say whether it is against a peer at `IP:PORT` in a room."""
        if self.room not in {ALL_ROOMS, room} or self.role not in {None, role}:
            return False
        against = _parsed(self.target)
        if isinstance(against, Mac):
            return mac == against
        return host_of(address) in against


def checked(ban: Ban) -> Ban:
    """Give a ban that was read as it would have been written. Raises ConfigError: it is against nobody, or nowhere."""
    return msgspec.structs.replace(ban, room=parse_where(ban.room), target=parse_target(ban.target))


class Bans:
    """All bans of a relay."""

    def __init__(self, bans: Iterable[Ban] = ()) -> None:
        self._bans: dict[tuple[str, str, Role | None], Ban] = {}
        for ban in bans:
            self._bans[_key(ban)] = ban

    def against(self, room: str, role: Role, mac: Mac | None, address: str, now: float) -> Ban | None:
        """Find a ban that keeps a peer out; a real one before a kick."""
        found = [
            ban for ban in self._bans.values() if ban.holds(now) and ban.is_against(room, role, mac, address)
        ]
        return min(found, key=lambda ban: ban.kick, default=None)

    def add(self, ban: Ban, now: float) -> None:
        """Take a ban in, in place of a former one against the same.

        Raises ConfigError: there are too many.
        """
        self.prune(now)
        former = self._bans.get(_key(ban))
        if ban.kick and former is not None and not former.kick:
            return  # what is banned already is not let in after a minute
        if former is None and len(self._bans) >= MAX_BANS:
            raise ConfigError(
                f"there are {MAX_BANS} bans already", hint="lift some, or ban a network in place of addresses"
            )
        self._bans[_key(ban)] = ban

    def lift(self, room: str, target: str) -> int:
        """Take away all bans and kicks against just this target, in this room or, for `*`, in any; says how many."""
        gone = [
            key for key, ban in self._bans.items() if ban.target == target and room in {ALL_ROOMS, ban.room}
        ]
        for key in gone:
            del self._bans[key]
        return len(gone)

    def prune(self, now: float) -> None:
        """Forget what is over."""
        self._bans = {key: ban for key, ban in self._bans.items() if ban.holds(now)}

    def held(self, now: float) -> list[Ban]:
        """List what holds now, kicks included, in the order it was made."""
        return [ban for ban in self._bans.values() if ban.holds(now)]


def kick(room: str, role: Role, mac: Mac | None, address: str, now: float) -> Ban:
    """Make the ban of a minute that keeps a kicked peer from coming straight back."""
    target = parse_target(line_of(address)) if mac is None else str(mac)
    return Ban(room=room, target=target, until=now + KICK_S, role=role, kick=True)


def parse_target(text: str) -> str:
    """Read whom to ban: a MAC, an address or a network. An IPv6 address means its /64, in which hosts change theirs as they like.

    Raises ConfigError: it is nothing of these.
    """
    text = text.strip()
    with contextlib.suppress(ValueError):
        return str(Mac(text))
    try:
        network: Network = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise ConfigError(
            f"{text!r} is no MAC, address or network",
            hint="like 02:00:5e:10:00:01, 192.0.2.7, 192.0.2.0/24 or 2001:db8:1::/48",
        ) from error
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    if mapped is not None and (network.prefixlen >= 96 or "/" not in text):
        # Peers that come over IPv4 have IPv4 addresses here (RFC 4291 section 2.5.5.2).
        return str(ipaddress.ip_network((mapped, network.prefixlen - 96)))
    if network.version == 6 and "/" not in text:
        network = network.supernet(new_prefix=64)
    return str(network)


def parse_where(text: str) -> str:
    """Read a room, or `*` for all. Raises ConfigError."""
    return ALL_ROOMS if text.strip() == ALL_ROOMS else parse_room(text)


@functools.lru_cache(2 * MAX_BANS)
def _parsed(target: str) -> Mac | Network:
    """Read a target that `parse_target` printed; each is compared with at every hello."""
    try:
        return Mac(target)
    except ValueError:
        return ipaddress.ip_network(target)


def _key(ban: Ban) -> tuple[str, str, Role | None]:
    return ban.room, ban.target, ban.role
