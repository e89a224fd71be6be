"""Configuration files: what is read, what is refused with file, line and key, and which value counts."""

import contextlib
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from softlan.cli import main
from softlan.client.cli import client, join
from softlan.client.identity import Identity
from softlan.control.keys import parse_key
from softlan.control.messages import Role
from softlan.errors import ConfigError
from softlan.gateway.cli import gateway
from softlan.parts import session_config
from softlan.relay.certificates import make_dev_certificate
from softlan.relay.cli import relay
from softlan.settings import default_files, key_lines, read_settings, settable_options
from softlan.texts import MAX_SAID
from softlan.trust import public_key_pin

PARTS = {"relay": relay, "gateway": gateway, "client": client}
LINK = "softlan://relay.example.org/PARTY1"


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch, tmp_path):
    monkeypatch.setattr("softlan.command.first_default_file", lambda _part: None)
    for name in [name for name in os.environ if name.startswith("SOFTLAN_")]:
        monkeypatch.delenv(name)


def problems(tmp_path: Path, text: str, part: str = "relay") -> list[str]:
    file = tmp_path / f"{part}.toml"
    file.write_text(text)
    found = read_settings(file, PARTS[part]).problems
    return [str(problem).removeprefix(f"{tmp_path}/") for problem in found]


def run(*arguments: str) -> click.testing.Result:
    return CliRunner().invoke(main, arguments)


# Where keys are ------------------------------------------------------------------------------------------------------

TEXT = '''# a comment with key = 1
listen = "443/udp" # listen = 2
allow-room = [
    "A", # room = 3
    "B]",
]
"max-rooms" = 5
long = """
inner = 1
\\"""
still = 2
""" # behind
literal = \'\'\'
\\\'\'
x = 1\'\'\'\'
inline = { a = 1, b = [ 2,
3 ] }
dotted.key = 1
odd = "]\\"[#"
[table]
listen = 7
[[room]]
'''


def test_lines_of_keys():
    assert set(tomllib.loads(TEXT)) == set(key_lines(TEXT))
    assert key_lines(TEXT) == {
        "listen": 2,
        "allow-room": 3,
        "max-rooms": 7,
        "long": 8,
        "literal": 13,
        "inline": 16,
        "dotted": 18,
        "odd": 19,
        "table": 20,
        "room": 22,
    }


words = st.text(st.sampled_from("ab=#[]{}'\"\\ \n,.1"), max_size=12)


def _printed(value: object) -> str:
    """Print a value as TOML in one of the ways there are."""
    if isinstance(value, list):
        return "[\n" + "".join(f"  {_printed(item)}, # x = ]\n" for item in value) + "]"
    if isinstance(value, str) and "\n" in value:
        inner = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"""\n{inner}"""'
    return json.dumps(value)


values = st.recursive(
    words | st.integers(0, 99) | st.booleans(), lambda inner: st.lists(inner, max_size=3), max_leaves=6
)


@given(st.dictionaries(st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True), values, max_size=6))
def test_lines_of_keys_are_found_whatever_the_values_hold(content):
    text, expected = "", {}
    for key, value in content.items():
        expected[key] = text.count("\n") + 1
        text += f"{key} = {_printed(value)}\n\n"
    assert tomllib.loads(text) == content
    assert key_lines(text) == expected


