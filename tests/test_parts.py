"""How a part ends: by itself once it is told to, or cut off, which its log says."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest

from softlan import parts

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals end a process there")


def told_by(caplog: pytest.LogCaptureFixture, *, hangs: bool, signals: int, grace_s: float) -> list[str]:
    """Run a part that is told to end so many times; gives the events in its log."""

    async def main(stopping: asyncio.Event) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await stopping.wait()
        for _ in range(signals - 1):
            os.kill(os.getpid(), signal.SIGTERM)
        if hangs:
            await asyncio.Event().wait()

    parts.run_part(main, drain_s=grace_s - parts._GRACE_S)
    return [record.event for record in caplog.records]


def test_what_hangs_is_cut_off_and_that_is_told(caplog: pytest.LogCaptureFixture) -> None:
    assert told_by(caplog, hangs=True, signals=1, grace_s=0.05) == ["service.hung"]
    assert "cut off" in caplog.text


def test_what_ends_by_itself_says_nothing_of_it(caplog: pytest.LogCaptureFixture) -> None:
    assert told_by(caplog, hangs=False, signals=1, grace_s=0.05) == []


def test_a_second_signal_is_the_users_own_wish(caplog: pytest.LogCaptureFixture) -> None:
    assert told_by(caplog, hangs=True, signals=2, grace_s=600) == []
