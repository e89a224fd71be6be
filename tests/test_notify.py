"""What a service manager hears: from the pieces on a real socket, and from real parts."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from softlan._core import Endpoint, TransportSettings
from softlan.notify import Notifier, Service


class Manager:
    """The service manager's end of the socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.heard: list[dict[str, str]] = []

    def hear(self, name: str, within: float = 20.0) -> dict[str, str]:
        """Wait for a message that has the field; gives it."""
        deadline = time.monotonic() + within
        while True:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.01))
            lines = self._socket.recv(65536).decode().splitlines()
            message = dict(line.split("=", 1) for line in lines)
            self.heard.append(message)
            if name in message:
                return message

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request) -> Iterator[Manager]:
    with tempfile.TemporaryDirectory() as directory:
        address = f"{directory}/notify" if request.param == "path" else f"@softlan-test-{os.getpid()}"
        made = Manager(address)
        yield made
        made.close()


def test_reads_the_environment():
    told = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000"}
    assert Notifier.from_environment({}).address is None
    assert Notifier.from_environment(told).watchdog_s == 3.0
    assert Notifier.from_environment({**told, "WATCHDOG_PID": "7"}, pid=7).watchdog_s == 3.0
    assert Notifier.from_environment({**told, "WATCHDOG_PID": "7"}, pid=8).watchdog_s is None
    assert Notifier.from_environment({**told, "WATCHDOG_USEC": "0"}).watchdog_s is None
    assert Notifier.from_environment({**told, "WATCHDOG_USEC": "soon"}).watchdog_s is None


def test_messages(manager):
    Notifier(manager.address).tell(READY=1, STATUS="two\nlines")
    assert manager.hear("READY") == {"READY": "1", "STATUS": "two lines"}


def test_a_manager_that_is_gone_is_no_trouble(tmp_path):
    Notifier(str(tmp_path / "nobody")).tell(READY=1)
    Notifier(None).tell(READY=1)


def test_a_part_is_ready_again_whatever_came_of_reading_its_files(manager):
    async def answers(timeout_s: float) -> bool:
        return True

    service = Service(answers, lambda: "well", Notifier(manager.address))
    with pytest.raises(RuntimeError), service.reloading():
        raise RuntimeError("a fault")
    assert manager.hear("READY")["STATUS"] == "well"
    assert [set(message) for message in manager.heard] == [
        {"RELOADING", "MONOTONIC_USEC"},
        {"READY", "STATUS"},
    ]


async def test_no_sign_of_life_while_the_data_plane_does_not_answer(manager, caplog):
    answers: asyncio.Queue[bool] = asyncio.Queue()
    asked = []

    async def answer(timeout_s: float) -> bool:
        asked.append(timeout_s)
        return await answers.get()

    async with Service(answer, lambda: "well", Notifier(manager.address, watchdog_s=0.04)):
        for verdict in (False, False, True):
            answers.put_nowait(verdict)
        message = await asyncio.to_thread(manager.hear, "WATCHDOG")
        assert len(asked) >= 3
    assert message == {"WATCHDOG": "1", "STATUS": "well"}
    assert manager.heard == [message]
    assert [r.event for r in caplog.records] == ["service.stalled"] * 2
    assert manager.hear("STOPPING")["STOPPING"] == "1"


async def test_the_data_plane_answers_until_it_is_stopped():
    endpoint = Endpoint.client("127.0.0.1:0", TransportSettings())
    assert await endpoint.answers(timeout=20)
    endpoint.stop()
    assert not await endpoint.answers(timeout=20)


@contextlib.contextmanager
def running(manager: Manager, *arguments: str, watchdog_s: float = 0.4) -> Iterator[subprocess.Popen[bytes]]:
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": str(int(watchdog_s * 1e6))}
    part = subprocess.Popen(
        [sys.executable, "-m", "softlan", *arguments, "--config", "/dev/null"],
        env={**os.environ, **environment},
    )
    try:
        yield part
    finally:
        part.kill()
        part.wait()


def test_a_relay_tells_its_life(manager: Manager, tmp_path: Path) -> None:
    state = str(tmp_path / "cert.pem")
    with running(manager, "relay", "--listen", "127.0.0.1:0", "--dev-cert-state", state) as relay:
        assert manager.hear("READY")["STATUS"] == "0 peers in 0 rooms"
        assert manager.hear("WATCHDOG")["STATUS"] == "0 peers in 0 rooms"
        manager.hear("WATCHDOG")
        relay.send_signal(signal.SIGHUP)
        assert int(manager.hear("RELOADING")["MONOTONIC_USEC"]) > 0
        manager.hear("READY")
        relay.send_signal(signal.SIGTERM)
        manager.hear("STOPPING")
        assert relay.wait(20) == 0
