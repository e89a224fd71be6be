"""Room keys: how a peer proves that it may enter a room, and how a relay makes keys it need not remember. No I/O, no clock.

A key is text that goes into an invite. It is either a passphrase that a host chose for a room, or an invite that the relay issued:

    slk1.<token>.<secret>

The token says in the clear for which room, role and time it is good; the secret is an HMAC of it under the relay's invite key, so that
the relay recomputes what it issued. Either way the key itself is never sent: the hello carries an HMAC under it over keying material
that only the two ends of this TLS connection have. docs/protocol.md has the exact bytes.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import unicodedata
from dataclasses import dataclass, field
from typing import Annotated, Protocol, TypeAlias

import msgspec
from msgspec import Meta, Struct

from softlan._core import Mac
from softlan.control.fields import FieldFault, Role, normalise_room_code
from softlan.errors import ConfigError

__all__ = [
    "EXPORTER_LABEL",
    "EXPORTER_LENGTH",
    "INVITE_KEY_LENGTH",
    "MAX_TOKEN",
    "Claim",
    "Exporter",
    "Invite",
    "InviteFacts",
    "Passphrase",
    "RoomKey",
    "invite_secret",
    "issue",
    "parse_key",
    "read_token",
]

EXPORTER_LABEL = b"EXPERIMENTAL softlan room key"
"""Labels that begin with EXPERIMENTAL need no registration (RFC 5705 section 4)."""

EXPORTER_LENGTH = 32
INVITE_KEY_LENGTH = 32
"""Bytes of a relay's invite key."""

MAX_TOKEN = 256
"""Characters of a token; one for the longest room code has fewer than 200."""

MAX_PASSPHRASE = 256

_PREFIX = "slk1."
_PROOF_LABEL = b"softlan proof 1"
_INVITE_LABEL = b"softlan invite 1"
_SALT_LABEL = b"softlan room key 1"
_TOKEN = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_TOKEN}}}")
_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")

# A guess takes 32 MiB and tens of milliseconds: whoever a peer says hello to, a false relay included, can try passphrases on the proof.
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 1 << 15, 8, 1


class Exporter(Protocol):
    """A connection that exports keying material, as `softlan._core.Connection` does."""

    def export_keying_material(self, label: bytes, context: bytes, length: int) -> bytes:
        """Give `length` bytes that only the two ends can know."""


@dataclass(frozen=True, slots=True)
class Passphrase:
    """A key a person chose; `text` is as it was typed, in Unicode's form C."""

    text: str = field(repr=False)

    @property
    def token(self) -> None:
        """Nothing goes into the hello beside the proof."""
        return None

    def secret(self, room: str) -> bytes:
        """Stretch it for one room, 32 bytes; takes 32 MiB and tens of milliseconds (scrypt, RFC 7914)."""
        return hashlib.scrypt(
            self.text.encode(),
            salt=_SALT_LABEL + b"\0" + room.encode("ascii"),
            n=_SCRYPT_N,
            r=_SCRYPT_R,
            p=_SCRYPT_P,
            maxmem=1 << 26,
            dklen=32,
        )


@dataclass(frozen=True, slots=True)
class Invite:
    """A key a relay issued: what the hello shows, and what it proves with."""

    token: str
    issued_secret: bytes = field(repr=False)

    def secret(self, room: str) -> bytes:
        """Give the 32 bytes to prove with; the room is in the token already."""
        del room
        return self.issued_secret


RoomKey: TypeAlias = Passphrase | Invite


class InviteFacts(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a token says. `expires` is in seconds since 1970; an invite for `once` is good for the first identity that shows it."""

    id: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{1,32}\Z")]
    room: str
    role: Role
    expires: Annotated[int, Meta(ge=0, le=2**53)]
    once: bool = False

    def __post_init__(self) -> None:
        if normalise_room_code(self.room) != self.room:
            raise FieldFault("room", "is not in upper case")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a proof is about: who wants into which room, over which connection.

    `exported` is 32 bytes of that connection's keying material (RFC 8446 section 7.5), `room` a code in upper case.
    """

    exported: bytes = field(repr=False)
    room: str
    role: Role
    mac: Mac | None

    @classmethod
    def over(cls, connection: Exporter, room: str, role: Role, mac: Mac | None) -> Claim:
        """Bind a claim to a live connection."""
        exported = connection.export_keying_material(EXPORTER_LABEL, room.encode("ascii"), EXPORTER_LENGTH)
        return cls(exported=exported, room=room, role=role, mac=mac)

    def prove(self, secret: bytes) -> str:
        """Make the `proof` of a hello: 64 hex digits, worth nothing for any other claim."""
        mac = "" if self.mac is None else str(self.mac)
        told = (self.room.encode("ascii"), self.role.value.encode("ascii"), mac.encode("ascii"))
        message = b"".join(
            len(part).to_bytes(2, "big") + part for part in (_PROOF_LABEL, self.exported, *told)
        )
        return hmac.new(secret, message, hashlib.sha256).hexdigest()

    def fits(self, proof: str, secret: bytes) -> bool:
        """Say whether a proof was made by who has `secret`, in constant time."""
        return hmac.compare_digest(proof.encode(), self.prove(secret).encode())


def parse_key(text: str) -> RoomKey:
    """Read a key as it stands in an invite or is typed.

    Raises ConfigError, which does not repeat the key: it is empty, too long, or a damaged invite.
    """
    text = unicodedata.normalize("NFC", text.strip())
    if text.startswith(_PREFIX):
        token, _, secret = text.removeprefix(_PREFIX).partition(".")
        if not _TOKEN.fullmatch(token) or not _SECRET.fullmatch(secret):
            raise ConfigError("the key is a damaged invite", hint="copy it whole; it has no spaces in it")
        return Invite(token, _from_base64(secret))
    if not text or len(text) > MAX_PASSPHRASE or not text.isprintable():
        raise ConfigError(f"a key is 1 to {MAX_PASSPHRASE} printable characters")
    return Passphrase(text)


def issue(invite_key: bytes, room: str, role: Role = Role.CLIENT, *, expires: int, once: bool = False) -> str:
    """Make a key for one room and role, good until `expires` (seconds since 1970), on the relay that has `invite_key`.

    Raises FieldFault: the room code or the time is not valid.
    """
    if not 0 <= expires <= 2**53:
        raise FieldFault("expires", "is not a time")
    facts = InviteFacts(
        id=secrets.token_urlsafe(12), room=normalise_room_code(room), role=role, expires=expires, once=once
    )
    token = _to_base64(msgspec.json.encode(facts))
    return f"{_PREFIX}{token}.{_to_base64(invite_secret(invite_key, token))}"


def invite_secret(invite_key: bytes, token: str) -> bytes:
    """Recompute the secret that went out with a token; nothing in the token is believed before a proof under it fits."""
    return hmac.new(invite_key, _INVITE_LABEL + b"\0" + token.encode("ascii"), hashlib.sha256).digest()


def read_token(token: str) -> InviteFacts:
    """Read what a token says.

    Raises FieldFault: it says nothing that makes sense.
    """
    try:
        if not _TOKEN.fullmatch(token):
            raise ValueError("not base64url")
        return msgspec.json.decode(_from_base64(token), type=InviteFacts)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise FieldFault("token", "is not an invite's") from error


def _to_base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _from_base64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
