"""Who has the right to enter a room: rules, keys and invites against one hello. Pure: time, and what takes time, come in.

Whether there is a place is `rooms.py`'s, who is banned `bans.py`'s, how often one may try `gate.py`'s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from softlan.control.codes import Code
from softlan.control.fields import FieldFault, Role
from softlan.control.keys import Claim, InviteFacts, Passphrase, invite_secret, read_token
from softlan.control.messages import Hello, Reject
from softlan.relay.rules import RoomRule

__all__ = [
    "Invites",
    "ProvenKeys",
    "Secrets",
    "UsedInvites",
    "fingerprint",
    "is_looked_at",
    "judge",
    "passphrases",
    "proven_key",
    "single_use",
]

Secrets = Callable[[Passphrase], bytes]
"""Gives the secret of a passphrase for the room at hand (`Passphrase.secret`, which takes its time)."""

KeyName: TypeAlias = Passphrase | str
"""Which key it is: a passphrase, or an invite's token."""

MAX_PROVEN = 4096
"""Peers whose last key is remembered: some 2 MiB."""

MAX_USED = 16384
"""Single-use invites that are remembered: some 2 MiB."""


class UsedInvites:
    """Which single-use invites were used, and by whom, at least until they expire. `used` may be saved and given back."""

    def __init__(self, used: Mapping[str, tuple[int, str]] | None = None) -> None:
        self.used: dict[str, tuple[int, str]] = dict(used or {})
        """By invite id: when it expires, in seconds since 1970, and the fingerprint of who used it."""

    def allows(self, invite_id: str, who: str) -> bool:
        """Say whether nobody has used it, or just this one."""
        former = self.used.get(invite_id)
        return former is None or (bool(who) and former[1] == who)

    def use(self, invite_id: str, expires: int, who: str, now: float) -> bool:
        """Take note of a use; False when another used it, or when no more can be remembered."""
        if invite_id in self.used:
            return self.allows(invite_id, who)
        self._make_room(now)
        # Forgetting one that is still good would let it be used twice: rather none more are taken.
        if len(self.used) >= MAX_USED:
            return False
        self.used[invite_id] = (expires, who)
        return True

    def give_back(self, invite_id: str) -> None:
        """Undo a `use`: it let nobody in."""
        self.used.pop(invite_id, None)

    def _make_room(self, now: float) -> None:
        """Forget as many as one more takes, of those that have expired the first to do so first.

        The others stay: a wall clock that ran ahead may be set right again, and they would be good once more.
        """
        if (excess := len(self.used) + 1 - MAX_USED) > 0:
            expired = [name for name, (expires, _) in self.used.items() if expires <= now]
            for name in sorted(expired, key=lambda name: self.used[name][0])[:excess]:
                del self.used[name]


@dataclass(frozen=True, slots=True)
class Invites:
    """The invites of a relay: the key it issues them with, and which were used."""

    key: bytes = field(repr=False)
    used: UsedInvites

    def judge(
        self, rule: RoomRule, hello: Hello, token: str, proof: str, claim: Claim, *, now: float
    ) -> Reject | None:
        """Say why an invite does not let a hello in; None when it does. One for a single use is not used by that: see `single_use`."""
        # Nothing a token says is looked at before its secret has been proven.
        if not claim.fits(proof, invite_secret(self.key, token)):
            return _key_wrong("that invite is not of this relay, or it is damaged")
        try:
            facts = read_token(token)
        except FieldFault as fault:
            return Reject(code=fault.code, reason=str(fault), field=fault.field)
        if facts.room != hello.room:
            return _key_wrong("the invite is for another room")
        if facts.role is not hello.role:
            if hello.role is Role.GATEWAY:
                return _no_gateway("the invite is for a player, not for a gateway")
            return _key_wrong("the invite is for a gateway, not for a player")
        if facts.expires <= now:
            return Reject(code=Code.INVITE_EXPIRED, reason=Code.INVITE_EXPIRED.meaning)
        if (refusal := _judge_role(rule, hello)) is not None:
            return refusal
        if facts.once and not self.used.allows(facts.id, fingerprint(hello)):
            return Reject(code=Code.INVITE_USED, reason=Code.INVITE_USED.meaning)
        return None


class ProvenKeys:
    """By which key peers had a right to a room: whoever proves that one again guesses nothing. The last `MAX_PROVEN` who did so.

    It counts for the same room, role, MAC and `resume` alone, and not after another key: what one of them tries beside its own key is
    a guess like anybody's.
    """

    def __init__(self) -> None:
        self._keys: dict[tuple[str, str], KeyName] = {}

    def __len__(self) -> int:
        """Count the peers."""
        return len(self._keys)

    def keep(self, hello: Hello, key: KeyName) -> None:
        """Take note of the key by which a hello had its right."""
        who = (hello.room, fingerprint(hello))
        if not who[1]:
            return
        self._keys.pop(who, None)
        while len(self._keys) >= MAX_PROVEN:
            del self._keys[next(iter(self._keys))]
        self._keys[who] = key

    def knows(self, hello: Hello, key: KeyName | None) -> bool:
        """Say whether this peer proved that key before, and no other since; one that comes with another is forgotten."""
        who = (hello.room, fingerprint(hello))
        if who not in self._keys:
            return False
        if self._keys[who] != key:
            del self._keys[who]
            return False
        return True


