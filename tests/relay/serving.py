"""A relay in this process for tests that look into it, and patience."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from softlan.relay.certificates import ServerCertificate, make_dev_certificate
from softlan.relay.rules import OPEN_RULES, Rules
from softlan.relay.server import Relay, RelayConfig
from softlan.relay.state import RelayState

NAME = "lanparty-relay.local"
SHOWN = make_dev_certificate(NAME)


@contextlib.asynccontextmanager
async def serving(
    config: RelayConfig,
    rules: Rules = OPEN_RULES,
    state: RelayState | None = None,
    *,
    shown: ServerCertificate = SHOWN,
) -> AsyncIterator[Relay]:
    """A relay that shows a certificate and serves until the end."""
    made = Relay.start(config, shown, rules, state)
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
