"""The files a relay's operator writes, and those a relay keeps: rooms, settings, bans, used invites, the invite key.

What is read means what stands there, by a second reading without softlan, and reads the same after it was printed; all else is refused by
one error that names the file.
"""

from __future__ import annotations

import json
import shutil
import tomllib
import unicodedata
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from inputs import DIRECTORY, Picks, built, json_object, refused_well, spoil, toml

from softlan.cli import main
from softlan.config import MAX_RATE
from softlan.config_cli import _effective
from softlan.control.fields import Role
from softlan.control.keys import Passphrase, issue
from softlan.errors import ConfigError
from softlan.relay.admin_cli import _until
from softlan.relay.bans import Ban
from softlan.relay.rooms import MAX_PEERS_PER_ROOM
from softlan.relay.rules import RoomRule, Rules, load_rules, parse_rules
from softlan.relay.state import RelayState
from softlan.settings import key_lines, read_settings, settable_options

__all__ = ["CASES", "check"]

NOW = 1_800_000_000.0
PARTS: dict[str, click.Command] = {name: main.commands[name] for name in ("relay", "client", "gateway")}


@dataclass(frozen=True)
class Case:
    """Files by name, and what reads them: `rules`, `state`, or a part's name for its settings."""

    kind: str
    files: dict[str, bytes]


# Inputs ---------------------------------------------------------------------------------------------------------------

_INVITE = issue(bytes(32), "A", expires=1)
_KEYS = [
    '"correct horse"',
    '"battery staple"',
    f'"{_INVITE}"',
    '"short"',
    "'caf\u0065\u0301 horses'",
    '"  spaces in it "',
]
_KEY_FILES = ['"a.key"', '"b.key"', '"./a.key"', '"/dev/null"', '"."', '"a\\u0000b"', f'"{"a" * 300}"']
_RATES = ['"off"', '"20mbit"', '"1.5gbit"', '"1bit"', '"1000gbit"', '"1001gbit"', '"0bit"', '"fast"']
_ROOM = {
    "code": ['"A"', '"B"', '"party1"', '"C-3_x"', '" d "', '"a"', '"E E"', f'"{"F" * 33}"'],
    "key": _KEYS,
    "key-file": _KEY_FILES,
    "gateway-key": _KEYS,
    "gateway-key-file": _KEY_FILES,
    "open": ["true", "false"],
    "gateways": ['"key"', '"any-member"', '"none"', '"all"'],
    "max-peers": ["16", "1", "64", "0", str(MAX_PEERS_PER_ROOM), str(MAX_PEERS_PER_ROOM + 1)],
    "limit-total": _RATES,
    "limit-broadcast": _RATES,
    "limit-unknown": _RATES,
}
_TOP = {"open-rooms": ["false", "true"], "open-room-gateways": ['"key"', '"any-member"', '"none"']}


def _maybe_spoilt(picks: Picks, data: bytes) -> bytes:
    if picks.number(4) != 3:
        return data
    return spoil(data, bytes(picks.number(256) for _ in range(1 + picks.number(16))))


def _rules(picks: Picks) -> Case:
    text = toml(picks, _TOP)
    for _ in range(picks.number(4)):
        text += "[[room]]\n" + toml(picks, _ROOM, ["code"])
    key = picks.mostly(
        [b"correct horse\n", "caf\u00e9 horses".encode()],
        [b"short", b"\xff\xfe", b"", b"a\x00b" * 9, b"x" * 300],
    )
    return Case("rules", {"rooms.toml": _maybe_spoilt(picks, text.encode()), "a.key": key})


_TEXTS = [
    '"PARTY1"',
    '"192.0.2.1:443"',
    '"[2001:db8::1]:443"',
    '"relay.example.org:443"',
    '"443/udp"',
    '"a.file"',
    '"20mbit"',
    '"off"',
]
_TEXTS += [
    '"2.5s"',
    '"02:00:5e:10:00:01"',
    '"caf\u00e9"',
    f'"{"A" * 43}"',
    '"a b"',
    '"a\\u007fb\\u202e"',
    "'a\\b'",
    '"\\"\\\\"',
]
_TEXTS += [f'"softlan://relay.example.org/PARTY1?pin={"A" * 43}&key={_INVITE}"']


