"""A relay that drains, seen by a stranger's implementation: who was there comes back, who was not is told where to go and when."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from interop_peer import hello_of
from interop_relay import connected, running_relay

pytestmark = pytest.mark.slow

ANN, BEN = "02:00:00:00:00:0a", "02:00:00:00:00:0b"
SECRET = "ab" * 32


async def test_a_relay_that_drains(tmp_path: Path) -> None:
    options = ("--drain", "60", "--back-in", "9", "--successor", "other.example.org:443")
    with running_relay(tmp_path, *options) as relay:
        async with connected(relay) as ann, connected(relay) as again, connected(relay) as ben:
            await ann.join("PARTY", ANN, resume=SECRET)
            os.kill(relay.pid, signal.SIGTERM)
            assert (await ann.hear("going_down"))["in_s"] == 60
            ann.close(error_code=14, reason_phrase="lost")
            await asyncio.wait_for(ann.closed, 5)
            await again.join("PARTY", ANN, resume=SECRET)
            assert 0 <= (await again.hear("going_down"))["in_s"] <= 60
            ben.tell(hello_of("PARTY", BEN, resume=SECRET))
            refusal = await ben.hear("reject")
            assert refusal["code"] == "shutting-down"
            assert refusal["relay"] == "other.example.org:443"
            assert refusal["back_in_s"] == 9