@given(st.text(st.sampled_from("ab=#[]{}'\"\\ \n,.1"), max_size=60))
def test_lines_of_keys_agree_with_the_parser_on_whatever_it_takes(text):
    with contextlib.suppress(tomllib.TOMLDecodeError):
        content = tomllib.loads(text)
        found = key_lines(text)
        # Keys with escapes or blanks in quotes may be missed, none is made up.
        assert {key for key in content if key.isalnum()} <= set(found) <= set(content)


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\nmax_rooms = 1", "relay.toml:2: max_rooms: write it with dashes: max-rooms"),
        ("max-room = 1", "relay.toml:1: max-room: no such option; did you mean max-rooms?"),
        ("zebra = 1", "relay.toml:1: zebra: no such option"),
        ("config = 'x'", "relay.toml:1: config: no such option"),
        ('max-rooms = "7"', "relay.toml:1: max-rooms: expected a whole number, got text"),
        ("max-rooms = true", "relay.toml:1: max-rooms: expected a whole number, got true"),
        ("max-rooms = 7.5", "relay.toml:1: max-rooms: expected a whole number, got the number 7.5"),
        ("max-rooms = 0", "relay.toml:1: max-rooms: 0 is not in the range"),
        ("listen = 443", "relay.toml:1: listen: expected text in quotes, got the number 443"),
        ("listen = '443/tcp'", "QUIC runs over UDP; write 443/udp"),
        (
            "idle-timeout = false",
            "relay.toml:1: idle-timeout: expected a time, like 2.5 or '500ms', got false",
        ),
        ("idle-timeout = 'soon'", "'soon' is not a time"),
        ("congestion = 'reno'", "relay.toml:1: congestion: 'reno' is not one of"),
        ("allow-room = 'A'", 'relay.toml:1: allow-room: expected a list, like ["A"], got text'),
        ("allow-room = ['A', 7]", "relay.toml:1: allow-room: expected text in quotes, got the number 7"),
        ("allow-room = ['A', 'B C']", "'B C' cannot be a room"),
        ("[relay]\nlisten = '443/udp'", "relay.toml:1: relay: there are no tables in this file"),
        ("listen = 1979-05-27", "got a date or time"),
        ("a = 1\nb =", "relay.toml:2: not TOML: Invalid value"),
        ("a = [\n\n", "relay.toml:1: not TOML"),
        ("a = ['\x0b", "relay.toml:1: not TOML"),
        ("a = '\u2028\x85\x0b", "relay.toml:1: not TOML"),
        ("a = 1\na = 2", "not TOML: Cannot overwrite a value"),
    ],
)
def test_wrong_files(tmp_path, text, expected):
    (found,) = problems(tmp_path, text)
    assert expected in found


def test_every_problem_is_told_in_the_order_of_the_file(tmp_path):
    found = problems(tmp_path, "max-rooms = 'x'\nlisten = '443/udp'\n\nzebra = 1\nmax_peers = 2\n")
    assert [line.split(":")[1] for line in found] == ["1", "4", "5"]


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xfe",
        b"x = 1\n\xc3\x28",
        b"[" * 20_000,
        b"#" * (2 << 20),
        b"frame-log-sample = " + b"9" * 5000,
        b"frame-log-sample = 0x" + b"f" * 5000,
        b"allow-room = 0x" + b"f" * 5000,
        b'listen = "443/udp\\u0000"',
        b'cert = "a\\u0000b"',
    ],
)
def test_files_that_are_no_settings(tmp_path, data):
    file = tmp_path / "relay.toml"
    file.write_bytes(data)
    (problem,) = read_settings(file, relay).problems
    assert str(problem).startswith(str(file))


@pytest.mark.parametrize(
    "text",
    ['"\\u001b[2J" = 1', '"' + "a" * 5000 + '" = 1', "page = " + "9" * 4000, 'listen = "' + "a" * 5000 + '"'],
)
def test_a_problem_is_told_in_a_few_printable_words(tmp_path, text):
    (said,) = problems(tmp_path, text)
    assert said.isprintable()
    assert len(said) < len(str(tmp_path)) + 2 * MAX_SAID


def test_a_file_that_cannot_be_read(tmp_path):
    (problem,) = read_settings(tmp_path / "none.toml", relay).problems
    assert "cannot read it" in str(problem)
    (problem,) = read_settings(tmp_path, relay).problems
    assert "cannot read it" in str(problem)


