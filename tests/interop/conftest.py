"""Fixtures of the interop tests: a relay, and peers of another make."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent))

from interop_peer import Peer  # found by the line above
from interop_relay import RelayProcess, connected, running_relay

Joined = Callable[..., Coroutine[Any, Any, Peer]]


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    """A relay that waits a second for a hello, takes 4 peers a room, and forgives the one address all misbehave from."""
    options = [
        "--misbehaved-per-minute",
        "1000",
        "--admission-timeout",
        "1",
        "--max-peers-per-room",
        "4",
        "--allow-room",
        "INTEROP",
        "--allow-room",
        "SMALL",
    ]
    with running_relay(tmp_path_factory.mktemp("relay"), *options) as process:
        yield process


@pytest.fixture
async def stranger(relay: RelayProcess) -> AsyncIterator[Peer]:
    """A peer that is connected and has not said hello."""
    async with connected(relay) as peer:
        yield peer


@pytest.fixture
async def join(relay: RelayProcess) -> AsyncIterator[Joined]:
    """`await join(mac)`: a peer that is in room INTEROP; leaves in the end."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(mac: str | None, room: str = "INTEROP", **more: Any) -> Peer:
            connection: AbstractAsyncContextManager[Peer] = connected(relay)
            peer = await stack.enter_async_context(connection)
            await peer.join(room, mac, **more)
            return peer

        yield make
    await asyncio.sleep(0.1)  # let the relay see everybody leave before the next test joins
