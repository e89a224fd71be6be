"""A look at a real relay through aioquic, and all of the doctor's ways to a relay over IPv6, on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from softlan.doctor import knock
from softlan.doctor.quic import look
from softlan.knock import Outcome
from softlan.lab.testing import skip
from softlan.trust import parse_pin, spki_sha256


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as trial:
        trial.bind(("::1", 0))
        return True
    return False


HOSTS = ["127.0.0.1", "::1"]


@pytest.fixture(scope="module", params=HOSTS)
def relay(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, int, str]]:
    """Where a relay listens, and its pin."""
    host: str = request.param
    if ":" in host and not has_ipv6():
        skip("no IPv6 here")
    listen = f"[{host}]:0" if ":" in host else f"{host}:0"
    directory = tmp_path_factory.mktemp("relay")
    command = [sys.executable, "-m", "softlan.relay", "--listen", listen, "--log-format", "json"]
    environment = {**os.environ, "SOFTLAN_RUNTIME_DIR": str(directory)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        try:
            told = next(e for e in map(json.loads, process.stderr) if e["event"] == "relay.listening")
            yield host, int(told["address"].rpartition(":")[2]), told["pin"]
        finally:
            process.send_signal(signal.SIGTERM)


async def test_a_look(relay: tuple[str, int, str]) -> None:
    host, port, pin = relay
    seen = await look((host, port), "whatever.example")
    assert (seen.alpn, seen.version, seen.protocols, seen.code) == ("softlan/1", 1, (1,), None)
    assert seen.datagrams
    assert seen.certificate is not None
    assert bytes.fromhex(spki_sha256(seen.certificate)) == parse_pin(pin)


def test_knocks(relay: tuple[str, int, str]) -> None:
    place = relay[:2]
    found = knock.reach(place)
    assert found.outcome is Outcome.ANSWERED
    assert 1 in found.versions
    headers = 48 if ":" in place[0] else 28
    assert knock.measure_mtu(place, rtt_s=0.001) == knock.PathMtu(knock.FULL_PAYLOAD, headers)
    assert all(trip is not None for trip in knock.measure_line(place, 0.1).trips)


def test_all_together(relay: tuple[str, int, str], tmp_path: Path) -> None:
    host, port, pin = relay
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    command = [sys.executable, "-m", "softlan.doctor", "--relay", where, "--pin", pin, "--room", "TRIAL"]
    environment = {**os.environ, "SOFTLAN_RUNTIME_DIR": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    done = subprocess.run(
        [*command, "--seconds", "0", "--json"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        timeout=60,
    )
    assert not done.stderr
    found = {finding["check"]: finding["grade"] for finding in json.loads(done.stdout)["findings"]}
    # Whether an adapter can be made, and how fast frames come through, depends on the machine.
    assert {
        check: grade for check, grade in found.items() if check not in ("adapter", "echo")
    } == dict.fromkeys(
        ("name", "udp", "mtu", "handshake", "certificate", "clock", "protocol", "room"), "good"
    )


async def test_nobody_there() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        seen = await look(silent.getsockname(), "whatever.example", within_s=0.3)
    assert (seen.alpn, seen.code) == (None, None)