@given(st.binary(max_size=200))
def test_no_file_is_a_crash(tmp_path_factory, data):
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_bytes(data)
    read_settings(file, relay)


# Which value counts ---------------------------------------------------------------------------------------------------


def shown(*arguments: str) -> dict[str, tuple[object, str]]:
    result = run("config", "show", "--json", *arguments)
    assert result.exit_code == 0, result.output
    return {entry["option"]: (entry["value"], entry["from"]) for entry in json.loads(result.output)}


def test_flags_over_environment_over_file_over_default(tmp_path, monkeypatch):
    file = tmp_path / "relay.toml"
    file.write_text("# mine\nmax-rooms = 1\nmax-peers = 1\nmax-peers-per-room = 1\nidle-timeout = 3\n")
    monkeypatch.setenv("SOFTLAN_RELAY_MAX_PEERS", "2")
    monkeypatch.setenv("SOFTLAN_RELAY_MAX_PEERS_PER_ROOM", "2")
    told = shown("relay", "--config", str(file), "--max-peers-per-room", "3")
    assert told["max-rooms"] == (1, f"{file}:2")
    assert told["max-peers"] == (2, "SOFTLAN_RELAY_MAX_PEERS")
    assert told["max-peers-per-room"] == (3, "command line")
    assert told["idle-timeout"] == (3, f"{file}:5")
    assert told["room-mtu"] == (1500, "default")
    assert told["cert"] == (None, "not set")
    monkeypatch.setenv("SOFTLAN_RELAY_CONFIG", str(file))
    assert shown("relay")["max-rooms"] == (1, f"{file}:2")


@pytest.mark.parametrize(
    ("part", "options"),
    [
        ("relay", ["--max-rooms", "7", "--allow-room", "a", "--limit-total", "1mbit", "--key", "relay.key"]),
        ("client", [LINK, "--identity", "id.json", "--relay-ca-cert", "../relay.der"]),
        ("gateway", ["--config", "gateway.toml", LINK]),
    ],
)
def test_what_show_prints_is_a_file_that_means_the_same(monkeypatch, tmp_path, part, options):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    monkeypatch.chdir(here)
    (here / "gateway.toml").write_text("interface = 'eth0'\nidentity = 'id.json'\n")
    first = run("config", "show", part, *options)
    file = there / f"{part}.toml"
    file.write_text(first.output)
    assert not read_settings(file, PARTS[part]).problems
    again = run("config", "show", part, "--config", str(file))
    strip = lambda text: [line.split("#")[0].strip() for line in text.splitlines()]  # noqa: E731
    assert strip(again.output) == strip(first.output)


def test_what_is_not_printable_is_shown_spelt_out(tmp_path):
    file = tmp_path / "relay.toml"
    file.write_text('page = "a\\u007f\\u202e\\U000e0001b"')
    printed = run("config", "show", "relay", "--config", str(file)).output
    file.write_text(printed)
    assert 'page = "a\\u007f\\u202e\\U000e0001b"' in printed
    assert shown("relay", "--config", str(file))["page"][0] == "a\x7f\u202e\U000e0001b"


def test_a_secret_that_is_not_shown_is_no_setting(tmp_path):
    file = tmp_path / "client.toml"
    file.write_text(run("config", "show", "client", f"{LINK}?key=topsecret").output)
    assert "# key = (not shown)" in file.read_text()
    settings = read_settings(file, client)
    assert not settings.problems
    assert {"key", "invite"}.isdisjoint(settings.values)
    assert shown("client", f"{LINK}?key=topsecret")["key"] == ("(not shown)", "the invite")


def test_the_variable_that_a_value_came_from_is_named(monkeypatch):
    monkeypatch.setenv("SOFTLAN_KEY", "topsecret")
    assert shown("client", LINK)["key"] == ("(not shown)", "SOFTLAN_KEY")
    monkeypatch.setenv("SOFTLAN_KEY", "")
    monkeypatch.setenv("SOFTLAN_CLIENT_KEY", "topsecret")
    assert shown("client", LINK)["key"] == ("(not shown)", "SOFTLAN_CLIENT_KEY")


