"""What a connection passes before the relay looks for a place for its peer: counts, bans, and the room's key.

The state of everything that limits strangers is here; the decisions are in `limits.py`, `bans.py` and `access.py`, which are pure.
Whom the relay turns away is counted by code in `turned_away`.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from softlan._core import Connection, CoreError
from softlan.control.codes import Code
from softlan.control.keys import Claim, Passphrase
from softlan.control.messages import Hello, Reject
from softlan.relay.access import (
    Invites,
    ProvenKeys,
    fingerprint,
    is_looked_at,
    judge,
    passphrases,
    proven_key,
    single_use,
)
from softlan.relay.bans import Kicks
from softlan.relay.limits import AddressCounts, Bucket, Buckets, Rate, Unannounced, line_of
from softlan.relay.rules import OPEN_RULES, Rules
from softlan.relay.state import RelayState
from softlan.relay.writer import on_disk

__all__ = ["Gate", "GateLimits"]

USED_WITHIN_S = 5.0
"""How long a peer that used a single-use invite waits for the disk; what cannot be written is told in the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateLimits:
    """How much the relay takes from one address (IPv4, or IPv6 /64), and from one peer.

    A full room behind one address comes back after a hiccup with two connections a peer for a moment, hence the numbers. They are no
    protection of keys: that is the limit on wrong ones.
    """

    connections: int = 128
    """Connections of one address at once."""

    unannounced: int = 512
    """Connections of all addresses that have not said hello yet; when there are more, the address with most of them gives way."""

    hellos: Rate = field(default_factory=lambda: Rate(16, 256))
    wrong_keys: Rate = field(default_factory=lambda: Rate(1 / 6, 10))
    misbehaved: Rate = field(default_factory=lambda: Rate(1 / 6, 10))
    """Peers that were disconnected for what they sent."""

    messages: Rate = field(default_factory=lambda: Rate(20, 100))
    """Control messages of one peer."""

    message_bytes: Rate = field(default_factory=lambda: Rate(16384, 131072))


