"""Who this peer is, kept in a small file: its virtual MAC, and a secret to prove it is still the same.

The file is the player's: it is made once, never changed, and never repaired by guessing. The first process that uses it
holds a lock beside it and may use the secret; a second one has the same MAC and a secret of its own, so that the relay
sees two and judges (another room is fine, the same room is a duplicate), and neither throws the other out.
Gateways keep a secret the same way, without a MAC.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Annotated

import msgspec

from softlan._core import Mac
from softlan.control.fields import Role, check_role_and_mac, decode_custom, encode_custom
from softlan.errors import ConfigError, SoftlanError
from softlan.files import file_error, is_exposed, try_lock, user_directory, write_atomically
from softlan.observe.events import Event
from softlan.observe.logs import log_event
from softlan.texts import harmless

__all__ = ["HeldIdentity", "Identity", "default_identity_path", "hold_identity", "is_held"]

logger = logging.getLogger(__name__)

VERSION = 1
SECRET_SIZE = 32


class _File(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The file's content."""

    version: int
    mac: Mac | None = None
    secret: Annotated[str, msgspec.Meta(pattern=rf"\A[0-9a-fA-F]{{{2 * SECRET_SIZE}}}\Z")]


@dataclass(frozen=True, slots=True)
class Identity:
    """A MAC (clients only) and a secret that never leaves this machine."""

    mac: Mac | None
    secret: bytes = field(repr=False)

    def resume_key(self, server_name: str, room: str) -> str:
        """Derive the `resume` of a hello, 64 hex digits, for one room of one relay.

        Each relay and room gets another key, so that no relay can take this peer's place at another.
        """
        # Neither a server name nor a room code can hold a NUL, so no two pairs give the same message.
        message = f"softlan resume 1\0{server_name.lower()}\0{room.upper()}"
        return hmac.new(self.secret, message.encode(), hashlib.sha256).hexdigest()


class HeldIdentity:
    """An identity in use by this process; release it with `close` or by leaving the context.

    `shared` says that another process of this machine used it first.
    """

    def __init__(self, path: Path, identity: Identity, lock: int | None) -> None:
        self.path = path
        self.identity = identity
        self.shared = lock is None
        self._lock = lock

    def close(self) -> None:
        """Let others use the identity; closing twice does no harm.

        The lock file stays: were it removed, two processes could each hold a lock on a file of that name.
        """
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def __enter__(self) -> HeldIdentity:
        """Return itself; the lock is held already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


def default_identity_path(role: Role) -> Path:
    """Say where the identity of this user's client or gateway is kept.

    `lanparty-client-identity.json` (or `-gateway-`) in `$XDG_CONFIG_HOME/softlan`, `~/.config/softlan`, and
    on Windows in the roaming profile.
    """
    directory = user_directory()
    if directory is None:
        raise ConfigError(
            "this user has no home directory to keep an identity in", hint="give --identity FILE"
        )
    return directory / f"lanparty-{role.value}-identity.json"


def hold_identity(path: Path, role: Role, *, virtual_mac: Mac | None = None) -> HeldIdentity:
    """Load the identity in `path`, made now if there is none, and hold it for this process if no other does.

    A client's `virtual_mac` takes the place of the MAC in the file, for this run only.

    Raises ConfigError: the file is broken or cannot be read or written, or a MAC is not one a client may
    have. Raises SoftlanError: another process is just making this identity, or it cannot be read or written now (`file_error`).
    """
    if virtual_mac is not None:
        try:
            check_role_and_mac(role, virtual_mac)
        except ValueError as error:
            raise ConfigError(f"the virtual MAC {virtual_mac} cannot be used: {error}") from error
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = try_lock(_lock_of(path))
    except OSError as error:
        raise file_error(
            f"cannot keep an identity in {path.parent}",
            error,
            hint="give a place that can be written to with --identity FILE",
        ) from error
    try:
        if lock is None and not path.exists():
            raise SoftlanError(
                f"another softlan process is just making the identity {path}",
                hint="try again, or give this one a file of its own with --identity FILE",
            )
        identity = _load(path, role) if path.exists() else _make(path, role)
    except BaseException:
        if lock is not None:
            os.close(lock)
        raise
    if lock is None:
        identity = Identity(identity.mac, secrets.token_bytes(SECRET_SIZE))
    if virtual_mac is not None:
        identity = Identity(virtual_mac, identity.secret)
    return HeldIdentity(path, identity, lock)


def is_held(path: Path) -> bool:
    """Say whether a process holds the identity in `path`; nothing is made. False also where nobody can tell."""
    lock = _lock_of(path)
    try:
        if not lock.exists():
            return False
        handle = try_lock(lock)
    except OSError:
        return False
    if handle is not None:
        os.close(handle)
    return handle is None


def _lock_of(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _make(path: Path, role: Role) -> Identity:
    mac = Mac.random_local() if role is Role.CLIENT else None
    identity = Identity(mac, secrets.token_bytes(SECRET_SIZE))
    content = msgspec.json.encode(
        _File(version=VERSION, mac=mac, secret=identity.secret.hex()), enc_hook=encode_custom
    )
    try:
        write_atomically(path, msgspec.json.format(content, indent=2) + b"\n", mode=0o600)
    except OSError as error:
        raise file_error(
            f"cannot write the identity {path}",
            error,
            hint="give a place that can be written to with --identity FILE",
        ) from error
    log_event(
        logger,
        Event.IDENTITY_MADE,
        f"made a new identity, to be known again by: {path}",
        file=str(path),
        mac=mac,
    )
    return identity


def _load(path: Path, role: Role) -> Identity:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise file_error(f"cannot read the identity {path}", error) from error
    try:
        content = msgspec.json.decode(data, type=_File, dec_hook=decode_custom)
        if content.version != VERSION:
            raise ValueError(f"it has version {content.version}, only {VERSION} is known here")
        mac = content.mac if role is Role.CLIENT else None
        check_role_and_mac(role, mac)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"the identity {path} is broken: {harmless(str(error))}",
            hint="repair it, or move it away: a new one is made then, with another MAC",
        ) from error
    _warn_if_exposed(path)
    return Identity(mac, bytes.fromhex(content.secret))


def _warn_if_exposed(path: Path) -> None:
    if is_exposed(path):
        log_event(
            logger,
            Event.IDENTITY_EXPOSED,
            f"other users of this machine can read the secret in {path}; make it yours alone: chmod 600",
            file=str(path),
        )
