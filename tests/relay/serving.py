"""A relay in this process for tests that look into it, and patience."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from softlan.relay.certificates import make_dev_certificate
from softlan.relay.server import Relay, RelayConfig

NAME = "lanparty-relay.local"
SHOWN = make_dev_certificate(NAME)


@contextlib.asynccontextmanager
async def serving(config: RelayConfig) -> AsyncIterator[Relay]:
    """A relay that shows `SHOWN` and serves until the end."""
    made = Relay.start(config, SHOWN)
    task = asyncio.create_task(made.serve())
    try:
        yield made
    finally:
        await made.close()
        await asyncio.gather(task, return_exceptions=True)


async def until(true: Callable[[], bool]) -> None:
    """Wait, ten seconds at most, until it is so."""
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come about in 10 s")