def single_use(hello: Hello) -> InviteFacts | None:
    """Give the invite for a single use with which a hello comes that `judge` lets in: to be used once its peer has a place."""
    if hello.token is None or hello.proof is None:
        return None
    facts = read_token(hello.token)
    return facts if facts.once else None


def passphrases(rule: RoomRule, hello: Hello) -> tuple[Passphrase, ...]:
    """Say which passphrases `judge` will ask the secrets of."""
    if hello.token is not None or hello.proof is None:
        return ()
    by_its_own = hello.role is Role.GATEWAY and rule.gateways == "key"
    asked = (rule.gateway_key, rule.key) if by_its_own else (rule.key,)
    return tuple(key for key in asked if key is not None)


def is_looked_at(rule: RoomRule, hello: Hello) -> bool:
    """Say whether `judge` looks at the proof of a hello, which may be a guess then."""
    return hello.proof is not None and (hello.token is not None or _asks_for_key(rule, hello))


def proven_key(
    hello: Hello, claim: Claim, secrets: Mapping[Passphrase, bytes], invite_key: bytes
) -> KeyName | None:
    """Say by which of these keys, or the invite that it comes with, a hello's proof was made; None for none. It gives no right yet."""
    if hello.proof is None:
        return None
    known: list[tuple[KeyName, bytes]] = [*secrets.items()]
    if hello.token is not None:
        known = [(hello.token, invite_secret(invite_key, hello.token))]
    # All of them are tried, so that the time it takes tells nothing.
    fitting = [key for key, secret in known if claim.fits(hello.proof, secret)]
    return fitting[0] if fitting else None


def judge(
    rule: RoomRule, hello: Hello, claim: Claim, secrets: Secrets, invites: Invites, *, now: float
) -> Reject | None:
    """Say why a hello has no right to its room; None when it has. `now` is in seconds since 1970."""
    if hello.token is not None and hello.proof is not None:
        return invites.judge(rule, hello, hello.token, hello.proof, claim, now=now)
    if not _asks_for_key(rule, hello):
        return _judge_role(rule, hello)
    # Rooms that are not open, and rooms that are not there, look alike until a key of theirs is proven.
    if hello.role is Role.GATEWAY:
        return _judge_gateway(rule, hello, claim, secrets)
    if hello.proof is None:
        return _key_required(f"room {hello.room} needs a key")
    if _fits(rule.key, hello.proof, claim, secrets):
        return None
    return _key_wrong(f"that is not the key of room {hello.room}")


def _asks_for_key(rule: RoomRule, hello: Hello) -> bool:
    return not rule.open or (hello.role is Role.GATEWAY and rule.gateways == "key")


def _judge_gateway(rule: RoomRule, hello: Hello, claim: Claim, secrets: Secrets) -> Reject | None:
    if hello.proof is None:
        return _key_required(f"a gateway of room {hello.room} needs a key")
    if _fits(rule.gateway_key, hello.proof, claim, secrets):
        return None
    if not _fits(rule.key, hello.proof, claim, secrets):
        return _key_wrong(f"that is not the key of a gateway of room {hello.room}")
    if rule.gateways == "key":
        return _no_gateway(f"the key is for players of room {hello.room}, not for a gateway")
    return _judge_role(rule, hello)


def _judge_role(rule: RoomRule, hello: Hello) -> Reject | None:
    if hello.role is Role.GATEWAY and rule.gateways == "none":
        return _no_gateway(f"room {hello.room} takes no gateways")
    return None


def _fits(key: Passphrase | None, proof: str, claim: Claim, secrets: Secrets) -> bool:
    return key is not None and claim.fits(proof, secrets(key))


def fingerprint(hello: Hello) -> str:
    """Tell one peer from others without keeping its secret. Who sends no `resume` cannot be told apart, and does not come back."""
    if hello.resume is None:
        return ""
    known = f"{hello.role.value} {hello.mac} {hello.resume}"
    return hashlib.sha256(known.encode()).hexdigest()


def _key_required(reason: str) -> Reject:
    return Reject(code=Code.KEY_REQUIRED, reason=reason, field="proof")


def _key_wrong(reason: str) -> Reject:
    return Reject(code=Code.KEY_WRONG, reason=reason, field="proof")


def _no_gateway(reason: str) -> Reject:
    return Reject(code=Code.GATEWAY_NOT_ALLOWED, reason=reason, field="role")
