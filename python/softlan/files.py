"""Writing the small files softlan keeps, so that a crash or a full disk never leaves half of one behind."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

__all__ = ["write_atomically"]


def write_atomically(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Put `data` into `path` whole or not at all: whoever opens it sees the old or the new content.

    The file gets `mode` before it gets its content, so a secret is never readable by others, not even for a
    moment. A symbolic link keeps pointing where it does, and what is no regular file (a pipe, /dev/stdout) is
    simply written to. Raises OSError as the system gives it; `path` is then as it was.
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
