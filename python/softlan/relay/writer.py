"""Writes the relay's small files beside its loop: a disk that takes its time holds up the one who waits for it, and nobody else.

One thread, made when first needed, writes one file after the other in the order they were asked for; of a file that is asked for again
before its turn only the newest content is written, which is all that would be left of both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from softlan.files import write_atomically

__all__ = ["FileWriter", "on_disk"]


class FileWriter:
    """Writes files whole or not at all, mode 0600; `failed` is told, in the writer's thread, of those that cannot be written."""

    def __init__(self, failed: Callable[[Path, OSError], None]) -> None:
        self._failed = failed
        self._waiting: dict[Path, bytes] = {}
        self._thread = ThreadPoolExecutor(1, "softlan-state")

    def write(self, path: Path, data: bytes) -> Future[None]:
        """Have `data` written to `path`; what is given is done when that, or something newer, is on the disk, or could not be."""
        self._waiting[path] = data
        return self._thread.submit(self._write, path)

    def close(self) -> None:
        """Wait until all is written, and end."""
        self._thread.shutdown()

    def _write(self, path: Path) -> None:
        data = self._waiting.pop(path, None)
        if data is None:  # written with what was asked for before
            return
        try:
            write_atomically(path, data, mode=0o600)
        except OSError as error:
            self._failed(path, error)


async def on_disk(written: Future[None], within: float | None = None) -> None:
    """Wait for a write, at most `within` seconds; it goes on if nobody waits any more."""
    await asyncio.wait({asyncio.wrap_future(written)}, timeout=within)