def test_an_invite_answers_and_options_beside_it_count_more(tmp_path, monkeypatch):
    assert shown("client", LINK)["relay"] == ("relay.example.org:443", "the invite")
    assert shown("gateway", LINK)["room"] == ("PARTY1", "the invite")
    told = shown("client", LINK, "--relay", "192.0.2.1:1")
    assert told["relay"] == ("192.0.2.1:1", "command line")
    assert told["room"] == ("PARTY1", "the invite")
    # It is the same relay, by another way.
    assert told["server-name"] == ("relay.example.org", "the invite")
    assert shown("client", LINK, "--server-name", "other")["server-name"][0] == "other"
    # A pasted invite counts more than the environment and the file; one in the file less than the environment.
    monkeypatch.setenv("SOFTLAN_CLIENT_ROOM", "OTHER")
    assert shown("client", LINK)["room"] == ("PARTY1", "the invite")
    file = tmp_path / "client.toml"
    file.write_text(f'invite = "{LINK}"\nserver-name = "other"\n')
    told = shown("client", "--config", str(file))
    assert told["room"] == ("OTHER", "SOFTLAN_CLIENT_ROOM")
    assert told["relay"] == ("relay.example.org:443", "the invite")
    assert told["server-name"][0] == "other"
    told = shown("client", "--config", str(file), "softlan://b.example/C")
    assert (told["relay"][0], told["server-name"][0]) == ("b.example:443", "b.example")


def test_join_reads_the_clients_file_and_the_pasted_invite_counts_more(tmp_path):
    file = tmp_path / "client.toml"
    file.write_text(f'invite = "{LINK}?key=topsecret"\ntap = "party0"\n')
    pasted = join.make_context("join", ["--config", str(file), "softlan://b.example/C"]).params
    assert (str(pasted["relay"]), pasted["room"], pasted["key"]) == ("b.example:443", "C", None)
    assert pasted["tap"] == "party0"
    assert "--invite" not in run("join", "--help").output


def test_who_gives_neither_invite_nor_options_is_told_of_both():
    ended = run("gateway", "--interface", "eth0")
    assert ended.exit_code == 2
    assert "Missing option '--relay'. Paste an invite" in ended.output
    ended = run("join", "softlan://relay.example.org/A&pin=1")
    assert (ended.exit_code, "the invite's room" in ended.output) == (2, True)


# Options that exclude each other --------------------------------------------------------------------------------------

PIN = "A" * 43
PINNED = f"{LINK}?pin={PIN}&key=invited-key"


@pytest.fixture
def session_of(tmp_path):
    """What the client would join with, by a file's text and its arguments, with a certificate and a key file beside it."""
    (tmp_path / "relay.der").write_bytes(make_dev_certificate("relay.test").chain[0])
    (tmp_path / "room.key").write_text("key in a file\n")

    def read(text, *arguments):
        file = tmp_path / "client.toml"
        file.write_text(text)
        arguments = [a.replace("DIR", str(tmp_path)) for a in arguments]
        names = ("relay", "server_name", "relay_ca_cert", "room", "congestion", "pins", "key", "key_file")
        with client.make_context(
            "client", ["--config", str(file), *arguments], auto_envvar_prefix="SOFTLAN_CLIENT"
        ) as ctx:
            given = {name: ctx.params[name] for name in names}
            return session_config(role=Role.CLIENT, identity=Identity(None, bytes(32)), **given)

    return read


CERTIFICATE, KEY_FILE = ("--relay-ca-cert", "DIR/relay.der"), ("--key-file", "DIR/room.key")


