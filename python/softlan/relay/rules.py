"""The rules of a relay's rooms: which there are, what key each asks for, who may be its gateway. Loaded from TOML.

    open-rooms = false                 # may anybody open a room that is not listed?

    [[room]]
    code = "PARTY1"
    key-file = "party1.key"            # or key = "..."; or open = true; neither: invites only
    gateway-key = "..."                # or gateway-key-file
    gateways = "key"                   # or "any-member", or "none"
    max-peers = 16
    limit-total = "50mbit"

`parse_rules` is pure; `load_rules` reads the file and the key files beside it. What a rule means for a hello is `access.py`'s.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from softlan.config import parse_rate, parse_room
from softlan.control.keys import Passphrase, parse_key
from softlan.errors import ConfigError
from softlan.files import read_text
from softlan.relay.rooms import MAX_PEERS_PER_ROOM
from softlan.texts import harmless, unusable

__all__ = ["OPEN_RULES", "Gateways", "RoomRule", "Rules", "load_rules", "parse_rules"]

Gateways: TypeAlias = Literal["key", "any-member", "none"]
"""Who may be a room's gateway: who has the gateway's key or invite, whoever may be in the room, or nobody."""

MIN_PASSPHRASE = 8
"""Characters; together with scrypt and the limit on attempts, fewer would still be guessed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomRule:
    """What one room asks for. `limits` holds the limits it has of its own, in bits per second, None for no limit."""

    code: str
    key: Passphrase | None = None
    gateway_key: Passphrase | None = None
    open: bool = False
    gateways: Gateways = "key"
    max_peers: int | None = None
    limits: Mapping[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The rules of all rooms, listed ones and others."""

    rooms: Mapping[str, RoomRule] = field(default_factory=dict)
    open_rooms: bool = False
    open_room_gateways: Gateways = "any-member"
    keys_inside: bool = field(default=False, compare=False)
    """Whether a key stands in the file itself."""
    key_files: tuple[str, ...] = field(default=(), compare=False)
    """The key files that it names."""

    def of(self, room: str) -> RoomRule:
        """Find the rule for a room code in upper case. One that is not listed is open or for invites only."""
        found = self.rooms.get(room)
        if found is not None:
            return found
        gateways = self.open_room_gateways if self.open_rooms else "key"
        return RoomRule(code=room, open=self.open_rooms, gateways=gateways)


OPEN_RULES = Rules(open_rooms=True)
"""Without a file: any room, for anybody who reaches the relay."""

_LIMITS = ("limit_total", "limit_broadcast", "limit_unknown")


class _Room(Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """One `[[room]]` as it is written."""

    code: str
    key: str | None = None
    key_file: str | None = None
    gateway_key: str | None = None
    gateway_key_file: str | None = None
    open: bool = False
    gateways: Gateways | None = None
    max_peers: Annotated[int, Meta(ge=1, le=MAX_PEERS_PER_ROOM)] | None = None
    limit_total: str | None = None
    limit_broadcast: str | None = None
    limit_unknown: str | None = None


class _File(Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """The whole file as it is written."""

    open_rooms: bool = False
    open_room_gateways: Gateways = "any-member"
    room: tuple[_Room, ...] = ()


def load_rules(path: Path) -> Rules:
    """Read a file of rules; key files are looked for beside it.

    Raises ConfigError, which names the file and the setting.
    """

    def read(name: str) -> str:
        beside = path.parent / name
        return read_text(beside, str(beside))

    text = read_text(path, f"the rooms in {path}")
    try:
        return parse_rules(text, read)
    except ConfigError as error:
        raise ConfigError(f"{path}: {harmless(str(error))}", hint=error.hint) from error


def parse_rules(text: str, read: Callable[[str], str]) -> Rules:
    """Read rules out of TOML; `read` gives the text of a key file.

    Raises ConfigError, which names the setting.
    """
    try:
        content = msgspec.convert(tomllib.loads(text), type=_File)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise ConfigError(_where(str(error))) from error
    except ValueError as error:
        raise ConfigError(f"not TOML: {unusable(error)}") from error
    except RecursionError as error:
        raise ConfigError("not TOML: nested too deeply") from error
    rooms: dict[str, RoomRule] = {}
    for number, room in enumerate(content.room, 1):
        rule = _rule(room, number, read)
        if rule.code in rooms:
            raise ConfigError(f"room {number}: code: {rule.code} is there twice")
        rooms[rule.code] = rule
    return Rules(
        rooms=rooms,
        open_rooms=content.open_rooms,
        open_room_gateways=content.open_room_gateways,
        keys_inside=any(room.key or room.gateway_key for room in content.room),
        key_files=tuple(
            name for room in content.room for name in (room.key_file, room.gateway_key_file) if name
        ),
    )


def _rule(room: _Room, number: int, read: Callable[[str], str]) -> RoomRule:
    def setting(name: str, parse: Callable[[], Any]) -> Any:
        try:
            return parse()
        except ConfigError as error:
            raise ConfigError(f"room {number} ({room.code!r}): {name}: {error}", hint=error.hint) from error

    # First, as all that is said of the room then names it.
    try:
        code = parse_room(room.code)
    except ConfigError as error:
        raise ConfigError(f"room {number}: code: {error}", hint=error.hint) from error
    key = setting("key", lambda: _key(room.key, room.key_file, "key", read))
    gateway_key = setting(
        "gateway-key", lambda: _key(room.gateway_key, room.gateway_key_file, "gateway-key", read)
    )
    if room.open and key is not None:
        raise ConfigError(
            f"room {number} ({room.code!r}): open: a room with a key is not open",
            hint="remove one of the two",
        )
    if gateway_key is not None and room.gateways not in {None, "key"}:
        raise ConfigError(
            f'room {number} ({room.code!r}): gateways: "{room.gateways}" makes no use of the gateway-key',
            hint='remove gateway-key, or write gateways = "key"',
        )
    usual: Gateways = "any-member" if room.open and gateway_key is None else "key"
    limits = {
        name: setting(name.replace("_", "-"), functools.partial(parse_rate, text))
        for name in _LIMITS
        if (text := getattr(room, name)) is not None
    }
    return RoomRule(
        code=code,
        key=key,
        gateway_key=gateway_key,
        open=room.open,
        gateways=room.gateways or usual,
        max_peers=room.max_peers,
        limits=limits,
    )


def _key(text: str | None, file: str | None, name: str, read: Callable[[str], str]) -> Passphrase | None:
    if text is not None and file is not None:
        raise ConfigError(f"given twice, as {name} and as {name}-file", hint="remove one of the two")
    if file is not None:
        text = read(file)
    if text is None:
        return None
    key = parse_key(text)
    if not isinstance(key, Passphrase):
        raise ConfigError(
            "an invite is not a room's key", hint="the relay that issued it takes it without being told"
        )
    if len(key.text) < MIN_PASSPHRASE:
        raise ConfigError(
            f"has fewer than {MIN_PASSPHRASE} characters", hint="four random words are a good key"
        )
    return key


def _where(problem: str) -> str:
    """Turn msgspec's `problem - at `$.room[0].max-peers`` into the way people count and speak."""
    words, _, path = problem.partition(" - at `$")
    place = path.rstrip("`").lstrip(".")
    if place.startswith("room["):
        number, _, rest = place.removeprefix("room[").partition("]")
        place = (
            f"room {int(number) + 1}{': ' + rest.lstrip('.') if rest else ''}" if number.isdigit() else place
        )
    return f"{place}: {words}" if place else words
