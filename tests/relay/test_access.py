"""Who gets in: every kind of room against every kind of key."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from softlan._core import Mac
from softlan.control.codes import Code
from softlan.control.fields import Role
from softlan.control.keys import Claim, Passphrase, RoomKey, issue, parse_key
from softlan.control.messages import Hello
from softlan.relay import access
from softlan.relay.access import (
    Invites,
    ProvenKeys,
    UsedInvites,
    fingerprint,
    is_looked_at,
    judge,
    passphrases,
    single_use,
)
from softlan.relay.rules import RoomRule

ANN, BEN = Mac("02:00:5e:10:00:01"), Mac("02:00:5e:10:00:02")
HERE, ELSEWHERE = bytes(32), bytes(range(32))
INVITE_KEY = bytes(range(100, 132))
NOW = 1_790_000_000
KEY, GATEWAY_KEY, WRONG = Passphrase("correct horse"), Passphrase("battery staple"), Passphrase("wrong wrong")
OPEN = RoomRule(code="PARTY1", open=True, gateways="any-member")
KEYED = RoomRule(code="PARTY1", key=KEY)
BOTH = RoomRule(code="PARTY1", key=KEY, gateway_key=GATEWAY_KEY)
SHARED = RoomRule(code="PARTY1", key=KEY, gateways="any-member")
CLOSED = RoomRule(code="PARTY1")
NO_GATEWAYS = RoomRule(code="PARTY1", key=KEY, gateways="none")
OPEN_WITH_GATEWAY_KEY = RoomRule(code="PARTY1", open=True, gateway_key=GATEWAY_KEY)


def stretched(key: Passphrase) -> bytes:
    """In place of scrypt, which has its own tests and takes its time."""
    return hashlib.sha256(key.text.encode()).digest()


def invite(
    role: Role = Role.CLIENT,
    *,
    room: str = "PARTY1",
    left: int = 60,
    once: bool = False,
    by: bytes = INVITE_KEY,
) -> RoomKey:
    return parse_key(issue(by, room, role, expires=NOW + left, once=once))


class Door:
    """One relay's judgement; remembers used invites."""

    def __init__(self) -> None:
        self.invites = Invites(INVITE_KEY, UsedInvites())

    def __call__(
        self,
        rule: RoomRule,
        key: RoomKey | None,
        role: Role = Role.CLIENT,
        *,
        made: bytes = HERE,
        seen: bytes = HERE,
        mac: Mac = ANN,
        now: float = NOW,
        **more: Any,
    ) -> Code | None:
        mac_or_none = mac if role is Role.CLIENT else None
        proof = None
        if key is not None:
            secret = stretched(key) if isinstance(key, Passphrase) else key.secret("PARTY1")
            proof = Claim(exported=made, room="PARTY1", role=role, mac=mac_or_none).prove(secret)
        token = None if key is None else key.token
        hello = Hello(
            protocol=1,
            role=role,
            room="PARTY1",
            mac=mac_or_none,
            datagram_budget=1200,
            proof=proof,
            token=token,
            **more,
        )
        claim = Claim(exported=seen, room="PARTY1", role=role, mac=mac_or_none)
        secrets = {known: stretched(known) for known in passphrases(rule, hello)}
        refusal = judge(rule, hello, claim, secrets.__getitem__, self.invites, now=now)
        assert refusal is None or refusal.code is not Code.KEY_WRONG or is_looked_at(rule, hello)
        if refusal is None and (facts := single_use(hello)) is not None:
            assert self.invites.used.use(facts.id, facts.expires, fingerprint(hello), now)
        return None if refusal is None else refusal.code


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.mark.parametrize(
    ("rule", "key", "role", "code"),
    [
        (OPEN, None, Role.CLIENT, None),
        (OPEN, WRONG, Role.CLIENT, None),
        (OPEN, None, Role.GATEWAY, None),
        (KEYED, None, Role.CLIENT, Code.KEY_REQUIRED),
        (KEYED, KEY, Role.CLIENT, None),
        (KEYED, WRONG, Role.CLIENT, Code.KEY_WRONG),
        (KEYED, None, Role.GATEWAY, Code.KEY_REQUIRED),
        (KEYED, KEY, Role.GATEWAY, Code.GATEWAY_NOT_ALLOWED),
        (KEYED, WRONG, Role.GATEWAY, Code.KEY_WRONG),
        (BOTH, KEY, Role.CLIENT, None),
        (BOTH, GATEWAY_KEY, Role.CLIENT, Code.KEY_WRONG),
        (BOTH, KEY, Role.GATEWAY, Code.GATEWAY_NOT_ALLOWED),
        (BOTH, GATEWAY_KEY, Role.GATEWAY, None),
        (SHARED, KEY, Role.GATEWAY, None),
        (SHARED, WRONG, Role.GATEWAY, Code.KEY_WRONG),
        (CLOSED, None, Role.CLIENT, Code.KEY_REQUIRED),
        (CLOSED, KEY, Role.CLIENT, Code.KEY_WRONG),
        (NO_GATEWAYS, KEY, Role.GATEWAY, Code.GATEWAY_NOT_ALLOWED),
        (NO_GATEWAYS, KEY, Role.CLIENT, None),
        (OPEN_WITH_GATEWAY_KEY, None, Role.CLIENT, None),
        (OPEN_WITH_GATEWAY_KEY, None, Role.GATEWAY, Code.KEY_REQUIRED),
        (OPEN_WITH_GATEWAY_KEY, GATEWAY_KEY, Role.GATEWAY, None),
    ],
)
def test_passphrases(
    door: Door, rule: RoomRule, key: Passphrase | None, role: Role, code: Code | None
) -> None:
    assert door(rule, key, role) is code