def _good(option: click.Option) -> list[str]:
    """What an option may well be given, and some of what it may not."""
    if isinstance(option.type, click.Choice):
        return [json.dumps(choice) for choice in (*option.type.choices, "none")]
    if option.is_flag:
        return ["true", "false"]
    if isinstance(option.type, click.types.IntParamType):
        return ["1", "64", "1280", "1500", "0"]
    values = [*_TEXTS, "0.5", "7"] if option.type.name == "seconds" else _TEXTS
    return [f"[{value}, {values[0]}]" for value in values] + ["[]", values[0]] if option.multiple else values


_OPTIONS = {
    part: {key: _good(option) for key, option in settable_options(command).items()}
    for part, command in PARTS.items()
}


def _settings(picks: Picks) -> Case:
    part = picks.of(list(PARTS))
    text = picks.of(["", "# mine\n", "\ufeff"]) + toml(picks, _OPTIONS[part])
    if picks.number(8) == 7:
        text += picks.of(["[relay]\n", "[[room]]\n", '["a.b"]\n', "[ a . b ]\n"]) + toml(picks, _ROOM)
    return Case(part, {"settings.toml": _maybe_spoilt(picks, text.encode())})


_BAN = {
    "room": ['"*"', '"PARTY1"', '"party1"', '"E E"'],
    "target": [
        '"02:00:5e:10:00:01"',
        '"192.0.2.7/32"',
        '"2001:db8::/32"',
        '"2001:db8::1"',
        '"::ffff:192.0.2.0/120"',
        '"ann"',
    ],
    "until": ["null", "1900000000.5", "1", "1e17", "1e308", "253402300800"],
    "role": ["null", '"client"', '"gateway"', '"nobody"'],
}
_USES = ['[1900000000,"ab"]', '[1,""]', '[9007199254740993,"\\u0000"]', f'[{"9" * 30},"x"]']
_ODD_USES = ['[1,"a","b"]', "[]", '["a",1]']


def _state(picks: Picks) -> Case:
    bans = ",".join(json_object(picks, _BAN, ["room", "target"]) for _ in range(picks.number(4)))
    uses = {name: picks.mostly([_USES], [_ODD_USES]) for name in ("id", "xy", "\\u001b", "a" * 40)}
    key = picks.mostly(
        [b"ab" * 32 + b"\n"], [b"ab" * 31, b"AB" * 32, b"", b"xy" * 32, b" ".join([b"ab"] * 32), b"\xff"]
    )
    key = _maybe_spoilt(picks, key) if picks.number(8) == 7 else key
    return Case(
        "state",
        {
            "bans.json": _maybe_spoilt(picks, f"[{bans}]".encode()),
            "used-invites.json": _maybe_spoilt(picks, json_object(picks, uses).encode()),
            "invite.key": key,
        },
    )


CASES = built(lambda picks: picks.of([_rules, _settings, _state])(picks), 72)


# Checks ---------------------------------------------------------------------------------------------------------------


def check(case: Case) -> None:
    """Files mean what stands in them, or are refused by name."""
    directory = DIRECTORY / "rooms"
    directory.mkdir(exist_ok=True)
    for name, content in case.files.items():
        (directory / name).write_bytes(content)
        (directory / name).chmod(0o600)
    match case.kind:
        case "rules":
            _check_rules(directory / "rooms.toml")
        case "state":
            try:
                _check_state(directory, case)
            finally:
                shutil.rmtree(directory)
        case part:
            _check_settings(part, directory / "settings.toml")


def _check_rules(path: Path) -> None:
    try:
        rules = load_rules(path)
    except ConfigError as error:
        refused_well(error, path)
        return
    written = tomllib.loads(path.read_bytes().decode())
    rooms = written.get("room", [])
    assert len(rules.rooms) == len(rooms)
    assert rules.open_rooms == written.get("open-rooms", False)
    for room in rooms:
        rule = rules.rooms[room["code"].strip().upper()]
        assert rule.max_peers == room.get("max-peers")
        assert rule.open == room.get("open", False)
        assert _text(rule.key) == _key(path, room, "key")
        assert _text(rule.gateway_key) == _key(path, room, "gateway-key")
        assert not (rule.open and rule.key), "open for all, and with a key"
        assert rule.gateways == room.get("gateways", rule.gateways)
        assert set(rule.limits) == {name.replace("-", "_") for name in room if name.startswith("limit-")}
        assert all(limit is None or 0 < limit <= MAX_RATE for limit in rule.limits.values())
    assert parse_rules(_printed(rules), lambda _: "") == rules


