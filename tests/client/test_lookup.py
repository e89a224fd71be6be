"""Name lookups that hang, fail or come late: a session ends all the same, and goes back where it was."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from typing import Any

import pytest

from softlan.client.session import RelaySession, SessionConfig
from softlan.config import HostPort
from softlan.control.messages import Role
from softlan.parts import run_part

NAME = HostPort("relay.example.org", 443)


def to(relay: HostPort) -> SessionConfig:
    return SessionConfig(
        relay=relay,
        server_name="x",
        trusted=list,
        room="PARTY1",
        role=Role.GATEWAY,
        mac=None,
        resume="A" * 43,
        pins=(bytes(32),),
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_session_whose_lookup_hangs(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    over = threading.Event()
    came_back: list[bool] = []

    def hang(*_asked: Any, **_how: Any) -> Any:
        os.kill(os.getpid(), number)
        came_back.append(over.wait(20))
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", hang)

    async def main(stopping: asyncio.Event) -> None:
        session = RelaySession(to(NAME), handler=None)  # type: ignore[arg-type]  # nobody is let in
        running = asyncio.ensure_future(session.run())
        await stopping.wait()
        session.stop()
        await running

    run_part(main)
    assert not came_back  # So nobody waited for it.
    over.set()
