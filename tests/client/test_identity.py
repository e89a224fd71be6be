"""The identity of a client or gateway: made, kept, held."""

import json
import logging
import re
import stat
import subprocess
import sys

import pytest

from softlan._core import Mac
from softlan.client.identity import Identity, default_identity_path, hold_identity
from softlan.control.fields import Role
from softlan.errors import ConfigError, SoftlanError
from softlan.texts import MAX_SAID

MAC = "02:00:5e:10:00:01"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "softlan" / "identity.json"


def write(path, **changes):
    content = {"version": 1, "mac": MAC, "secret": "ab" * 32} | changes
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not ...}))
    path.chmod(0o600)


def test_it_is_made_once(path, caplog):
    with caplog.at_level(logging.INFO), hold_identity(path, Role.CLIENT) as held:
        first = held.identity
    assert first.mac.is_locally_administered
    assert not first.mac.is_group
    assert str(first.mac) in str([getattr(record, "fields", None) for record in caplog.records])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with hold_identity(path, Role.CLIENT) as held:
        assert held.identity == first


def test_its_file_is_as_documented(path):
    with hold_identity(path, Role.CLIENT) as held:
        content = json.loads(path.read_text())
        assert content == {"version": 1, "mac": str(held.identity.mac), "secret": held.identity.secret.hex()}
    assert re.fullmatch("[0-9a-f]{64}", content["secret"])


def test_a_gateway_has_no_mac(path):
    with hold_identity(path, Role.GATEWAY) as held:
        assert held.identity.mac is None
    assert set(json.loads(path.read_text())) == {"version", "secret"}


def test_two_are_not_alike(tmp_path):
    identities = []
    for name in "ab":
        with hold_identity(tmp_path / name, Role.CLIENT) as held:
            identities.append(held.identity)
    assert identities[0].mac != identities[1].mac
    assert identities[0].secret != identities[1].secret


def test_a_virtual_mac_is_for_this_run_only(path):
    write(path)
    with hold_identity(path, Role.CLIENT, virtual_mac=Mac("02:00:00:00:00:99")) as held:
        assert held.identity.mac == Mac("02:00:00:00:00:99")
    with hold_identity(path, Role.CLIENT) as held:
        assert held.identity.mac == Mac(MAC)


def test_a_virtual_mac_must_be_a_clients(path):
    with pytest.raises(ConfigError, match="01:00:00:00:00:00"):
        hold_identity(path, Role.CLIENT, virtual_mac=Mac("01:00:00:00:00:00"))
    assert not path.exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": 2}, "version 2"),
        ({"version": 10**4000}, "version 1000"),
        ({"version": ...}, "version"),
        ({"mac": ...}, "mac"),
        ({"mac": "01:00:00:00:00:01"}, "mac"),
        ({"mac": "nonsense"}, "mac"),
        ({"secret": ...}, "secret"),
        ({"secret": "ab"}, "secret"),
        ({"secret": "x" * 64}, "secret"),
    ],
)
def test_a_broken_file_is_explained_and_left_alone(path, changes, words):
    write(path, **changes)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=words) as caught:
        hold_identity(path, Role.CLIENT)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + MAX_SAID + 40
    assert caught.value.hint
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"version": 1', b"[" * 5000])
def test_a_file_of_something_else_is_explained(path, content):
    write(path)
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="broken"):
        hold_identity(path, Role.CLIENT)


def test_the_lock_is_free_again_after_a_failure(path):
    write(path, version=2)
    with pytest.raises(ConfigError):
        hold_identity(path, Role.CLIENT)
    write(path)
    hold_identity(path, Role.CLIENT).close()


def test_an_exposed_secret_is_warned_of(path, caplog):
    write(path)
    path.chmod(0o644)
    with hold_identity(path, Role.CLIENT):
        assert "chmod 600" in caplog.text


def test_a_second_process_has_the_mac_but_cannot_take_the_first_ones_place(path):
    with hold_identity(path, Role.CLIENT) as first, hold_identity(path, Role.CLIENT) as second:
        assert (first.shared, second.shared) == (False, True)
        assert second.identity.mac == first.identity.mac
        assert second.identity.secret != first.identity.secret
    first.close()
    with hold_identity(path, Role.CLIENT) as third:
        assert (third.shared, third.identity) == (False, first.identity)


def test_a_second_process_waits_for_no_half_made_file(path):
    held = hold_identity(path, Role.CLIENT)
    path.unlink()
    with pytest.raises(SoftlanError, match="just making") as caught:
        hold_identity(path, Role.CLIENT)
    assert "--identity" in caught.value.hint
    held.close()


HOLD_AND_WAIT = """
import sys
from pathlib import Path
from softlan.client.identity import hold_identity
from softlan.control.fields import Role

held = hold_identity(Path(sys.argv[1]), Role.CLIENT)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_killed_process_lets_go(path):
    command = [sys.executable, "-c", HOLD_AND_WAIT, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout.readline() == b"held\n"
            with hold_identity(path, Role.CLIENT) as held:
                assert held.shared
        finally:
            other.kill()
    with hold_identity(path, Role.CLIENT) as held:
        assert not held.shared


def test_a_place_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file") as caught:
        hold_identity(tmp_path / "file" / "identity.json", Role.CLIENT)
    assert "--identity" in caught.value.hint


# The resume key


def test_the_resume_key_is_steady_and_hidden():
    identity = Identity(None, b"s" * 32)
    key = identity.resume_key("relay.example", "ROOM1")
    assert key == Identity(None, b"s" * 32).resume_key("Relay.Example", "room1")
    assert re.fullmatch("[0-9a-f]{64}", key)
    assert identity.secret.hex() not in key
    assert "ssss" not in repr(identity)


def test_the_resume_key_serves_one_room_of_one_relay_only():
    names = [("relay.example", "ROOM1"), ("relay.example", "ROOM2"), ("other.example", "ROOM1")]
    keys = {Identity(None, b"s" * 32).resume_key(*name) for name in names}
    keys.add(Identity(None, b"t" * 32).resume_key(*names[0]))
    assert len(keys) == 4


# Where it is


def test_the_default_place(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    expected = tmp_path / ".config" / "softlan" / "lanparty-client-identity.json"
    assert default_identity_path(Role.CLIENT) == expected
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert default_identity_path(Role.CLIENT) == expected
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    assert (
        default_identity_path(Role.GATEWAY) == tmp_path / "xdg" / "softlan" / "lanparty-gateway-identity.json"
    )
