"""Bans and kicks: against whom, where, until when; and what a relay keeps of them."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

import pytest

from softlan._core import Mac
from softlan.control.fields import Role
from softlan.errors import ConfigError, SoftlanError
from softlan.relay import bans as module
from softlan.relay.bans import Ban, Bans, Kicks, parse_target
from softlan.relay.state import RelayState
from softlan.texts import MAX_SAID

ANN, BEN, CAT = Mac("02:00:5e:10:00:01"), Mac("02:00:5e:10:00:02"), Mac("02:00:5e:10:00:03")
HOME, AWAY, SIX = "192.0.2.7:40000", "198.51.100.1:40000", "[2001:db8:1:2::9]:40000"


def test_a_mac_is_banned_wherever_it_is() -> None:
    bans = Bans([Ban(room="PARTY1", target=str(ANN))])
    assert bans.against("PARTY1", Role.CLIENT, ANN, HOME, 0)
    assert bans.against("PARTY1", Role.CLIENT, ANN, AWAY, 0)
    assert not bans.against("PARTY1", Role.CLIENT, BEN, HOME, 0)
    assert not bans.against("PARTY1", Role.GATEWAY, None, HOME, 0)
    assert not bans.against("PARTY2", Role.CLIENT, ANN, HOME, 0)


@pytest.mark.parametrize(
    ("target", "address"),
    [
        ("192.0.2.7", HOME),
        ("192.0.2.0/24", HOME),
        ("::ffff:192.0.2.7", HOME),
        ("::ffff:192.0.2.0/120", HOME),
        ("2001:db8:1:2::1", SIX),
        ("2001:db8::/32", SIX),
    ],
)
def test_addresses_and_networks(target: str, address: str) -> None:
    bans = Bans([Ban(room="*", target=parse_target(target))])
    assert bans.against("ANY", Role.CLIENT, ANN, address, 0)
    assert bans.against("ANY", Role.GATEWAY, None, address, 0)
    assert not bans.against("ANY", Role.CLIENT, ANN, AWAY, 0)


@pytest.mark.parametrize("text", ["", "ann", "192.0.2.999", "02:00", "192.0.2.0/33"])
def test_what_cannot_be_banned(text: str) -> None:
    with pytest.raises(ConfigError, match="no MAC"):
        parse_target(text)


def test_a_ban_ends() -> None:
    bans = Bans()
    bans.add(Ban(room="*", target=str(ANN), until=100), 0)
    assert bans.against("A", Role.CLIENT, ANN, HOME, 99)
    assert not bans.against("A", Role.CLIENT, ANN, HOME, 100)
    assert bans.held(100) == []


def test_a_clock_that_ran_ahead_lifts_no_ban_for_good() -> None:
    bans = Bans()
    bans.add(Ban(room="*", target=str(ANN), until=100), 0)
    bans.add(Ban(room="*", target=str(BEN)), 1000)
    assert not bans.against("A", Role.CLIENT, ANN, HOME, 1000)
    assert bans.against("A", Role.CLIENT, ANN, HOME, 1)


def test_a_kick_is_for_a_minute_and_for_that_peer() -> None:
    kicks = Kicks()
    kicks.add("A", Role.CLIENT, ANN, HOME, 0)
    kicks.add("B", Role.GATEWAY, None, HOME, 0)
    assert kicks.against("A", Role.CLIENT, ANN, AWAY, 59)
    assert not kicks.against("A", Role.CLIENT, BEN, HOME, 59)
    assert kicks.against("B", Role.GATEWAY, None, HOME, 59)
    assert not kicks.against("B", Role.CLIENT, BEN, HOME, 59), "players of the gateway's house stay"
    assert not kicks.against("A", Role.CLIENT, ANN, AWAY, 60)


def test_a_second_kick_is_for_a_minute_more() -> None:
    kicks = Kicks()
    kicks.add("A", Role.CLIENT, ANN, HOME, 0)
    kicks.add("A", Role.CLIENT, BEN, HOME, 1)
    kicks.add("A", Role.CLIENT, ANN, AWAY, 30)
    assert [(kicked.target, left) for kicked, left in kicks.held(60)] == [(str(BEN), 1), (str(ANN), 30)]


def test_kicks_are_bounded_and_the_first_to_end_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KICKS", 2)
    kicks = Kicks()
    for now, mac in enumerate((ANN, BEN, CAT)):
        kicks.add("A", Role.CLIENT, mac, HOME, now)
    assert [kicked.target for kicked, _ in kicks.held(2)] == [str(BEN), str(CAT)]


def test_lifting() -> None:
    bans = Bans(
        [Ban(room="A", target=str(ANN)), Ban(room="B", target=str(ANN)), Ban(room="A", target=str(BEN))]
    )
    assert bans.lift("A", str(ANN)) == 1
    assert bans.lift("*", str(ANN)) == 1
    assert bans.lift("*", str(ANN)) == 0
    assert [ban.target for ban in bans.held(0)] == [str(BEN)]


def test_lifting_kicks() -> None:
    kicks = Kicks()
    for room, mac in (("A", ANN), ("B", ANN), ("A", BEN)):
        kicks.add(room, Role.CLIENT, mac, HOME, 0)
    assert kicks.lift("A", str(ANN)) == 1
    assert kicks.lift("*", str(ANN)) == 1
    assert kicks.lift("*", str(ANN)) == 0
    assert [kicked.target for kicked, _ in kicks.held(0)] == [str(BEN)]


def test_bans_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BANS", 2)
    bans = Bans()
    for number in range(2):
        bans.add(Ban(room="*", target=f"192.0.2.{number}/32", until=10), 0)
    bans.add(Ban(room="*", target="192.0.2.1/32"), 0)
    with pytest.raises(ConfigError, match="2 bans"):
        bans.add(Ban(room="*", target=str(ANN)), 0)
    bans.add(Ban(room="*", target=str(ANN)), 10)
    with pytest.raises(ConfigError, match="2 bans"):
        bans.add(Ban(room="*", target=str(BEN)), 10)


def test_where_there_are_too_many_bans_the_first_that_ended_gives_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_BANS", 3)
    bans = Bans()
    for target, until in ((ANN, 20), (BEN, 10), (CAT, 30)):
        bans.add(Ban(room="*", target=str(target), until=until), 0)
    bans.add(Ban(room="*", target="192.0.2.7/32"), 1000)
    assert [ban.target for ban in bans.kept()] == [str(ANN), str(CAT), "192.0.2.7/32"]


# What is kept


def test_state_survives_a_restart(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    first = RelayState.open(directory)
    first.used.use("id", 2**40, "ann", 0)
    first.bans.add(Ban(room="*", target=str(ANN)), 0)
    first.bans.add(Ban(room="*", target=str(BEN), until=100), 0)
    first.save_used()
    first.save_bans()
    first.close()
    second = RelayState.open(directory)
    try:
        assert second.invite_key == first.invite_key
        assert second.used.used == {"id": (2**40, "ann")}
        assert [(ban.target, ban.until) for ban in second.bans.held(0)] == [(str(ANN), None), (str(BEN), 100)]
    finally:
        second.close()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for file in directory.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_clock_that_ran_ahead_takes_nothing_from_the_files(tmp_path: Path) -> None:
    first = RelayState.open(tmp_path)
    first.used.use("id", 100, "ann", 0)
    first.bans.add(Ban(room="*", target=str(ANN), until=100), 0)
    first.used.use("another", 2000, "ben", 1000)
    first.bans.add(Ban(room="*", target=str(BEN), until=2000), 1000)
    first.save_used()
    first.save_bans()
    first.close()
    second = RelayState.open(tmp_path)
    second.close()
    assert second.used.used == {"id": (100, "ann"), "another": (2000, "ben")}
    assert second.bans.against("A", Role.CLIENT, ANN, HOME, 1)


def test_two_relays_do_not_share_a_directory(tmp_path: Path) -> None:
    first = RelayState.open(tmp_path)
    try:
        with pytest.raises(ConfigError, match="another relay"):
            RelayState.open(tmp_path)
    finally:
        first.close()
    RelayState.open(tmp_path).close()


@pytest.mark.parametrize("place", ["try_lock", "write_atomically", "is_exposed"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EMFILE, errno.EACCES])
def test_a_directory_that_cannot_be_used_for_now_is_worth_another_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, number: int
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    if place == "is_exposed":
        RelayState.open(tmp_path).close()
    monkeypatch.setattr(f"softlan.relay.state.{place}", fails)
    with pytest.raises(SoftlanError, match=f"cannot use the state in .*: {os.strerror(number)}") as caught:
        RelayState.open(tmp_path)
    assert caught.value.exit_code == (2 if number == errno.EACCES else 1)
    monkeypatch.undo()
    RelayState.open(tmp_path).close()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("invite.key", "xyz"),
        ("invite.key", "00"),
        ("bans.json", "{"),
        ("bans.json", '[{"room": 1}]'),
        ("bans.json", '[{"room": "*", "target": "192.0.2.7/33"}]'),
        ("bans.json", '[{"room": "no room", "target": "192.0.2.7/32"}]'),
        ("bans.json", json.dumps([{"room": "*", "target": "a" * 5000}])),
        ("used-invites.json", "[]"),
    ],
)
def test_a_broken_file_is_named_and_left_alone(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError) as caught:
        RelayState.open(tmp_path)
    assert name in str(caught.value)
    assert len(str(caught.value)) < len(str(tmp_path)) + MAX_SAID + 40
    assert (tmp_path / name).read_text() == content


def test_bans_may_be_written_in_several_ways(tmp_path: Path) -> None:
    targets = ["192.0.2.7", "192.0.2.7/24", "::ffff:c000:200/120", "02:00:5E:10:00:0A", "2001:DB8::/32"]
    written = [{"room": "party1", "target": target} for target in targets]
    (tmp_path / "bans.json").write_text(json.dumps(written))
    state = RelayState.open(tmp_path)
    state.close()
    read = [(ban.room, ban.target) for ban in state.bans.held(0)]
    assert read == [
        ("PARTY1", "192.0.2.7/32"),
        ("PARTY1", "192.0.2.0/24"),
        ("PARTY1", "02:00:5e:10:00:0a"),
        ("PARTY1", "2001:db8::/32"),
    ]


def test_an_invite_key_others_can_read_is_refused(tmp_path: Path) -> None:
    RelayState.open(tmp_path).close()
    (tmp_path / "invite.key").chmod(0o644)
    with pytest.raises(ConfigError, match="can read the invite key"):
        RelayState.open(tmp_path)


def test_a_state_that_cannot_be_written_is_told_and_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = RelayState.open(tmp_path / "state")
    state.directory = tmp_path / "gone"
    state.bans.add(Ban(room="*", target=str(ANN)), 0)
    state.save_bans().result()
    state.close()
    assert "state.failed" in {getattr(record, "event", None) for record in caplog.records}
    assert state.bans.held(0)
