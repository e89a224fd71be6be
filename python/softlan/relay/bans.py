"""Who is not let in, where, and until when. Pure: time comes in, in seconds.

A ban is against a MAC or a network, in one room or in all (`*`). A kick keeps one peer out for a minute: by its MAC in its
room, and gateways, which have none, by their address. Gateways and players of one address are told apart, so that a gateway that
was sent away does not take the players of its house along. Bans outlast a run and go by the wall clock, kicks by a monotonic one.
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

__all__ = [
    "ALL_ROOMS",
    "KICK_S",
    "Ban",
    "Bans",
    "Exclusion",
    "Kicks",
    "checked",
    "parse_target",
    "parse_where",
]

ALL_ROOMS = "*"

KICK_S = 60.0
"""How long a kicked peer stays out."""

MAX_BANS = 4096
"""Bans at once, those that are over included: each hello is compared with all of them."""

MAX_KICKS = 1024
"""Kicks at once: more than anybody makes by hand in a minute."""

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


class Exclusion(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who is kept out, and where. `room` is a code or `*`, `target` a MAC or a network as `parse_target` prints it."""

    room: str
    target: str
    role: Role | None = None
    """Only peers of this role; None for both."""

    def is_against(self, room: str, role: Role, mac: Mac | None, address: str) -> bool:
        """Say whether it is against a peer at `IP:PORT` in a room."""
        if self.room not in {ALL_ROOMS, room} or self.role not in {None, role}:
            return False
        against = _parsed(self.target)
        if isinstance(against, Mac):
            return mac == against
        return host_of(address) in against


class Ban(Exclusion, frozen=True, kw_only=True, omit_defaults=True):
    """One ban; `until` is in seconds since 1970, None for ever."""

    until: float | None = None

    def holds(self, now: float) -> bool:
        """Say whether its time is not over."""
        return self.until is None or self.until > now


def checked(ban: Ban) -> Ban:
    """Give a ban that was read as it would have been written. Raises ConfigError: it is against nobody, or nowhere."""
    return msgspec.structs.replace(ban, room=parse_where(ban.room), target=parse_target(ban.target))


class Bans:
    """All bans of a relay. `now` is in seconds since 1970.

    A ban that is over is not forgotten before its place is needed: a wall clock that ran ahead may be set right again.
    """

    def __init__(self, bans: Iterable[Ban] = ()) -> None:
        self._bans: dict[tuple[str, str, Role | None], Ban] = {}
        for ban in bans:
            self._bans[_key(ban)] = ban

    def against(self, room: str, role: Role, mac: Mac | None, address: str, now: float) -> Ban | None:
        """Find a ban that keeps a peer out."""
        found = (
            ban for ban in self._bans.values() if ban.holds(now) and ban.is_against(room, role, mac, address)
        )
        return next(found, None)

    def add(self, ban: Ban, now: float) -> None:
        """Take a ban in, in place of a former one against the same.

        Raises ConfigError: there are too many.
        """
        if _key(ban) not in self._bans:
            self._make_room(now)
        if _key(ban) not in self._bans and len(self._bans) >= MAX_BANS:
            raise ConfigError(
                f"there are {MAX_BANS} bans already", hint="lift some, or ban a network in place of addresses"
            )
        self._bans[_key(ban)] = ban

    def lift(self, room: str, target: str) -> int:
        """Take away all bans against just this target, in this room or, for `*`, in any; says how many."""
        gone = [key for key, ban in self._bans.items() if _is_meant(ban, room, target)]
        for key in gone:
            del self._bans[key]
        return len(gone)

    def kept(self) -> list[Ban]:
        """List what to write down, those that are over included, in the order it was made."""
        return list(self._bans.values())

    def held(self, now: float) -> list[Ban]:
        """List what holds now, in the order it was made."""
        return [ban for ban in self._bans.values() if ban.holds(now)]

    def _make_room(self, now: float) -> None:
        """Forget as many as one more takes, of those that are over the first to end first."""
        if (excess := len(self._bans) + 1 - MAX_BANS) > 0:
            over = [ban for ban in self._bans.values() if not ban.holds(now)]
            for ban in sorted(over, key=lambda ban: ban.until or 0.0)[:excess]:
                del self._bans[_key(ban)]


class Kicks:
    """Who was sent away by hand a moment ago. `now` is a monotonic clock's; none of it is worth keeping over a restart."""

    def __init__(self) -> None:
        self._until: dict[Exclusion, float] = {}
        """In the order in which they end, as all last the same time."""

    def add(self, room: str, role: Role, mac: Mac | None, address: str, now: float) -> None:
        """Keep a peer at `IP:PORT` out of a room for `KICK_S`; where there are too many, the first to end is forgotten."""
        target = parse_target(line_of(address)) if mac is None else str(mac)
        kicked = Exclusion(room=room, target=target, role=role)
        self._until.pop(kicked, None)
        while len(self._until) >= MAX_KICKS:
            del self._until[next(iter(self._until))]
        self._until[kicked] = now + KICK_S

    def against(self, room: str, role: Role, mac: Mac | None, address: str, now: float) -> bool:
        """Say whether a peer was kicked and has to wait."""
        return any(kicked.is_against(room, role, mac, address) for kicked, _ in self.held(now))

    def lift(self, room: str, target: str) -> int:
        """Take away all kicks against just this target, in this room or, for `*`, in any; says how many."""
        gone = [kicked for kicked in self._until if _is_meant(kicked, room, target)]
        for kicked in gone:
            del self._until[kicked]
        return len(gone)

    def held(self, now: float) -> list[tuple[Exclusion, float]]:
        """List who has to wait, and for how many seconds more, in the order of being kicked."""
        return [(kicked, until - now) for kicked, until in self._until.items() if until > now]


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


def _is_meant(one: Exclusion, room: str, target: str) -> bool:
    return one.target == target and room in {ALL_ROOMS, one.room}


def _key(ban: Ban) -> tuple[str, str, Role | None]:
    return ban.room, ban.target, ban.role
