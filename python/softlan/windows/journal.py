"""The undo journal: what softlan has changed on this machine and not yet put back, in a small file for the next start.

Each running client has a file of its own and holds a lock beside it. A record is in the file before its change is made and leaves
it after the change was taken back. Whoever finds a file that nobody holds knows that its client died, and takes its records back,
the last one first.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from pathlib import Path
from types import TracebackType

import msgspec

from softlan.errors import SoftlanError
from softlan.files import try_lock, write_atomically
from softlan.observe.events import Event
from softlan.observe.logs import log_event
from softlan.windows.errors import WindowsCallError
from softlan.windows.undo import Outcome, Undo, Undoer, check_is_own

__all__ = ["Journal", "default_journal_directory", "recover"]

logger = logging.getLogger(__name__)

_SUFFIX = ".undo.json"
_VERSION = 1
_MAX_FILE = 1 << 20
"""Bytes; a journal holds a dozen records of some 200 bytes."""


class _File(msgspec.Struct, frozen=True):
    """A journal's content; `records` in the order the changes were made."""

    version: int
    records: list[Undo]


class Journal:
    """What one client has changed. A context manager: leaving takes back, last first, what no scope has taken back before."""

    def __init__(self, directory: Path, undoer: Undoer) -> None:
        """Take a file, empty as yet.

        Raises:
            SoftlanError: the directory cannot be written to, so that a crash would leave the machine changed.

        """
        self.undoer = undoer
        self._records: list[Undo] = []
        name = f"{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}"
        self.path = directory / name
        try:
            directory.mkdir(parents=True, exist_ok=True)
            # The lock is held before the journal can be seen: whoever sees one without an owner may act on it.
            self._lock: int | None = try_lock(_lock_path(self.path))
        except OSError as error:
            raise SoftlanError(f"cannot keep a journal in {directory}: {error.strerror or error}") from error
        try:
            self._write()
        except BaseException:
            self.close()
            raise

    @property
    def records(self) -> tuple[Undo, ...]:
        """What is not yet taken back, oldest first."""
        return tuple(self._records)

    def add(self, record: Undo) -> None:
        """Write a record down, before its change is made.

        Raises:
            SoftlanError: the disk does not take it; the change must not be made.

        """
        self._records.append(record)
        try:
            self._write()
        except SoftlanError:
            self._records.pop()
            raise

    def replace(self, old: Undo, new: Undo) -> None:
        """Put another record in the place of one, before a change is changed. Raises SoftlanError as `add`."""
        place = self._records.index(old)
        self._records[place] = new
        try:
            self._write()
        except SoftlanError:
            self._records[place] = old
            raise

    def forget(self, record: Undo) -> None:
        """Drop a record whose change was not made."""
        self._records.remove(record)
        # A record too many in the file is harmless: taking it back finds nothing to do.
        with contextlib.suppress(SoftlanError):
            self._write()

    def take_back(self, record: Undo) -> Outcome:
        """Undo a change and forget its record; a record that is not there was taken back before.

        Raises:
            WindowsCallError: it could not be undone; the record stays for the next start.

        """
        if record not in self._records:
            return Outcome.GONE
        outcome = self.undoer.undo(record)
        self.forget(record)
        event = Event.SETTING_KEPT if outcome is Outcome.CHANGED_SINCE else Event.SETTING_RESTORED
        log_event(logger, event, f"{record}: {outcome}", outcome=outcome)
        return outcome

    def close(self) -> None:
        """Take back what is left and give up the file, unless something could not be taken back; twice does no harm."""
        for record in reversed(self.records):
            try:
                self.take_back(record)
            except WindowsCallError as error:
                log_event(
                    logger,
                    Event.SETTING_STUCK,
                    f"could not put back {record}: {error}; the next start of softlan tries again",
                )
        lock, self._lock = self._lock, None
        if lock is None:
            return
        os.close(lock)
        if not self._records:
            _remove(self.path)

    def __enter__(self) -> Journal:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _write(self) -> None:
        try:
            write_atomically(self.path, _encode(self._records), mode=0o600)
        except OSError as error:
            raise SoftlanError(f"cannot write the journal {self.path}: {error.strerror or error}") from error


def recover(directory: Path, undoer: Undoer) -> int:
    """Take back what clients that died have left behind; returns the number of changes put right.

    Never raises for what it finds: a journal that cannot be read is set aside, a change that cannot be undone stays for next time.
    """
    done = 0
    for path in sorted(directory.glob(f"*{_SUFFIX}")):
        try:
            lock = try_lock(_lock_path(path))
        except OSError:
            continue
        if lock is None:
            continue  # Its client is running.
        try:
            done += _recover_file(path, undoer)
        finally:
            os.close(lock)
            if not path.exists():
                _remove(path)
    return done


def default_journal_directory() -> Path:
    """Say where journals are kept, in %LOCALAPPDATA%; another user's journals are not for this one to act on."""
    local = os.environ.get("LOCALAPPDATA")
    return (Path(local) if local else Path.home() / "AppData" / "Local") / "softlan" / "undo"


def _recover_file(path: Path, undoer: Undoer) -> int:
    try:
        records = _read(path)
    except FileNotFoundError:
        return 0
    except (OSError, msgspec.MsgspecError, ValueError, RecursionError) as error:
        log_event(logger, Event.JOURNAL_BROKEN, f"cannot read the journal {path}: {error}", path=str(path))
        with contextlib.suppress(OSError):
            os.replace(path, path.with_name(path.name.removesuffix(_SUFFIX) + ".broken"))
        return 0
    done, stuck = 0, []
    for record in reversed(records):
        try:
            outcome = undoer.undo(record)
        except WindowsCallError as error:
            log_event(logger, Event.SETTING_STUCK, f"could not put back {record}: {error}")
            stuck.append(record)
            continue
        done += outcome is Outcome.RESTORED
        log_event(
            logger,
            Event.JOURNAL_RECOVERED,
            f"left behind by a former run: {record}: {outcome}",
            outcome=outcome,
        )
    with contextlib.suppress(OSError):
        if stuck:
            write_atomically(path, _encode(stuck[::-1]), mode=0o600)
        else:
            path.unlink()
    return done


def _read(path: Path) -> list[Undo]:
    with path.open("rb") as file:
        data = file.read(_MAX_FILE)
    content = msgspec.json.decode(data, type=_File)
    if content.version != _VERSION:
        raise ValueError(f"it has version {content.version}, only {_VERSION} is known here")
    for record in content.records:
        check_is_own(record)
    return content.records


def _encode(records: list[Undo]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(_File(_VERSION, records))) + b"\n"


def _lock_path(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _remove(path: Path) -> None:
    for gone in (path, _lock_path(path)):
        with contextlib.suppress(OSError):
            gone.unlink()
