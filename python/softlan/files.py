"""The small files softlan keeps: written so that a crash or a full disk never leaves half of one, locked by their user, kept private.

And those that people write for it, read as text.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import tempfile
from pathlib import Path

from softlan.errors import ConfigError, SoftlanError
from softlan.texts import unusable

__all__ = [
    "file_error",
    "is_exposed",
    "is_public",
    "read_text",
    "try_lock",
    "user_directory",
    "write_atomically",
]

_FOR_A_PERSON = frozenset(
    {
        errno.ENOENT,
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.EINVAL,
        errno.ENXIO,
    }
)
"""What the system says (errno(3)) of a path that is wrong, a right that is missing, or a thing that is no file: it will again."""


def file_error(problem: str, error: OSError, *, hint: str | None = None) -> SoftlanError:
    """Tell what the system did not do with a file that the user named, and why; to be raised from `error`.

    A ConfigError where a person must change a name, a right or what is there. What may pass is a plain SoftlanError, with whose exit
    status a service is started again: a disk that is full or has a fault, too many open files.
    """
    kind = ConfigError if error.errno in _FOR_A_PERSON else SoftlanError
    return kind(f"{problem}: {error.strerror or error}", hint=hint)


def user_directory() -> Path | None:
    """Say where this user's identities and settings are kept; None for a user without a home.

    `$XDG_CONFIG_HOME/softlan`, `~/.config/softlan`, and on Windows `softlan` in the roaming profile.
    """
    # A relative path is to be ignored (XDG Base Directory Specification).
    told = Path(os.environ.get("APPDATA" if sys.platform == "win32" else "XDG_CONFIG_HOME", ""))
    if told.is_absolute():
        return told / "softlan"
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home.joinpath(*(("AppData", "Roaming") if sys.platform == "win32" else (".config",)), "softlan")


def read_text(path: Path, name: str) -> str:
    """Read what a person wrote: UTF-8, also with the mark that Windows' editors put in front. `name` is what messages call it.

    Raises ConfigError: it cannot be read, or is something else. Raises SoftlanError: it cannot be read now (`file_error`).
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise file_error(f"cannot read {name}", error) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"cannot read {name}: it is not UTF-8 text",
            hint="save it as UTF-8; in Windows PowerShell that is `Set-Content -Encoding utf8`",
        ) from error
    except ValueError as error:
        raise ConfigError(f"cannot read {name}: {unusable(error)}") from error


def write_atomically(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Put `data` into `path` whole or not at all: whoever opens it sees the old or the new content.

    The file gets `mode` before it gets its content, so a secret is never readable by others, not even for a
    moment. A symbolic link keeps pointing where it does, and what is no regular file (a pipe, /dev/stdout) is
    simply written to. When this returns the file outlasts a power cut. Raises OSError as the system gives it; `path` is then as it was.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    # mkstemp creates with mode 0600; the same directory is the same file system, which os.replace needs.
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            if hasattr(os, "fchmod"):
                os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _keep_names(path.parent)


def _keep_names(directory: Path) -> None:
    """Have what was renamed in a directory outlast a power cut (fsync(2)); Windows and some file systems cannot be asked."""
    if sys.platform == "win32":
        return
    with contextlib.suppress(OSError):
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def is_public(path: Path) -> bool:
    """Say whether every user of this machine may read a file; a group may be meant to. Never so on Windows. Raises OSError."""
    return sys.platform != "win32" and bool(path.stat().st_mode & stat.S_IROTH)


def is_exposed(path: Path) -> bool:
    """Say whether other users of this machine may read a file that holds a secret, or change it. Never so on Windows.

    A file that systemd hands out (systemd.exec(5), `LoadCredential=`) is root's, and its service reads it by an entry in the access
    control list, whose mask stands in the group's place (acl(5)): there the group's reading means nothing. Raises OSError.
    """
    if sys.platform == "win32":
        return False
    given = os.environ.get("CREDENTIALS_DIRECTORY", "")
    handed_out = given != "" and path.resolve().is_relative_to(Path(given).resolve())
    return bool(path.stat().st_mode & (0o027 if handed_out else 0o077))


def try_lock(path: Path) -> int | None:
    """Take the lock that `path` is, made if missing: a handle to close, or None when another process has it.

    The system releases the lock when its process ends, however that happens. Raises OSError: the file cannot be opened.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        _lock_handle(handle)
    except (BlockingIOError, PermissionError):
        os.close(handle)
        return None
    except BaseException:
        os.close(handle)
        raise
    return handle


if sys.platform == "win32":
    import msvcrt

    def _lock_handle(handle: int) -> None:
        # Raises PermissionError when another process has the byte locked.
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock_handle(handle: int) -> None:
        # Raises BlockingIOError when another open file has the lock.
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
