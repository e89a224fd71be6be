"""Peers that come and go by the hundred leave nothing in a relay: its memory stands still after the first of them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from softlan._core import Endpoint, Mac, TransportSettings
from softlan.control.channel import ControlChannel
from softlan.control.messages import Hello, Role, Welcome, decode_answer
from softlan.lab.census import memory_kib

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc"),
]

SETTLED, REST = 1000, 1000
"""The first so many fill caches and pools; of the rest each may cost less than a KiB. So many, because the resident size of the same memory
in use differs by 0.4 MiB from moment to moment."""


def listening(log: Path) -> str | None:
    """Where the relay listens, once it has said so."""
    lines = [line for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
    events = [json.loads(line) for line in lines]
    return next((event["address"] for event in events if event["event"] == "relay.listening"), None)


@contextlib.contextmanager
def relay_process(directory: Path) -> Iterator[tuple[str, bytes, int]]:
    certificate = directory / "relay-cert.der"
    command = [sys.executable, "-m", "softlan.relay", "--listen", "127.0.0.1:0", "--log-format", "json"]
    command += ["--dev-cert-der-out", str(certificate), "--dev-cert-name", "relay.test"]
    command += ["--hellos-per-address", "60000"]
    environment = {**os.environ, "SOFTLAN_RUNTIME_DIR": str(directory)}
    log = directory / "log"
    with log.open("w") as errors, subprocess.Popen(command, stderr=errors, env=environment) as process:
        try:
            while not (place := listening(log)):
                assert process.poll() is None, log.read_text()
                time.sleep(0.05)
            yield place, certificate.read_bytes(), process.pid
        finally:
            process.terminate()


async def come_and_go(endpoint: Endpoint, address: str, certificate: bytes, number: int) -> bool:
    """A client, or each fourth time a gateway, that asks in and leaves; each third as somebody before. Says whether it was welcome."""
    connection = await endpoint.connect(address, "relay.test", [certificate], timeout=10)
    await connection.open_control()
    channel = ControlChannel(connection)
    channel.start()
    role = Role.GATEWAY if number % 4 == 0 else Role.CLIENT
    mac = Mac(f"02:00:5e:10:{number >> 8:02x}:{number & 255:02x}" if number % 3 else "02:00:5e:20:00:01")
    hello = Hello(
        protocol=1, role=role, room="ROOM1", mac=None if role is Role.GATEWAY else mac, datagram_budget=1200
    )
    channel.post(hello)
    body = await channel.receive()
    channel.abandon()
    connection.close(0, "")
    # Now and then the former owner of a place has not been taken leave of yet.
    return body is not None and isinstance(decode_answer(body), Welcome)


async def test_those_who_have_left_take_no_memory(tmp_path: Path) -> None:
    with relay_process(tmp_path) as (address, certificate, pid):
        endpoint = Endpoint.client("127.0.0.1:0", TransportSettings(keep_alive=0.5))
        try:
            for number in range(SETTLED):
                await come_and_go(endpoint, address, certificate, number)
            before, welcomed = memory_kib(pid), 0
            for number in range(SETTLED, SETTLED + REST):
                welcomed += await come_and_go(endpoint, address, certificate, number)
            more = memory_kib(pid) - before
        finally:
            await endpoint.close(0, "")
            endpoint.stop()
    assert welcomed > 0.9 * REST
    assert more < REST, f"{more} KiB more after {REST} peers"
