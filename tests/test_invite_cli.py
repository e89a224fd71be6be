"""`softlan invite` beside real relays on loopback, and from options alone."""

import contextlib
import datetime
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from softlan import qr
from softlan.cli import main
from softlan.control.keys import Invite as IssuedKey
from softlan.control.keys import parse_key
from softlan.errors import RejectedError, SoftlanError
from softlan.invite import parse_invite
from softlan.observe.local import PartStatus

PIN = "A" * 43
ROOMS = '[[room]]\ncode = "OPEN1"\nopen = true\n[[room]]\ncode = "KEYED"\nkey = "correct horse battery"\n'


def softlan(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SOFTLAN_RUNTIME_DIR": str(directory), "SOFTLAN_RELAY_CONFIG": os.devnull}
    return subprocess.run(
        [sys.executable, "-m", "softlan", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=60,
    )


@contextlib.contextmanager
def running(directory: Path, *options: str, **environment: str) -> Iterator[list[dict[str, Any]]]:
    """A relay with this runtime directory, until it is stopped; gives what it logged up to its first invite."""
    base = [
        "relay",
        "--listen",
        "127.0.0.1:0",
        "--log-format",
        "json",
        "--public-host",
        "party.example.org:4433",
    ]
    told = {"SOFTLAN_RUNTIME_DIR": str(directory), "SOFTLAN_RELAY_CONFIG": os.devnull, **environment}
    part = subprocess.Popen(
        [sys.executable, "-m", "softlan", *base, *options],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **told},
    )
    try:
        assert part.stderr is not None
        said = [json.loads(part.stderr.readline())]
        while said[-1]["event"] != "invite.ready":
            said.append(json.loads(part.stderr.readline()))
        yield said
    finally:
        part.terminate()
        assert part.wait(30) == 0


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A relay with an open room and one with a key; gives its runtime directory."""
    directory = tmp_path_factory.mktemp("r")
    (directory / "rooms.toml").write_text(ROOMS)
    with running(directory, "--state", str(directory / "state"), "--rooms", str(directory / "rooms.toml")):
        yield directory


def test_an_open_room_needs_no_key(relay):
    made = softlan(relay, "invite", "open1")
    invite = parse_invite(made.stdout)
    assert (str(invite.relay), invite.room, invite.key) == ("party.example.org:4433", "OPEN1", None)
    assert len(invite.pins) == 1
    assert f'softlan join "{invite}"' in made.stderr
    assert "note:" not in made.stderr, "its certificate and its key are kept"


def test_a_room_with_a_key_gets_one_of_its_own(relay):
    made = softlan(
        relay, "invite", "keyed", "--expires", "2h", "--single-use", "--host", "other.example.org:1"
    )
    invite = parse_invite(made.stdout)
    assert str(invite.relay) == "other.example.org:1"
    assert isinstance(parse_key(invite.key), IssuedKey)
    assert "the first that uses it alone" in made.stderr
    told = json.loads(softlan(relay, "invite", "keyed", "--gateway", "--json").stdout)
    assert told["command"].startswith('softlan gateway "softlan://party.example.org:4433/KEYED?pin=')
    assert told["expires"] > 0


def test_in_the_directory_that_systemd_gives_the_certificate_is_kept_too(tmp_path):
    """`StateDirectory=` without --state: a second start has the same pin, and says nothing of invites that end."""
    pins = []
    for _ in range(2):
        with running(tmp_path, STATE_DIRECTORY=str(tmp_path / "state")) as said:
            pins += [line["pin"] for line in said if line["event"] == "relay.listening"]
            assert "invite.note" not in {line["event"] for line in said}
    assert pins[0] == pins[1]


def test_that_invites_end_with_the_relay_is_said_beside_any_address(tmp_path):
    with running(tmp_path):
        for more in ([], ["--host", "other.example.org"]):
            assert "made anew at each start" in softlan(tmp_path, "invite", "a", *more).stderr, more


NEEDED = [
    "relay",
    "pins",
    "all_pins",
    "certified_names",
    "address_notes",
    "notes",
    "rooms",
    "open_rooms",
    "only",
]


@pytest.mark.parametrize("missing", ["invite", *NEEDED])
def test_a_relay_of_a_former_version_is_to_be_restarted(monkeypatch, missing):
    """As between an upgrade and the restart that follows it."""
    told = {"relay": "party.example.org:4433", "rooms": {"A": True}, "open_rooms": False, "only": False}
    told = {name: told.get(name, []) for name in NEEDED}
    status = {"invite": told, "listen": "127.0.0.1:4433"}
    part = PartStatus(part="relay", pid=1, version="0.0.1", uptime_s=1, status=status)
    monkeypatch.setattr("softlan.invite_cli.read_all", lambda: [part])
    for host in ([], ["--host", "other.example.org"]):
        made = CliRunner().invoke(main, ["invite", "a", *host])
        assert made.exit_code == 0, made.output
    status.pop(missing, None)
    told.pop(missing, None)
    for host in ([], ["--host", "other.example.org"]):
        made = CliRunner().invoke(main, ["invite", "a", *host])
        assert made.exit_code == 1
        assert made.stderr == (
            "error: the relay that runs here (softlan 0.0.1) makes no invites\nhint: restart it\n"
        )


def certified(path: Path, name: str) -> Path:
    """A certificate of an authority for one name, in one file with its key."""
    key, of_authority = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    subject, issuer = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each)]) for each in (name, "CA"))
    start = datetime.datetime.now(datetime.UTC)
    end = start + datetime.timedelta(days=90)
    made = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), 1, start, end)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(of_authority, hashes.SHA256())
    )
    path.touch(mode=0o600)
    form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(key.private_bytes(*form) + made.public_bytes(Encoding.PEM))
    return path


def test_an_invite_for_another_address_of_the_relay_has_the_pin_it_needs(tmp_path):
    both = str(certified(tmp_path / "both.pem", "party.example.org"))
    with running(tmp_path, "--cert", both, "--key", both):
        assert parse_invite(softlan(tmp_path, "invite", "a").stdout).pins == ()
        made = softlan(tmp_path, "invite", "a", "--host", "other.example.org")
        assert len(parse_invite(made.stdout).pins) == 1
        assert "not for other.example.org" in made.stderr
    with running(tmp_path, "--cert", both, "--key", both, "--public-host", "192.0.2.1"):
        made = softlan(tmp_path, "invite", "a", "--host", "party.example.org")
        assert parse_invite(made.stdout).pins == ()
        assert "note:" not in made.stderr


def test_who_is_refused_for_good_ends_with_a_status_of_its_own(relay):
    """At which units stop; a relay that is not there yet is worth another try."""
    (part,) = json.loads(softlan(relay, "status", "--json").stdout)
    (pin,) = part["status"]["invite"]["pins"]
    entrance = ["--relay", part["status"]["listen"], "--pin", pin, "--config", os.devnull]
    identity = ["--identity", str(relay / "identity.json")]
    ended = softlan(relay, "client", *entrance, "--room", "KEYED", "--key", "incorrect horse", *identity)
    assert ended.returncode == RejectedError.FINAL, ended.stderr


def test_which_room_is_asked_where_there_are_several(relay):
    made = softlan(relay, "invite")
    assert (made.returncode, made.stdout) == (2, "")
    assert "KEYED, OPEN1" in made.stderr


def test_a_qr_code_is_drawn_below_the_line(relay):
    lines = softlan(relay, "invite", "open1", "--qr").stdout.splitlines()
    parse_invite(lines[0])
    assert len(lines) > 20
    assert set("".join(lines[1:])) <= set("█▀▄ ")


def test_from_options_alone(tmp_path):
    made = softlan(
        tmp_path, "invite", "a", "--host", "[2001:db8::1]:4433", "--pin", PIN, "--key", "two words"
    )
    assert made.stdout == f"softlan://[2001:db8::1]:4433/A?pin={PIN}&key=two%20words\n"


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["a"], 1, "no relay runs here"),
        (["a", "--pin", PIN], 2, "--host"),
        (["a", "--host", "h", "--pin", "short"], 2, "cut off"),
        (["a", "--host", "h", "--pin", PIN, "--single-use"], 2, "only the relay itself"),
        (["a b", "--host", "h", "--pin", PIN], 2, "cannot be a room"),
        (["a", "--host", "h h", "--pin", PIN], 2, "not a host name"),
    ],
)
def test_what_cannot_be(tmp_path, arguments, status, words):
    made = softlan(tmp_path, "invite", *arguments)
    assert (made.returncode, made.stdout) == (status, "")
    assert words in made.stderr


def test_without_the_library_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "segno", None)
    with pytest.raises(SoftlanError) as caught:
        qr.qr_code("softlan://h/A")
    assert "softlan[qr]" in (caught.value.hint or "")
    monkeypatch.undo()
    with pytest.raises(SoftlanError):
        qr.qr_code("x" * 5000)
