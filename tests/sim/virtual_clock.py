"""An asyncio event loop whose time stands still while anything is to be done, and jumps to the next timer when nothing is.

There are no sockets and no threads in it: work for a thread is done at once and its result comes a little later.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

__all__ = ["Clock", "Program", "StandstillError", "VirtualLoop", "owner"]

_THREAD_S = 0.03
"""What work in a thread takes."""

_EPOCH_S = 1_790_000_000.0
"""What the wall clock shows when a story begins, in seconds since 1970."""


class Program:
    """Whatever can be killed at once: the tasks that began within it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.killed = False
        self.machine: Any = None
        self.tasks: dict[asyncio.Task[Any], None] = {}

    def start(self, loop: VirtualLoop, work: Any) -> asyncio.Task[Any]:
        """Begin work of this program's."""
        token = owner.set(self)
        try:
            return loop.create_task(work)
        finally:
            owner.reset(token)

    async def end_tasks(self) -> None:
        """Cancel all there is, and what that begins."""
        while self.tasks:
            for task in list(self.tasks):
                task.cancel()
            await asyncio.wait(list(self.tasks))


owner: ContextVar[Program | None] = ContextVar("owner", default=None)
"""Whose task runs."""


class StandstillError(Exception):
    """Nothing will ever happen any more, and somebody waits."""


class Clock:
    """Stands in for the module `time` in the code under test."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def monotonic(self) -> float:
        """Seconds since the story began."""
        return self._loop.time()

    def time(self) -> float:
        """Seconds since 1970."""
        return _EPOCH_S + self._loop.time()


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop. Nothing is ever waited for but timers, which run in their order, those of one time in the order they were set in."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self.serial = 0
        self.set_task_factory(_make_task)

    def time(self) -> float:
        """The virtual time, in seconds."""
        return self._now

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        """See `asyncio.AbstractEventLoop`."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self.serial += 1
        heapq.heappush(self._timers, (when, self.serial, timer))
        return timer

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        """See `asyncio.AbstractEventLoop`."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def _run_once(self) -> None:
        ready, timers = self._ready, self._timers
        if not ready:
            while timers and timers[0][2]._cancelled:
                heapq.heappop(timers)
            if not timers:
                raise StandstillError("everybody waits, and no timer runs")
            self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            ready.append(heapq.heappop(timers)[2])
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _write_to_self(self) -> None:
        pass

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Do the work at once; whoever waits for it is told later, as by a thread."""
        done = self.create_future()
        result = func(*args)
        self.call_later(_THREAD_S, lambda: done.done() or done.set_result(result))
        return done


class _Task(asyncio.Task[Any]):
    """A task whose place in a set (`asyncio.wait` gives sets) is the same each time a story is played."""

    def __init__(self, serial: int, work: Any, **options: Any) -> None:
        self._serial = serial
        super().__init__(work, **options)

    def __hash__(self) -> int:
        return self._serial


def _make_task(loop: Any, work: Any, **options: Any) -> asyncio.Task[Any]:
    loop.serial += 1
    task = _Task(loop.serial, work, loop=loop, **options)
    program = owner.get()
    if program is not None:
        program.tasks[task] = None
        task.add_done_callback(lambda ended: program.tasks.pop(ended, None))
    return task
