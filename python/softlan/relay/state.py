"""What a relay keeps between runs: its invite key, the single-use invites that were used, and bans.

One directory, private to the relay, with one small file for each. Without a directory everything lasts as long as the process. A file
that cannot be read stops the relay from starting, because it would forget bans; one that cannot be written later is told in the log, and
the relay goes on with what it has in memory. Files are written beside the relay's loop (`writer.py`), in the order of what they tell.
"""

from __future__ import annotations

import logging
import os
import secrets
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from softlan.control.keys import INVITE_KEY_LENGTH
from softlan.errors import ConfigError
from softlan.files import file_error, is_exposed, try_lock, write_atomically
from softlan.observe.events import Event
from softlan.observe.logs import log_event
from softlan.relay.access import UsedInvites
from softlan.relay.bans import Ban, Bans, checked
from softlan.relay.writer import FileWriter
from softlan.texts import harmless

__all__ = ["RelayState"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_KEY, _USED, _BANS, _LOCK = "invite.key", "used-invites.json", "bans.json", "lock"


class RelayState:
    """The relay's memory; `open` it with a directory, or make one that forgets."""

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory
        self.invite_key = secrets.token_bytes(INVITE_KEY_LENGTH)
        self.used = UsedInvites()
        self.bans = Bans()
        self._lock: int | None = None
        self._writer = FileWriter(_tell_failed)

    @classmethod
    def open(cls, directory: Path) -> RelayState:
        """Read what the directory holds; it and the invite key are made if missing.

        Raises ConfigError: it cannot be used, belongs to another relay that runs, or a file in it is broken. Raises SoftlanError: it
        cannot be used now (`file_error`).
        """
        state = cls(directory)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            state._lock = try_lock(directory / _LOCK)
            if state._lock is None:
                raise ConfigError(
                    f"another relay uses {directory}", hint="give each relay a --state directory of its own"
                )
            state._take_key()
            used = state._read(_USED, dict[str, tuple[int, str]])
            bans = state._read_bans()
        except OSError as error:
            state.close()
            raise file_error(f"cannot use the state in {directory}", error) from error
        except ConfigError:
            state.close()
            raise
        state.used, state.bans = UsedInvites(used), Bans(bans)
        return state

    def close(self) -> None:
        """Finish writing, and let another relay have the directory."""
        self._writer.close()
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def save_used(self) -> Future[None]:
        """Have it written down which invites were used; done when it is."""
        return self._write(_USED, self.used.used)

    def save_bans(self) -> Future[None]:
        """Have the bans written down; done when they are."""
        return self._write(_BANS, self.bans.kept())

    def _take_key(self) -> None:
        assert self.directory is not None
        path = self.directory / _KEY
        if not path.exists():
            write_atomically(path, self.invite_key.hex().encode() + b"\n", mode=0o600)
            return
        try:
            key = bytes.fromhex(path.read_text(encoding="ascii"))
            if len(key) != INVITE_KEY_LENGTH:
                raise ValueError(f"{len(key)} bytes")
        except ValueError as error:
            raise ConfigError(
                f"the invite key {path} is broken",
                hint="put it back, or move it away: every invite it issued is void then",
            ) from error
        if is_exposed(path):
            raise ConfigError(
                f"other users of this machine can read the invite key {path}", hint=f"chmod 600 {path}"
            )
        self.invite_key = key

    def _read(self, name: str, kind: type[T]) -> T | None:
        assert self.directory is not None
        path = self.directory / name
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind)
        except FileNotFoundError:
            return None
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise _broken(path, str(error)) from error

    def _read_bans(self) -> list[Ban]:
        assert self.directory is not None
        bans = []
        for number, ban in enumerate(self._read(_BANS, list[Ban]) or (), 1):
            try:
                bans.append(checked(ban))
            except ConfigError as error:
                raise _broken(self.directory / _BANS, f"ban {number}: {error}") from error
        return bans

    def _write(self, name: str, content: Any) -> Future[None]:
        if self.directory is not None:
            return self._writer.write(self.directory / name, msgspec.json.encode(content))
        nothing: Future[None] = Future()
        nothing.set_result(None)
        return nothing


def _broken(path: Path, problem: str) -> ConfigError:
    hint = "repair it, or move it away: what it held is forgotten then"
    return ConfigError(f"{path} is broken: {harmless(problem)}", hint=hint)


def _tell_failed(path: Path, error: OSError) -> None:
    log_event(
        logger,
        Event.STATE_FAILED,
        f"cannot write {path}, it is lost with the next restart: {error.strerror or error}",
        file=str(path),
    )