@pytest.mark.parametrize(
    ("text", "arguments", "by_pin"),
    [
        ("relay-ca-cert = 'relay.der'", [PINNED], True),
        ("relay-ca-cert = 'relay.der'", [LINK, "--pin", PIN], True),
        (f"pin = ['{PIN}']", [LINK, *CERTIFICATE], False),
        (f"invite = '{PINNED}'", CERTIFICATE, False),
        (f"invite = '{PINNED}'\nrelay-ca-cert = 'relay.der'", [], False),
        ("", [PINNED, *CERTIFICATE], False),
        ("", [LINK, *CERTIFICATE, "--pin", PIN], None),
        (f"relay-ca-cert = 'relay.der'\npin = ['{PIN}']", [LINK], None),
    ],
)
def test_a_pin_or_a_certificate_by_what_counts_more(session_of, text, arguments, by_pin):
    if by_pin is None:
        with pytest.raises(ConfigError, match="--pin and --relay-ca-cert exclude each other"):
            session_of(text, *arguments)
    else:
        found = session_of(text, *arguments)
        assert (bool(found.pins), bool(found.trusted()), found.pinned) == (by_pin, not by_pin, True)


@pytest.mark.parametrize(
    ("text", "arguments", "key"),
    [
        ("key = 'typed key'", [LINK, *KEY_FILE], "key in a file"),
        ("key-file = 'room.key'", [LINK, "--key", "typed key"], "typed key"),
        ("key-file = 'room.key'", [PINNED], "invited-key"),
        ("", [PINNED, *KEY_FILE], "key in a file"),
        (f"invite = '{PINNED}'\nkey-file = 'room.key'", [], "key in a file"),
        ("", ["SOFTLAN_KEY=key of all", LINK, *KEY_FILE], "key in a file"),
        ("key-file = 'room.key'", ["SOFTLAN_KEY=key of all", LINK], "key of all"),
        ("", [LINK, "--key", "typed key", *KEY_FILE], None),
        ("key = 'typed key'\nkey-file = 'room.key'", [LINK], None),
    ],
)
def test_a_key_by_what_counts_more(session_of, monkeypatch, text, arguments, key):
    if arguments and arguments[0].startswith("SOFTLAN_KEY="):
        monkeypatch.setenv(*arguments[0].split("="))
        arguments = arguments[1:]
    if key is None:
        with pytest.raises(ConfigError, match="--key and --key-file exclude each other"):
            session_of(text, *arguments)
    else:
        assert session_of(text, *arguments).key == parse_key(key)


def test_a_key_file_as_windows_editors_write_it(session_of, tmp_path):
    (tmp_path / "room.key").write_text("key in a file\r\n", encoding="utf-8-sig")
    assert session_of("", LINK, "--key-file", str(tmp_path / "room.key")).key == parse_key("key in a file")


AT_HOME = "relay = 'home.example:443'\n"
OTHERS = "softlan://other.example/PARTY1"
MUELLERS = "softlan://xn--mller-kva.example/PARTY1"
SECRETS = f"pin = ['{PIN}']\nkey = 'home key'\n"
FILES = "relay-ca-cert = 'relay.der'\nkey-file = 'room.key'\n"


@pytest.mark.parametrize(
    ("text", "invite", "is_used"),
    [
        (AT_HOME + SECRETS, OTHERS, False),
        (AT_HOME + FILES, OTHERS, False),
        ("invite = 'softlan://home.example/A'\n" + FILES, OTHERS, False),
        (f"invite = 'softlan://home.example/A?pin={PIN}&key=home%20key'\n", OTHERS, False),
        ("relay = '192.0.2.1:443'\nserver-name = 'other.example'\n" + SECRETS, OTHERS, True),
        (AT_HOME + SECRETS, "softlan://HOME.example:4433/A", True),
        (AT_HOME + FILES, "softlan://home.example/A", True),
        (SECRETS, OTHERS, True),
        (FILES, OTHERS, True),
        ("relay = '192.0.2.1:443'\nserver-name = 'm\u00fcller.example'\n" + SECRETS, MUELLERS, True),
        ("relay = '192.0.2.1:443'\nserver-name = 'M\u00dcLLER.example.'\n" + FILES, MUELLERS, True),
    ],
)
def test_what_is_for_one_relay_is_not_for_that_of_a_pasted_invite(session_of, capsys, text, invite, is_used):
    found = session_of(text, invite)
    assert (found.pinned, found.key is not None) == (is_used, is_used)
    assert ("is for home.example, and not used for other.example" in capsys.readouterr().err) == (
        not is_used and "pin=" not in text
    )