@pytest.mark.parametrize("role", Role)
def test_rooms_with_a_key_and_rooms_that_are_not_there_look_alike(role: Role) -> None:
    mac = ANN if role is Role.CLIENT else None
    for proof in (None, "00" * 32):
        hello = Hello(protocol=1, role=role, room="PARTY1", mac=mac, datagram_budget=1200, proof=proof)
        claim = Claim(exported=HERE, room="PARTY1", role=role, mac=mac)
        answers = {
            judge(rule, hello, claim, stretched, Invites(INVITE_KEY, UsedInvites()), now=NOW)
            for rule in (KEYED, BOTH, SHARED, NO_GATEWAYS, CLOSED)
        }
        assert len(answers) == 1
        assert None not in answers


@pytest.mark.parametrize("key", [KEY, invite()])
def test_a_proof_from_another_connection_is_none(door: Door, key: RoomKey) -> None:
    assert door(KEYED, key) is None
    assert door(KEYED, key, made=ELSEWHERE) is Code.KEY_WRONG


@pytest.mark.parametrize("rule", [OPEN, KEYED, CLOSED, BOTH])
@pytest.mark.parametrize("role", Role)
def test_an_invite_opens_any_room_for_its_role(door: Door, rule: RoomRule, role: Role) -> None:
    assert door(rule, invite(role), role) is None


def test_an_invite_that_lets_nobody_in_is_not_used(door: Door) -> None:
    once = invite(Role.GATEWAY, once=True)
    assert door(NO_GATEWAYS, once, Role.GATEWAY, resume="ab" * 32) is Code.GATEWAY_NOT_ALLOWED
    assert door(KEYED, once, Role.GATEWAY, resume="cd" * 32) is None


def test_an_invite_is_for_its_role_and_room_and_relay(door: Door) -> None:
    assert door(KEYED, invite(), Role.GATEWAY) is Code.GATEWAY_NOT_ALLOWED
    assert door(KEYED, invite(Role.GATEWAY)) is Code.KEY_WRONG
    assert door(KEYED, invite(room="PARTY2")) is Code.KEY_WRONG
    assert door(KEYED, invite(by=bytes(32))) is Code.KEY_WRONG
    assert door(NO_GATEWAYS, invite(Role.GATEWAY), Role.GATEWAY) is Code.GATEWAY_NOT_ALLOWED
    assert door(OPEN, invite(by=bytes(32))) is Code.KEY_WRONG


def test_an_invite_expires(door: Door) -> None:
    key = invite(left=60)
    assert door(KEYED, key, now=NOW + 59.9) is None
    assert door(KEYED, key, now=NOW + 60) is Code.INVITE_EXPIRED


def test_a_single_use_invite_is_for_the_first_and_for_it_again(door: Door) -> None:
    key = invite(once=True)
    assert door(CLOSED, key, resume="a" * 64) is None
    assert door(CLOSED, key, resume="a" * 64) is None
    assert door(CLOSED, key, resume="b" * 64) is Code.INVITE_USED
    assert door(CLOSED, key, mac=BEN, resume="a" * 64) is Code.INVITE_USED
    assert door(CLOSED, key) is Code.INVITE_USED


def test_who_cannot_be_told_apart_does_not_come_back(door: Door) -> None:
    key = invite(once=True)
    assert door(CLOSED, key) is None
    assert door(CLOSED, key) is Code.INVITE_USED


def test_an_invite_that_did_not_let_in_is_not_used(door: Door) -> None:
    key = invite(once=True)
    assert door(CLOSED, key, made=ELSEWHERE, resume="b" * 64) is Code.KEY_WRONG
    assert door(CLOSED, key, resume="a" * 64) is None


def test_used_invites_are_bounded_and_none_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "MAX_USED", 3)
    used = UsedInvites()
    assert all(used.use(name, expires, "ann", 0) for name, expires in (("a", 10), ("b", 20), ("c", 30)))
    assert not used.use("d", 40, "ann", 5)
    assert used.use("d", 40, "ann", 10)
    assert set(used.used) == {"b", "c", "d"}


def test_where_too_many_were_used_the_first_that_expired_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(access, "MAX_USED", 3)
    used = UsedInvites()
    assert all(used.use(name, expires, "ann", 0) for name, expires in (("a", 20), ("b", 10), ("c", 30)))
    assert used.use("d", 3000, "ann", 2000)
    assert set(used.used) == {"a", "c", "d"}


def test_proven_keys_are_bounded_and_the_last_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "MAX_PROVEN", 2)
    proven = ProvenKeys()
    hellos = [
        Hello(protocol=1, role=Role.CLIENT, room="PARTY1", mac=ANN, datagram_budget=1200, resume=secret * 64)
        for secret in "abc"
    ]
    for hello in (hellos[0], hellos[1], hellos[0], hellos[2]):
        proven.keep(hello, KEY)
        assert len(proven) <= 2
    assert [proven.knows(hello, KEY) for hello in hellos] == [True, False, True]


def test_who_cannot_be_told_apart_is_not_known_by_a_key() -> None:
    proven = ProvenKeys()
    hello = Hello(protocol=1, role=Role.CLIENT, room="PARTY1", mac=ANN, datagram_budget=1200)
    proven.keep(hello, KEY)
    assert not proven.knows(hello, KEY)
