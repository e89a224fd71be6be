"""Rules of rooms: what a file says, and that a wrong one is named."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softlan.control.keys import Passphrase, issue
from softlan.errors import ConfigError
from softlan.relay.access_options import AccessChoices
from softlan.relay.rules import OPEN_RULES, RoomRule, load_rules, parse_rules
from softlan.texts import MAX_SAID


def no_file(name: str) -> str:
    raise AssertionError(f"{name} is not there")


def one(text: str) -> RoomRule:
    (rule,) = parse_rules("[[room]]\n" + text, no_file).rooms.values()
    return rule


def test_an_empty_file_lets_nobody_in_without_an_invite() -> None:
    rule = parse_rules("", no_file).of("PARTY1")
    assert (rule.open, rule.key, rule.gateways) == (False, None, "key")


def test_without_a_file_rooms_are_open() -> None:
    rule = OPEN_RULES.of("ANY")
    assert (rule.open, rule.gateways) == (True, "any-member")


def test_everything_a_room_can_say() -> None:
    rule = one(
        'code = "party1"\nkey = "correct horse"\ngateway-key = "battery staple"\nmax-peers = 4\n'
        'limit-total = "20mbit"\nlimit-unknown = "off"'
    )
    assert rule == RoomRule(
        code="PARTY1",
        key=Passphrase("correct horse"),
        gateway_key=Passphrase("battery staple"),
        gateways="key",
        max_peers=4,
        limits={"limit_total": 20_000_000, "limit_unknown": None},
    )


@pytest.mark.parametrize(
    ("text", "gateways"),
    [
        ('key = "correct horse"', "key"),
        ("open = true", "any-member"),
        ('open = true\ngateway-key = "battery staple"', "key"),
        ('open = true\ngateways = "none"', "none"),
        ('key = "correct horse"\ngateways = "any-member"', "any-member"),
        ("", "key"),
    ],
)
def test_who_may_be_gateway_when_nothing_or_something_is_said(text: str, gateways: str) -> None:
    assert one('code = "A"\n' + text).gateways == gateways


def test_rooms_that_are_not_listed() -> None:
    rules = parse_rules('open-rooms = true\nopen-room-gateways = "none"\n[[room]]\ncode = "A"', no_file)
    assert rules.of("B").open
    assert rules.of("B").gateways == "none"
    assert not rules.of("A").open


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("code = 3", "room 1: code"),
        ('code = "a b"', "code"),
        ('code = "A"\nkey = "short"', "room 1 ('A'): key"),
        ('code = "A"\nkey = ""', "key"),
        ('code = "A"\ngateway-key = "short"', "gateway-key"),
        ('code = "A"\nkey = "correct horse"\nopen = true', "open"),
        ('code = "A"\nkey = "correct horse"\nkey-file = "f"', "key"),
        ('code = "A"\ngateway-key = "battery staple"\ngateways = "none"', "gateways"),
        ('code = "A"\ngateways = "all"', "room 1: gateways"),
        ('code = "A"\nmax-peers = 0', "room 1: max-peers"),
        ('code = "A"\nlimit-total = "fast"', "limit-total"),
        ('code = "A"\npassword = "correct horse"', "password"),
        ('code = "A"\n[[room]]\ncode = "a"', "room 2: code"),
        ('key = "correct horse"', "room 1"),
        ('code = "A', "not TOML"),
    ],
)
def test_what_is_wrong_is_named(text: str, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_rules("[[room]]\n" + text, no_file)
    assert named in str(caught.value)
    assert "horse" not in str(caught.value)


def test_an_invite_is_no_rooms_key() -> None:
    key = issue(bytes(32), "A", expires=1)
    with pytest.raises(ConfigError, match="invite"):
        one(f'code = "A"\nkey = "{key}"')


def test_key_files_lie_beside_the_file(tmp_path: Path) -> None:
    rules = tmp_path / "rooms.toml"
    rules.write_text('[[room]]\ncode = "A"\nkey-file = "a.key"')
    with pytest.raises(ConfigError) as caught:
        load_rules(rules)
    assert "a.key" in str(caught.value)
    assert "rooms.toml" in str(caught.value)
    text = rules.read_text()
    for encoding in ("utf-8", "utf-8-sig"):
        rules.write_text(text, encoding=encoding)
        (tmp_path / "a.key").write_text("correct horse\n", encoding=encoding)
        assert load_rules(rules).of("A").key == Passphrase("correct horse")


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX's")
def test_keys_that_everybody_can_read_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rooms, key = tmp_path / "rooms.toml", tmp_path / "b.key"
    key.write_text("battery staple")
    for text, modes, told in (
        ('key = "correct horse"', (0o644, 0o600), [rooms]),
        ('key = "correct horse"', (0o640, 0o600), []),
        ('key-file = "b.key"', (0o644, 0o600), []),
        ('key-file = "b.key"', (0o644, 0o644), [key]),
        ('key = "correct horse"\ngateway-key-file = "b.key"', (0o644, 0o644), [rooms, key]),
        ("open = true", (0o644, 0o644), []),
    ):
        caplog.clear()
        rooms.write_text(f'[[room]]\ncode = "A"\n{text}')
        rooms.chmod(modes[0])
        key.chmod(modes[1])
        AccessChoices(rooms=rooms).rules()
        assert [record.message for record in caplog.records] == [
            f"every user of this machine can read the room keys in {file}" for file in told
        ]
        assert "horse" not in caplog.text


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.toml"):
        load_rules(tmp_path / "nothing.toml")


@pytest.mark.parametrize(
    "text",
    [
        "max-peers = " + "9" * 5000,
        "max-peers = 0x" + "f" * 5000,
        'key-file = "a\\u0000b"',
        'key-file = "' + "a" * 5000 + '"',
        "limit-total = " + "[" * 5000,
        '"a\\u001bb" = 1',
        '"' + "a" * 5000 + '" = 1',
        'key = "short"\ngateways = "' + "a" * 5000 + '"',
    ],
)
def test_what_python_cannot_use_is_refused_in_a_few_printable_words(tmp_path: Path, text: str) -> None:
    file = tmp_path / "rooms.toml"
    file.write_text('[[room]]\ncode = "A"\n' + text)
    with pytest.raises(ConfigError) as caught:
        load_rules(file)
    said = str(caught.value)
    assert said.startswith(f"{file}: ")
    assert said.isprintable()
    assert len(said) <= len(f"{file}: ") + MAX_SAID


def test_a_long_code_hides_nothing_of_what_is_wrong() -> None:
    with pytest.raises(ConfigError, match="cannot be a room"):
        one(f'code = "{"A" * 40}"\nkey = "short"')


@given(st.text())
def test_any_text_is_rules_or_an_error(text: str) -> None:
    try:
        parse_rules(text, no_file)
    except ConfigError:
        return