def _text(key: Passphrase | None) -> str | None:
    return None if key is None else key.text


def _key(path: Path, room: dict[str, Any], name: str) -> str | None:
    file = room.get(f"{name}-file")
    text = room.get(name) if file is None else (path.parent / file).read_text(encoding="utf-8")
    return None if text is None else unicodedata.normalize("NFC", text.strip())


def _printed(rules: Rules) -> str:
    lines = [
        f"open-rooms = {json.dumps(rules.open_rooms)}",
        f'open-room-gateways = "{rules.open_room_gateways}"',
    ]
    for rule in rules.rooms.values():
        lines += ["[[room]]", *_printed_room(rule)]
    return "\n".join(lines)


def _printed_room(rule: RoomRule) -> list[str]:
    told: dict[str, Any] = {
        "code": rule.code,
        "open": rule.open,
        "gateways": rule.gateways,
        "max-peers": rule.max_peers,
    }
    told |= {"key": _text(rule.key), "gateway-key": _text(rule.gateway_key)}
    for name, limit in rule.limits.items():
        # At most 12 digits are read before a unit.
        told[name.replace("_", "-")] = (
            "off" if limit is None else "1000gbit" if limit == MAX_RATE else f"{limit}bit"
        )
    return [f"{name} = {json.dumps(value)}" for name, value in told.items() if value is not None]


def _check_settings(part: str, path: Path) -> None:
    settings = read_settings(path, PARTS[part])
    for problem in settings.problems:
        assert str(problem).startswith(str(path))
        assert 0 <= problem.line <= path.read_bytes().count(b"\n") + 1
        refused_well(ConfigError(str(problem)))
    if settings.problems:
        return
    text = path.read_bytes().decode("utf-8-sig")
    written = tomllib.loads(text)
    assert len(settings.values) == len(written)
    lines = text.split("\n")
    for key, number in key_lines(text).items():
        # Before its line a file says nothing of a key, and is whole.
        assert key not in written or key not in tomllib.loads("\n".join(lines[: number - 1]))
    shown = _shown(part, path)
    if shown is not None:
        copy = path.with_name("shown.toml")
        copy.write_text("\n".join(shown), encoding="utf-8")
        assert _shown(part, copy) == shown, "what is shown is no file that means the same"


def _shown(part: str, path: Path) -> list[str] | None:
    """What `softlan config show` prints of a file, but for comments; nothing where options exclude each other."""
    try:
        lines = [entry.line for entry in _effective(part, PARTS[part], ["--config", str(path)])]
        return [line for line in lines if not line.startswith("#")]
    except click.UsageError:
        return None


def _check_state(directory: Path, case: Case) -> None:
    try:
        state = RelayState.open(directory)
    except ConfigError as error:
        said = refused_well(error, directory)
        assert any(name in said for name in case.files), "which file?"
        assert _kept(directory, case) == case.files, "what is broken is left alone"
        return
    try:
        bans, used = state.bans.kept(), state.used.used
        _judge(bans)
        key = state.invite_key
        _done(state.save_bans())
        _done(state.save_used())
    finally:
        state.close()
    again = RelayState.open(directory)
    try:
        assert again.bans.kept() == bans
        assert again.used.used == used
        assert again.invite_key == key
        assert len(key) == 32
    finally:
        again.close()


def _kept(directory: Path, case: Case) -> dict[str, bytes]:
    return {name: (directory / name).read_bytes() for name in case.files}


def _judge(bans: list[Ban]) -> None:
    for ban in bans:
        ban.holds(NOW)
        assert ban.room == "*" or ban.room.isupper()
        ban.is_against("PARTY1", Role.CLIENT, None, "192.0.2.7:40000")
        ban.is_against("PARTY1", Role.GATEWAY, None, "[2001:db8::1]:40000")
        assert _until(ban.until).isprintable()


def _done(saved: Future[None]) -> None:
    saved.result()
