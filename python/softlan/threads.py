"""Blocking work beside asyncio, in threads that nobody waits for when the program is to end: name lookups, measurements."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

__all__ = ["in_thread"]

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do the work in a thread of its own and give its result, or raise what it raised.

    `asyncio.to_thread` would do but for Ctrl-C: asyncio then waits for the thread, which may be measuring for minutes, or asking a name
    server that does not answer.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(put: Callable[[], None]) -> None:
        if not done.done():
            put()

    def run() -> None:
        try:
            result = work(*args, **kwargs)
            put: Callable[[], None] = functools.partial(done.set_result, result)
        except Exception as error:  # handed to whoever asked
            put = functools.partial(done.set_exception, error)
        with contextlib.suppress(RuntimeError):  # The loop has ended.
            loop.call_soon_threadsafe(settle, put)

    threading.Thread(target=run, name="softlan-work", daemon=True).start()
    return await done
