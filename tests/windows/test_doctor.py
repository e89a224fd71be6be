"""`softlan doctor` on Windows, as far as Wine goes: no TAP adapter here, the relay and its room over real sockets."""

import contextlib
import json
import os
import signal
import subprocess
import sys

import pytest


@contextlib.contextmanager
def running_relay(directory):
    """Run a relay of this machine's own, on loopback; gives where it listens, and its pin."""
    command = [sys.executable, "-m", "softlan.relay", "--listen", "127.0.0.1:0", "--log-format", "json"]
    environment = {**os.environ, "SOFTLAN_RUNTIME_DIR": str(directory)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            told = next(e for e in map(json.loads, process.stderr) if e["event"] == "relay.listening")
            yield told["address"], told["pin"]
        finally:
            process.send_signal(signal.SIGTERM)


@pytest.fixture(scope="module")
def found(wine, tmp_path_factory):
    """What the doctor found, by line."""
    with running_relay(tmp_path_factory.mktemp("relay")) as (relay, pin):
        options = ["--relay", relay, "--pin", pin, "--room", "WINE", "--seconds", "500ms", "--json"]
        done = wine.python("-m", "softlan", "doctor", *options, within=120)
    assert "Traceback" not in done.stdout
    report = json.loads(done.stdout)
    assert report["worst"] == "bad"
    assert done.returncode == 1
    return {finding["check"]: finding for finding in report["findings"]}


def test_a_missing_adapter_is_named(found):
    assert found["adapter"]["grade"] == "bad"
    assert found["adapter"]["says"] == "this machine has no TAP-Windows6 adapter"
    assert "tapctl create" in found["adapter"]["hint"]


@pytest.mark.parametrize("check", ["name", "udp", "certificate", "room"])
def test_what_works_is_good(found, check):
    assert found[check]["grade"] == "good", found[check]


def test_frames_come_through_the_room(found):
    assert found["echo"]["facts"]["came"] > 0


def test_aioquic_is_asked_for(found):
    assert found["handshake"]["grade"] == "skipped"
    assert found["handshake"]["hint"].endswith('-m pip install "softlan[doctor]"')


def test_the_path_is_measured_or_left_out_in_words(found):
    assert found["mtu"]["grade"] in ("good", "skipped")
    assert found["line"]["facts"]["sent"] == 20


def test_an_adapter_that_is_there_is_opened(tap_wine):
    done = tap_wine.python("-m", "softlan.doctor", "--json", within=120)
    found = {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert found["adapter"]["grade"] == "good", found
    assert "can be opened: TAP-Windows6 9." in found["adapter"]["says"]
    # What Wine has of the network list and the firewall is told, whatever it is.
    assert {"profile", "firewall"} <= set(found)
