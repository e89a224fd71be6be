"""What the lab runs in a thread from `start` to `close`, so that what the asyncio loop does is not taken for the network's."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Threaded(ABC):
    """Work in a thread of its own; also a context manager."""

    def __init__(self, name: str) -> None:
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        self.close()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End, and wait until it has."""
        self._ask_to_end()
        self._thread.join()

    @abstractmethod
    def _run(self) -> None:
        """Do the work until asked to end."""

    @abstractmethod
    def _ask_to_end(self) -> None:
        """Have `_run` return soon."""