class Gate:
    """One relay's gate."""

    def __init__(
        self, limits: GateLimits, rules: Rules = OPEN_RULES, state: RelayState | None = None
    ) -> None:
        self.limits = limits
        self.rules = rules
        self.state = RelayState() if state is None else state
        self.kicks = Kicks()
        self.turned_away: Counter[Code] = Counter()
        self._connections = AddressCounts(limits.connections)
        self._unannounced: Unannounced[Connection] = Unannounced(limits.unannounced)
        self._hellos: Buckets[str] = Buckets(limits.hellos)
        self._wrong_keys: Buckets[str] = Buckets(limits.wrong_keys)
        self._misbehaved: Buckets[str] = Buckets(limits.misbehaved)
        self._proven = ProvenKeys()
        self._secrets: dict[tuple[str, Passphrase], bytes] = {}
        self._stretching = asyncio.Lock()
        self._uses: dict[Connection, str] = {}
        """Invites for a single use by the connection whose hello uses them, until its peer is in or is not let in."""

    # Connections ------------------------------------------------------------------------------------------------------

    def enter(self, address: str) -> str | None:
        """Count a new connection from `IP:PORT`, a proven one; gives what `leave` takes, or None when the address has too many."""
        line = line_of(address)
        if self._connections.enter(line):
            return line
        return None

    def leave(self, line: str) -> None:
        """Count a connection out again."""
        self._connections.leave(line)

    def await_hello(self, line: str, connection: Connection) -> Connection | None:
        """Count one more connection that has not said hello; gives the one to send away for it, if there are too many."""
        return self._unannounced.enter(line, connection.id, connection)

    def heard_hello(self, line: str, connection: Connection) -> None:
        """Count one less of them."""
        self._unannounced.leave(line, connection.id)

    def snapshot(self) -> dict[str, object]:
        """What `softlan status` shows."""
        return {
            "turned_away": {code.value: count for code, count in sorted(self.turned_away.items())},
            "unannounced": len(self._unannounced),
            "bans": len(self.state.bans.held(time.time())),
        }

    # Hellos -----------------------------------------------------------------------------------------------------------

    async def judge(
        self,
        hello: Hello,
        connection: Connection,
        has_place: Callable[[], bool],
        *,
        comes_back: bool = False,
    ) -> Reject | None:
        """Say why a hello is refused whether or not there is a place; None when it is not, and `let_in` or `turn_away` is to follow.

        An invite for a single use is used, and that is written down, only where the hello `has_place`; there may be none any more then.
        Who `comes_back` to a place in its room is not kept out for what others of its address have sent.
        """
        line, now = line_of(connection.proven_address), time.monotonic()
        if not self._hellos.take(line, now):
            return _too_many("too many hellos from this address; wait a little")
        if not comes_back and self._misbehaved.left(line, now) < 1:
            return _too_many(
                "too many peers of this address were disconnected for what they sent; wait a minute"
            )
        # Once for those whom it refuses at once, and once more for what an operator says while a hello waits.
        if (refusal := self._banned(hello, connection)) is not None:
            return refusal
        rules = None
        while rules is not self.rules:
            rules = self.rules
            secrets = await self._secrets_for(rules, hello)
            if rules is not self.rules:
                continue
            refusal = self._judge_key(hello, connection, line, secrets)
            refusal = refusal or self._banned(hello, connection)
            if refusal is None and has_place():
                refusal = await self._use_invite(hello, connection)
        return refusal or self._banned(hello, connection)

    def _judge_key(
        self, hello: Hello, connection: Connection, line: str, secrets: Mapping[Passphrase, bytes]
    ) -> Reject | None:
        """Look at a proof. Wrong ones are counted, also while they wait; nothing waits in here, so that they cannot outrun the count."""
        try:
            claim = Claim.over(connection, hello.room, hello.role, hello.mac)
        except CoreError as error:
            return Reject(code=Code.PROTOCOL_ERROR, reason=f"no keying material: {error.args[1]}")
        invites = Invites(self.state.invite_key, self.state.used)
        rule = self.rules.of(hello.room)
        key = proven_key(hello, claim, secrets, invites.key)
        # Nothing is told of a key before it is counted, but to who is known to have it.
        is_guess = is_looked_at(rule, hello) and not self._proven.knows(hello, key)
        if is_guess and not self._wrong_keys.take(line, time.monotonic()):
            return _too_many("too many wrong keys from this address; wait a minute")
        refusal = judge(rule, hello, claim, secrets.__getitem__, invites, now=time.time())
        if is_guess and (refusal is None or refusal.code is not Code.KEY_WRONG):
            self._wrong_keys.give_back(line)
        if refusal is None and key is not None:
            self._proven.keep(hello, key)
        return refusal

    async def _use_invite(self, hello: Hello, connection: Connection) -> Reject | None:
        """Use an invite for a single use, if a hello comes with one that it has not used before."""
        facts, used = single_use(hello), self.state.used
        if facts is None or facts.id in used.used:  # by this very peer, as it was judged
            return None
        if not used.use(facts.id, facts.expires, fingerprint(hello), time.time()):
            return Reject(code=Code.INVITE_USED, reason=Code.INVITE_USED.meaning)
        self._uses[connection] = facts.id
        # Before the peer is let in: an invite that was used must not be good again after a crash.
        await on_disk(self.state.save_used(), USED_WITHIN_S)
        return None

    def let_in(self, hello: Hello) -> None:
        """Take note that the peer of a hello is in: its invite for a single use is used for good, whichever of its hellos did so."""
        if (facts := single_use(hello)) is not None:
            self._uses = {one: used for one, used in self._uses.items() if used != facts.id}

    def turn_away(self, connection: Connection) -> None:
        """Take note that nobody is let in on a connection: an invite that its hello has used is good again. No harm after `let_in`."""
        if (invite_id := self._uses.pop(connection, None)) is not None:
            self.state.used.give_back(invite_id)
            self.state.save_used()

    async def _secrets_for(self, rules: Rules, hello: Hello) -> dict[Passphrase, bytes]:
        keys = passphrases(rules.of(hello.room), hello)
        return {key: await self._stretch(hello.room, key) for key in keys}

    def replace_rules(self, rules: Rules) -> None:
        """Use other rules for hellos from now on; peers that are in stay in."""
        self.rules = rules
        wanted = set(_all_keys(rules))
        self._secrets = {known: secret for known, secret in self._secrets.items() if known in wanted}

    async def prepare(self) -> None:
        """Stretch the passphrases of all rooms ahead, so that no hello waits for it and none tells by waiting that a room exists."""
        for room, key in _all_keys(self.rules):
            await self._stretch(room, key)

    def _banned(self, hello: Hello, connection: Connection) -> Reject | None:
        peer = hello.room, hello.role, hello.mac, connection.proven_address
        if self.state.bans.against(*peer, time.time()) is not None:
            return Reject(code=Code.BANNED, reason=Code.BANNED.meaning)
        if self.kicks.against(*peer, time.monotonic()):
            return Reject(code=Code.KICKED, reason="the relay's operator sent you away for a minute")
        return None

    async def _stretch(self, room: str, key: Passphrase) -> bytes:
        """Give a passphrase's secret; made one at a time, because each takes 32 MiB."""
        if (known := self._secrets.get((room, key))) is not None:
            return known
        async with self._stretching:
            if (room, key) not in self._secrets:
                self._secrets[room, key] = await asyncio.to_thread(key.secret, room)
            return self._secrets[room, key]

    # Peers ------------------------------------------------------------------------------------------------------------

    def misbehaved(self, address: str, code: Code) -> None:
        """Count a peer that is disconnected for what it sent.

        Whoever is thrown out may come back, but not at once and again and again: each time, all of the room hear of it.
        """
        self.turned_away[code] += 1
        self._misbehaved.take(line_of(address), time.monotonic())

    def talk(self) -> Talk:
        """Begin to count what one peer says."""
        return Talk(self.limits, time.monotonic())


class Talk:
    """How much one peer may say on its control stream."""

    def __init__(self, limits: GateLimits, now: float) -> None:
        self._messages = Bucket(limits.messages, now)
        self._bytes = Bucket(limits.message_bytes, now)

    def allows(self, size: int, now: float) -> bool:
        """Count a message of `size` bytes; False when it is too much."""
        return self._messages.take(now) and self._bytes.take(now, size)


def _all_keys(rules: Rules) -> list[tuple[str, Passphrase]]:
    return [
        (rule.code, key)
        for rule in rules.rooms.values()
        for key in (rule.key, rule.gateway_key)
        if key is not None
    ]


def _too_many(reason: str) -> Reject:
    return Reject(code=Code.TOO_MANY_ATTEMPTS, reason=reason)