SAME_NAME = "softlan://home.example:9999/PARTY1"
OTHER_PIN = "B" * 42 + "A"
NO_PIN = AT_HOME + "key = 'home key'\n"


@pytest.mark.parametrize(
    ("text", "invite", "is_used"),
    [
        (AT_HOME + SECRETS, SAME_NAME, True),
        (AT_HOME + SECRETS, f"{SAME_NAME}?pin={PIN}", True),
        (AT_HOME + SECRETS, f"softlan://192.0.2.1/PARTY1?pin={PIN}", True),
        (AT_HOME + SECRETS, f"{SAME_NAME}?pin={OTHER_PIN}", False),
        (AT_HOME + SECRETS, f"softlan://home.example/PARTY1?pin={OTHER_PIN}", False),
        # Whoever has any of an invite's pins is believed.
        (AT_HOME + SECRETS, f"{SAME_NAME}?pin={PIN}&pin={OTHER_PIN}", False),
        (f"invite = 'softlan://home.example/A?pin={PIN}&pin={OTHER_PIN}'\nkey = 'home key'", SAME_NAME, True),
        (
            f"invite = 'softlan://home.example/A?pin={PIN}&pin={OTHER_PIN}'\nkey = 'home key'",
            f"{SAME_NAME}?pin={OTHER_PIN}",
            True,
        ),
        # An authority's certificate is for the name, whatever the port.
        (NO_PIN, SAME_NAME, True),
        (NO_PIN, f"{SAME_NAME}?pin={PIN}", False),
        (NO_PIN, f"softlan://home.example/PARTY1?pin={PIN}", False),
    ],
)
def test_a_relay_is_the_same_by_its_pins_or_else_by_its_name(session_of, capsys, text, invite, is_used):
    assert (session_of(text, invite).key == parse_key("home key")) is is_used
    assert capsys.readouterr().err == (
        ""
        if is_used
        else "note: the key in your settings is not used: the invite, though for home.example, has a pin that is not in them;"
        " if you trust it with the key, give --key as well\n"
    )


def test_a_certificate_in_the_settings_says_its_pin(session_of, tmp_path, capsys):
    """So that a relay with a certificate of its own is known by an invite, which has the pin."""
    pin = public_key_pin((tmp_path / "relay.der").read_bytes())
    assert session_of(AT_HOME + FILES, f"{SAME_NAME}?pin={pin}").key == parse_key("key in a file")
    assert not capsys.readouterr().err
    assert session_of(AT_HOME + FILES, f"{SAME_NAME}?pin={OTHER_PIN}").key is None
    assert "give --key-file as well" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["RELAY", "INVITE"])
def test_what_is_not_set_is_told_of_no_relay(session_of, monkeypatch, capsys, name):
    monkeypatch.setenv(f"SOFTLAN_CLIENT_{name}", "home.example:443" if name == "RELAY" else LINK)
    session_of("", OTHERS)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("name", ["RELAY", "SERVER_NAME"])
def test_settings_for_a_relay_that_cannot_be_read_are_for_no_other(session_of, monkeypatch, capsys, name):
    monkeypatch.setenv("SOFTLAN_KEY", "home key")
    monkeypatch.setenv(f"SOFTLAN_CLIENT_{name}", "home.example:443:1")
    assert session_of("", OTHERS).key is None
    assert (
        "is for a relay whose name cannot be read, and not used for other.example" in capsys.readouterr().err
    )


