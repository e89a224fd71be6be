"""Invites: one line that says all a player needs, `softlan://host:port/ROOM?pin=...&key=...`, read and written.

The port is 443 if not given; `pin` may be given again. What chat programs do to a link on its way (angle brackets, quotes, line
breaks, `&amp;`, a full stop behind it) is undone where it can mean one thing only; everything else is named and refused.
Parameters that are not known here come from a newer softlan and are left out with a note.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from urllib.parse import quote, unquote_to_bytes

from softlan.config import HostPort, parse_host_port, parse_room
from softlan.errors import ConfigError
from softlan.texts import harmless

__all__ = ["DEFAULT_PORT", "SCHEME", "Invite", "parse_invite"]

SCHEME = "softlan://"
DEFAULT_PORT = 443
MAX_INVITE = 4096
"""Characters; a longer text is not an invite."""

MAX_KEY = 1024
MAX_PINS = 16
_PIN_LENGTH = 43
"""SHA-256 in base64url without padding (RFC 4648 section 5)."""

_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f"))
_AROUND = "\"'`*<>()[]{}.,;:!?…\u201c\u201d\u201e\u2018\u2019\u201a\u00ab\u00bb \t\r\n"
"""What a sentence or a chat program puts around a link; an invite neither begins nor ends with any of these."""

_LINE_BREAK = re.compile(r"[ \t]*[\r\n]+[ \t]*")
_HINT = "copy it again from the message, all of it, and put it into double quotes"


@dataclass(frozen=True, slots=True)
class Invite:
    """Where a room is and what it takes to get in.

    `pins` are SHA-256 of relays' public keys, base64url; any of them will do. `key` is the room's key or an invite token. `notes`
    are sentences about what was left out when it was read.

    Raises ConfigError: a part is not what it must be.
    """

    host: str
    port: int
    room: str
    pins: tuple[str, ...] = ()
    key: str | None = field(default=None, repr=False)
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        relay = parse_host_port(str(HostPort(self.host, self.port)))
        object.__setattr__(self, "host", relay.host)
        object.__setattr__(self, "room", parse_room(self.room))
        object.__setattr__(self, "pins", tuple(dict.fromkeys(map(_checked_pin, self.pins))))
        if len(self.pins) > MAX_PINS:
            raise ConfigError(
                f"an invite has {MAX_PINS} pins at most, this one {len(self.pins)}",
                hint="one for each relay that may answer is enough",
            )
        if self.key is not None:
            object.__setattr__(self, "key", unicodedata.normalize("NFC", self.key))
            _check_key(self.key)

    @property
    def relay(self) -> HostPort:
        """Where the relay is."""
        return HostPort(self.host, self.port)

    def __str__(self) -> str:
        """Print the link."""
        # ASCII only, so that no program on the way has a reason to touch it; a zone comes out as %25 (RFC 6874 section 2).
        where = quote(str(self.relay), safe="[]:")
        if self.port == DEFAULT_PORT:
            where = where.removesuffix(f":{DEFAULT_PORT}")
        told = [("pin", pin) for pin in self.pins]
        if self.key is not None:
            told.append(("key", self.key))
        query = "&".join(f"{name}={_quoted(value)}" for name, value in told)
        return f"{SCHEME}{where}/{self.room}" + (f"?{query}" if query else "")

    @property
    def command(self) -> str:
        """What a player types. Double quotes mean the same to every shell, those of Windows included."""
        return f'softlan join "{self}"'


def _quoted(value: str) -> str:
    """Escape all but letters, digits and `-._~`, and a full stop at the end: it would be taken for the sentence's."""
    quoted = quote(value, safe="")
    return f"{quoted[:-1]}%2E" if quoted.endswith(".") else quoted


def parse_invite(text: str) -> Invite:
    """Read an invite as a player pasted it.

    Raises ConfigError: it is none, or a part of it is missing or broken; the message names the part.
    """
    link = _cleaned(text)
    link, hash_mark, _ = link.partition("#")
    if hash_mark:
        raise ConfigError("the invite holds a '#', which no invite does", hint=_HINT)
    location, _, query = link[len(SCHEME) :].partition("?")
    authority, slash, path = location.partition("/")
    room = _decoded(path.strip("/"), "the room")
    if not slash or not room:
        raise ConfigError(
            f"the invite names no room: after the relay ({harmless(authority)}) there must be /ROOM",
            hint=_HINT,
        )
    relay = _relay(authority)
    pins, key, notes = _read_query(query)
    try:
        room = parse_room(room)
    except ConfigError as error:
        raise ConfigError(f"the invite's room: {error}", hint=_HINT) from error
    return Invite(relay.host, relay.port, room, pins, key, notes)


def _cleaned(text: str) -> str:
    """Take off what was put around and into the link; gives it with its scheme in lower case."""
    if len(text) > MAX_INVITE:
        raise ConfigError(f"this is {len(text)} characters long, no invite is", hint=_HINT)
    link = _LINE_BREAK.sub("", text.strip().translate(_INVISIBLE)).strip(_AROUND)
    if re.match(r"softlan%3a", link, re.IGNORECASE):
        link = _decoded(link, "the invite")
    # A backslash is in no invite: shells and chat programs put it before ? & = and _.
    link = link.replace("\\", "").replace("&amp;", "&").replace("&#38;", "&").strip(_AROUND)
    if not link:
        raise ConfigError(
            "the invite is empty", hint=f'it looks like "{SCHEME}relay.example.org/ROOM?pin=..."'
        )
    if not link.lower().startswith(SCHEME):
        raise _not_an_invite(link)
    link = SCHEME + link[len(SCHEME) :]
    if found := re.search(r"\s", link):
        raise ConfigError(f"the invite has a gap after {link[: found.start()][-12:]!r}", hint=_HINT)
    for char in link[len(SCHEME) :].partition("/")[2]:
        if not char.isascii():
            raise ConfigError(
                f"the invite holds {char!r}, which a program put there in place of something else",
                hint="ask for it as plain text, in a code block or by mail",
            )
    return link


def _not_an_invite(link: str) -> ConfigError:
    shown = ascii(link[:24] + ("..." if len(link) > 24 else ""))
    if re.match(r"https?:", link, re.IGNORECASE):
        return ConfigError(f"{shown} is a web address, not an invite", hint=f"an invite begins with {SCHEME}")
    if re.match(r"softlan:?/*", link, re.IGNORECASE):
        return ConfigError(f"{shown}: an invite begins with {SCHEME}, two slashes included", hint=_HINT)
    return ConfigError(f"{shown} is not an invite", hint=f"an invite begins with {SCHEME}")


def _relay(authority: str) -> HostPort:
    where = _decoded(authority, "the relay's address")
    if "@" in where:
        raise ConfigError("the invite holds a '@' before the relay's name, which no invite does", hint=_HINT)
    bracketed = where.startswith("[") and where.endswith("]")
    if bracketed or ":" not in where:
        where += f":{DEFAULT_PORT}"
    try:
        return parse_host_port(where)
    except ConfigError as error:
        raise ConfigError(f"the invite's relay: {error}", hint=error.hint or _HINT) from error


def _read_query(query: str) -> tuple[tuple[str, ...], str | None, tuple[str, ...]]:
    """Read pins, key, and notes about what is not known."""
    pins: list[str] = []
    keys: list[str] = []
    notes: list[str] = []
    for piece in filter(None, query.split("&")):
        name, _, raw = piece.partition("=")
        match name.lower():
            case "pin":
                pins.append(_decoded(raw, "the pin"))
            case "key":
                keys.append(_decoded(raw, "the key"))
            case _:
                shown = ascii(name[:24])[1:-1]
                notes.append(f"the invite's {shown!r} is not known to this version and was left out")
    if len(set(keys)) > 1:
        raise ConfigError("the invite holds two different keys", hint=_HINT)
    return tuple(pins), keys[0] if keys else None, tuple(notes)


def _decoded(text: str, what: str) -> str:
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise ConfigError(f"{what} in the invite is broken at a '%'", hint=_HINT)
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeError as error:
        raise ConfigError(f"{what} in the invite is broken at a '%'", hint=_HINT) from error


def _checked_pin(pin: str) -> str:
    """Check a pin, whatever of base64's spellings it has; gives it in base64url without padding."""
    plain = pin.rstrip("=").translate(str.maketrans("+/", "-_"))
    if len(plain) != _PIN_LENGTH:
        raise ConfigError(
            f"the pin is {'cut off' if len(plain) < _PIN_LENGTH else 'too long'}: "
            f"it has {len(plain)} characters in place of {_PIN_LENGTH}",
            hint=_HINT,
        )
    # The last character carries 4 bits of the 256: the other two are zero.
    if not re.fullmatch(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]", plain):
        raise ConfigError("the pin is damaged: it is letters, digits, '-' and '_' alone", hint=_HINT)
    return plain


def _check_key(key: str) -> None:
    if not key:
        raise ConfigError("the key in the invite is empty", hint=_HINT)
    if len(key) > MAX_KEY or not key.isprintable() or key != key.strip():
        raise ConfigError(f"the key is not 1 to {MAX_KEY} printable characters", hint=_HINT)