def test_what_the_environment_says_of_its_relay_is_for_no_other(session_of, monkeypatch):
    monkeypatch.setenv("SOFTLAN_KEY", "home key")
    assert session_of(AT_HOME, OTHERS).key == parse_key("home key")
    monkeypatch.setenv("SOFTLAN_CLIENT_RELAY", "home.example:443")
    assert session_of(AT_HOME, OTHERS).key is None
    assert session_of(AT_HOME, "softlan://home.example/A").key == parse_key("home key")
    assert session_of(AT_HOME, OTHERS, "--key", "typed key").key == parse_key("typed key")


def test_an_invite_with_its_own_key_and_pin_needs_no_words_about_the_files(session_of, capsys):
    found = session_of(AT_HOME + FILES, f"{OTHERS}?pin={PIN}&key=invited-key")
    assert (len(found.pins), found.key) == (1, parse_key("invited-key"))
    assert not capsys.readouterr().err


def test_relative_paths_are_relative_to_the_file(tmp_path):
    file = tmp_path / "relay.toml"
    file.write_text('cert = "here.pem"\nkey = "/there.pem"\n')
    values = read_settings(file, relay).values
    assert values == {"cert": str(tmp_path / "here.pem"), "key": "/there.pem"}


def test_secrets_are_not_shown(tmp_path):
    file = tmp_path / "client.toml"
    file.write_text(f'invite = "{LINK}?key=topsecret"\n')
    result = run("config", "show", "client", "--config", str(file))
    assert "PARTY1" in result.output
    assert "topsecret" not in result.output


def test_default_files_are_the_users_then_the_systems(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert default_files("relay") == [tmp_path / "softlan" / "relay.toml", Path("/etc/softlan/relay.toml")]


# The commands ---------------------------------------------------------------------------------------------------------


def softlan(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "softlan", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
        timeout=60,
    )


def test_a_part_stops_at_a_wrong_file_and_names_the_line(tmp_path):
    file = tmp_path / "relay.toml"
    file.write_text("listen = '127.0.0.1:0'\nmax_rooms = 1\n")
    ended = softlan("relay", "--config", str(file))
    assert ended.returncode == 2
    assert ended.stderr == f"error: {file}:2: max_rooms: write it with dashes: max-rooms\n"


def test_a_default_file_is_found_and_can_be_done_without(tmp_path):
    (tmp_path / "softlan").mkdir()
    file = tmp_path / "softlan" / "relay.toml"
    file.write_text("zebra = 1\n")
    ended = softlan("relay", XDG_CONFIG_HOME=str(tmp_path))
    assert ended.returncode == 2
    assert f"error: {file}:1: zebra: no such option" in ended.stderr
    assert "hint:" in ended.stderr
    ended = softlan("config", "show", "relay", "--config", "/dev/null", XDG_CONFIG_HOME=str(tmp_path))
    assert ended.returncode == 0


def test_check(tmp_path):
    good = tmp_path / "my-gateway.toml"
    good.write_text("interface = 'eth0'\n")
    assert "good, 1 setting for the gateway" in run("config", "check", str(good)).output
    assert run("config", "check", str(good), "--part", "relay").exit_code == 2
    unnamed = tmp_path / "x.toml"
    unnamed.write_text("")
    unsaid = run("config", "check", str(unnamed))
    assert (unsaid.exit_code, "--part" in unsaid.output) == (2, True)
    assert run("config", "check", str(unnamed), "--part", "client").exit_code == 0


@pytest.mark.parametrize("part", PARTS)
def test_every_option_is_in_a_help_group(part):
    command = PARTS[part]
    grouped = {name for names in command.groups.values() for name in names}
    left = {option.name for option in settable_options(command).values()} - grouped
    assert not left, f"name them in HELP_GROUPS of {part}: {left}"
