"""Between hello and welcome a relay may have to wait: what holds when it goes on is what counts, and what fails leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import NAME, SHOWN, serving, until

from softlan._core import Endpoint, Mac, TransportSettings
from softlan.client import Session
from softlan.control.channel import ControlChannel
from softlan.control.codes import Code
from softlan.control.keys import Claim, Passphrase, RoomKey, issue, parse_key
from softlan.control.messages import Hello, Reject, Role, Welcome, decode_answer
from softlan.control.stream import encode_frame
from softlan.errors import SoftlanError
from softlan.relay import access, cli
from softlan.relay.bans import Ban
from softlan.relay.gate import GateLimits
from softlan.relay.limits import Rate
from softlan.relay.rules import RoomRule, Rules
from softlan.relay.server import Relay, RelayConfig
from softlan.relay.state import RelayState

ANN, BEN, CAT = Mac("02:00:5e:10:00:01"), Mac("02:00:5e:10:00:02"), Mac("02:00:5e:10:00:03")
KEY = Passphrase("correct horse")


@contextlib.asynccontextmanager
async def keeping(
    directory: Path, rules: Rules | None = None, gate: GateLimits | None = None
) -> AsyncIterator[Relay]:
    """A relay with a state directory; without rules it takes invites alone."""
    state = RelayState.open(directory)
    config = RelayConfig(listen="127.0.0.1:0", gate=gate or GateLimits())
    try:
        async with serving(config, rules or Rules(), state) as relay:
            yield relay
    finally:
        state.close()


@contextlib.contextmanager
def slow_disk(relay: Relay) -> Iterator[None]:
    """Nothing is written until the end."""
    turns = threading.Event()
    relay.gate.state._writer._thread.submit(turns.wait, 30)
    try:
        yield
    finally:
        turns.set()


class Caller:
    """A machine with connections of its own."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.endpoint = Endpoint.client("127.0.0.1:0", TransportSettings(keep_alive=0.5))

    async def hello(self, room: str, key: RoomKey | None, mac: Mac = ANN, **more: Any) -> ControlChannel:
        """Connect and say hello."""
        connection = await self.endpoint.connect(self.relay.local_address, NAME, [SHOWN.leaf], timeout=10)
        channel = ControlChannel(connection)
        await connection.open_control()
        channel.start()
        if key is not None:
            secret = await asyncio.to_thread(key.secret, room)
            more["proof"] = Claim.over(connection, room, Role.CLIENT, mac).prove(secret)
            more["token"] = key.token
        channel.post(Hello(protocol=1, role=Role.CLIENT, room=room, mac=mac, datagram_budget=1200, **more))
        return channel


@pytest.fixture
async def call() -> AsyncIterator[Callable[[Relay], Caller]]:
    callers: list[Caller] = []

    def make(relay: Relay) -> Caller:
        callers.append(Caller(relay))
        return callers[-1]

    yield make
    for caller in callers:
        await caller.endpoint.close(0, "")
        caller.endpoint.stop()


async def answer(channel: ControlChannel) -> Welcome | Reject:
    body = await asyncio.wait_for(channel.receive(), 15)
    assert body is not None
    return decode_answer(body)


async def code_of(channel: ControlChannel) -> Code | None:
    """Why a hello is refused, None when it is not."""
    said = await answer(channel)
    return said.code if isinstance(said, Reject) else None


def invite(relay: Relay) -> RoomKey:
    key = issue(relay.gate.state.invite_key, "R", expires=int(time.time() + 999), once=True)
    return parse_key(key)


async def test_a_hello_whose_peer_has_gone_takes_nobodys_place(
    tmp_path: Path, call: Callable[[Relay], Caller]
) -> None:
    async with keeping(tmp_path) as relay:
        ann, key = call(relay), invite(relay)
        with slow_disk(relay):
            first = await ann.hello("R", key, resume="ab" * 32)
            await until(lambda: bool(relay.gate.state.used.used))
            first.connection.close(0, "gave up")
            second = await ann.hello("R", key, resume="ab" * 32)
            assert isinstance(await answer(second), Welcome)
        # The first one's use is on the disk now, and its turn comes.
        await until(lambda: sum(relay.gate._connections._counts.values()) == 1)
        assert not second.connection.ended
        assert relay.peer_count == 1
        assert await code_of(await call(relay).hello("R", key, BEN)) is Code.INVITE_USED, (
            "the second is in by it"
        )


async def test_who_gets_no_place_has_not_used_the_invite(
    tmp_path: Path, call: Callable[[Relay], Caller]
) -> None:
    rules = Rules(rooms={"R": RoomRule(code="R", key=KEY, max_peers=2)})
    async with keeping(tmp_path, rules) as relay:
        key = invite(relay)
        ann = await call(relay).hello("R", KEY)
        assert await code_of(ann) is None
        twin = await call(relay).hello("R", key, ANN, resume="ab" * 32)
        assert await code_of(twin) is Code.DUPLICATE_MAC
        full = await call(relay).hello("R", KEY, CAT)
        assert await code_of(full) is None
        assert await code_of(await call(relay).hello("R", key, BEN, resume="cd" * 32)) is Code.ROOM_FULL
        full.connection.close(0, "")
        await until(lambda: relay.peer_count == 1)
        assert not ann.connection.ended
        assert await code_of(await call(relay).hello("R", key, BEN, resume="ef" * 32)) is None
        assert await code_of(await call(relay).hello("R", key, CAT)) is Code.INVITE_USED


async def test_an_invite_is_good_again_where_the_place_went_while_it_was_written_down(
    tmp_path: Path, call: Callable[[Relay], Caller]
) -> None:
    rules = Rules(rooms={"R": RoomRule(code="R", key=KEY, max_peers=1)})
    async with keeping(tmp_path, rules) as relay:
        key, used = invite(relay), relay.gate.state.used
        with slow_disk(relay):
            late = await call(relay).hello("R", key, BEN, resume="ab" * 32)
            await until(lambda: bool(used.used))
            quick = await call(relay).hello("R", KEY, CAT)
            assert await code_of(quick) is None
            again = await call(relay).hello("R", key, BEN, resume="ab" * 32)
            assert await code_of(again) is Code.ROOM_FULL
            assert used.used, "the first hello still waits, and has used it"
        assert await code_of(late) is Code.ROOM_FULL
        quick.connection.close(0, "")
        await until(lambda: relay.peer_count == 0)
        assert not used.used
        await asyncio.to_thread(relay.gate.state._writer._thread.submit(bool).result)
        assert (tmp_path / "used-invites.json").read_bytes() == b"{}"
        assert await code_of(await call(relay).hello("R", key, CAT)) is None


async def test_an_invite_is_good_again_where_the_peer_went_while_it_was_written_down(
    tmp_path: Path, call: Callable[[Relay], Caller]
) -> None:
    async with keeping(tmp_path) as relay:
        key = invite(relay)
        with slow_disk(relay):
            gone = await call(relay).hello("R", key, resume="ab" * 32)
            await until(lambda: bool(relay.gate.state.used.used))
            gone.connection.close(0, "gave up")
            await until(lambda: all(c.ended for c in relay.gate._uses))
        await until(lambda: not relay.gate.state.used.used)
        assert await code_of(await call(relay).hello("R", key, BEN)) is None


async def test_an_invite_that_takes_a_forgotten_ones_place_is_on_the_disk_before_its_peer_is_in(
    tmp_path: Path, call: Callable[[Relay], Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "MAX_USED", 1)
    async with keeping(tmp_path) as relay:
        used = relay.gate.state.used
        used.use("over", int(time.time()) - 1, "ben", time.time())
        with slow_disk(relay):
            channel = await call(relay).hello("R", invite(relay))
            await until(lambda: "over" not in used.used)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(channel.receive(), 0.5)
        assert len(used.used) == 1
        await until(lambda: relay.peer_count == 1)


async def test_a_ban_holds_for_a_hello_that_waits(tmp_path: Path, call: Callable[[Relay], Caller]) -> None:
    async with keeping(tmp_path) as relay:
        ann = call(relay)
        with slow_disk(relay):
            channel = await ann.hello("R", invite(relay))
            await until(lambda: bool(relay.gate.state.used.used))
            relay.gate.state.bans.add(Ban(room="*", target=str(ANN)), time.time())
        refusal = await answer(channel)
        assert isinstance(refusal, Reject)
        assert refusal.code is Code.BANNED


async def test_who_tries_again_while_banned_uses_up_nothing_of_its_address(
    tmp_path: Path, call: Callable[[Relay], Caller]
) -> None:
    """As a standing service does, every few seconds; whatever key it has, nothing is stretched or counted for it."""
    rules = Rules(rooms={"R": RoomRule(code="R", key=KEY)})
    limits = GateLimits(wrong_keys=Rate(1e-6, 1), misbehaved=Rate(1e-6, 1), connections=2)
    async with keeping(tmp_path, rules, limits) as relay:
        ann = call(relay)
        relay.gate.state.bans.add(Ban(room="R", target=str(ANN)), time.time())
        async with relay.gate._stretching:
            relay.gate._secrets.clear()
            for _ in range(5):
                channel = await ann.hello("R", Passphrase("battery staple"))
                refusal = await answer(channel)
                assert isinstance(refusal, Reject)
                assert refusal.code is Code.BANNED
                await asyncio.wait_for(channel.connection.closed(), 10)
        assert isinstance(await answer(await ann.hello("R", KEY, BEN)), Welcome)


async def test_other_rules_hold_for_a_hello_that_waits(
    tmp_path: Path, call: Callable[[Relay], Caller]
) -> None:
    async with keeping(tmp_path, Rules(rooms={"R": RoomRule(code="R", key=KEY)})) as relay:
        ann = call(relay)
        async with relay.gate._stretching:
            relay.gate._secrets.clear()
            channel = await ann.hello("R", KEY)
            await asyncio.sleep(0.2)
            relay.replace_rules(Rules(rooms={"R": RoomRule(code="R", key=Passphrase("battery staple"))}))
        refusal = await answer(channel)
        assert isinstance(refusal, Reject)
        assert refusal.code is Code.KEY_WRONG


async def test_a_disk_that_takes_for_ever_keeps_nobody_out_for_ever(
    tmp_path: Path, call: Callable[[Relay], Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("softlan.relay.gate.USED_WITHIN_S", 0.2)
    async with keeping(tmp_path) as relay:
        ann = call(relay)
        with slow_disk(relay):
            assert isinstance(await answer(await ann.hello("R", invite(relay))), Welcome)


async def test_right_keys_side_by_side_are_no_wrong_ones(
    tmp_path: Path, call: Callable[[Relay], Caller]
) -> None:
    rules = Rules(rooms={"R": RoomRule(code="R", key=KEY)})
    gate = GateLimits(wrong_keys=Rate(1 / 6, 2))
    async with keeping(tmp_path, rules, gate) as relay:
        ann = call(relay)
        async with relay.gate._stretching:
            # As while the passphrases of other rooms are stretched.
            relay.gate._secrets.clear()
            channels = [
                await ann.hello("R", KEY, Mac(f"02:00:5e:10:00:{number:02x}")) for number in range(1, 6)
            ]
            await asyncio.sleep(0.2)
        answers = [await answer(channel) for channel in channels]
        assert all(isinstance(one, Welcome) for one in answers)


async def test_who_comes_back_is_not_kept_out_for_what_others_of_the_address_have_sent(
    tmp_path: Path, call: Callable[[Relay], Caller]
) -> None:
    rules = Rules(rooms={"R": RoomRule(code="R", open=True)})
    async with keeping(tmp_path, rules, GateLimits(misbehaved=Rate(1 / 6, 1))) as relay:
        ann = call(relay)
        assert isinstance(await answer(await ann.hello("R", None, ANN, resume="ab" * 32)), Welcome)
        rude = await ann.hello("R", None, BEN)
        assert isinstance(await answer(rude), Welcome)
        await rude.connection.write_control(encode_frame(b"[]"))
        await asyncio.wait_for(rude.connection.closed(), 10)
        assert isinstance(await answer(await ann.hello("R", None, ANN, resume="ab" * 32)), Welcome)
        refusal = await answer(await ann.hello("R", None, BEN))
        assert isinstance(refusal, Reject)
        assert refusal.code is Code.TOO_MANY_ATTEMPTS


KEYED_AND_OPEN = Rules(
    rooms={
        "R": RoomRule(code="R", key=KEY),
        "S": RoomRule(code="S", key=Passphrase("battery staple")),
        "SAME": RoomRule(code="SAME", key=KEY),
        "OPEN": RoomRule(code="OPEN", open=True),
    }
)


async def use_up(tries: int, caller: Caller) -> None:
    """Guess until the address may not try any more."""
    for _ in range(tries):
        assert await code_of(await caller.hello("R", Passphrase("wrong wrong"), BEN)) is Code.KEY_WRONG
    assert await code_of(await caller.hello("R", KEY, BEN)) is Code.TOO_MANY_ATTEMPTS


async def test_who_proves_its_key_again_is_not_kept_out_for_others_guesses(
    tmp_path: Path, call: Callable[[Relay], Caller]
) -> None:
    async with keeping(tmp_path, KEYED_AND_OPEN, GateLimits(wrong_keys=Rate(1e-6, 2))) as relay:
        caller, own = call(relay), invite(relay)
        for room, key, resume in (("R", KEY, "ab" * 32), ("R", own, "cd" * 32)):
            first = await caller.hello(room, key, ANN, resume=resume)
            assert await code_of(first) is None
            first.connection.close(0, "")
            await until(lambda: relay.peer_count == 0)
        await use_up(2, caller)
        for room, key, resume in (("R", KEY, "ab" * 32), ("R", own, "cd" * 32)):
            back = await caller.hello(room, key, ANN, resume=resume)
            assert await code_of(back) is None, "the relay had let it go"
            assert await code_of(await caller.hello(room, key, ANN, resume=resume)) is None, "it is in"
            relay.send_away(relay.peers()[0][0], Code.KICKED, "")
            await until(lambda: relay.peer_count == 0)


async def test_who_was_let_in_once_guesses_no_other_key_for_nothing(
    tmp_path: Path, call: Callable[[Relay], Caller]
) -> None:
    async with keeping(tmp_path, KEYED_AND_OPEN, GateLimits(wrong_keys=Rate(1e-6, 2))) as relay:
        caller, own = call(relay), invite(relay)
        in_r = await caller.hello("R", KEY, ANN, resume="ab" * 32)
        by_invite = await caller.hello("R", own, CAT, resume="cd" * 32)
        assert [await code_of(in_r), await code_of(by_invite)] == [None, None]
        await use_up(2, caller)
        for room, key, mac, resume in (
            ("SAME", KEY, ANN, "ab"),
            ("S", Passphrase("battery staple"), ANN, "ab"),
            ("R", KEY, CAT, "cd"),
            ("R", KEY, ANN, "ef"),
            ("R", KEY, BEN, "ab"),
            ("R", Passphrase("wrong wrong"), ANN, "ab"),
        ):
            guess = await caller.hello(room, key, mac, resume=resume * 32)
            assert await code_of(guess) is Code.TOO_MANY_ATTEMPTS
        right = await caller.hello("R", KEY, ANN, resume="ab" * 32)
        assert await code_of(right) is Code.TOO_MANY_ATTEMPTS, "it came with another key meanwhile"


async def test_a_proof_that_nobody_looks_at_is_no_guess(
    tmp_path: Path, call: Callable[[Relay], Caller]
) -> None:
    async with keeping(tmp_path, KEYED_AND_OPEN, GateLimits(wrong_keys=Rate(1e-6, 2))) as relay:
        caller = call(relay)
        assert await code_of(await caller.hello("OPEN", KEY, ANN)) is None
        await use_up(2, caller)
        assert await code_of(await caller.hello("OPEN", KEY, CAT)) is None
        assert await code_of(await caller.hello("NOT-THERE", KEY, CAT)) is Code.TOO_MANY_ATTEMPTS


async def test_who_cannot_be_plugged_in_leaves_nothing_behind(
    tmp_path: Path, call: Callable[[Relay], Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = Rules(rooms={"R": RoomRule(code="R", open=True, limits={"limit_total": 1 << 80})})
    async with keeping(tmp_path, rules) as relay:
        ann = call(relay)
        failed = await ann.hello("R", None)
        closed = await asyncio.wait_for(failed.connection.closed(), 10)
        assert closed.code == Code.INTERNAL_ERROR.number
        assert (relay.peer_count, relay.room_count) == (0, 0)
        relay.replace_rules(Rules(rooms={"R": RoomRule(code="R", open=True)}))
        assert isinstance(await answer(await ann.hello("R", None)), Welcome)
        assert isinstance(await answer(await ann.hello("R", None, BEN)), Welcome)


async def test_a_peer_that_is_sent_away_is_counted_once(tmp_path: Path) -> None:
    rules = Rules(rooms={"R": RoomRule(code="R", open=True)})
    async with (
        keeping(tmp_path, rules) as relay,
        Session.join(
            relay=relay.local_address, room="R", certificate=SHOWN.leaf, server_name=NAME
        ) as session,
    ):
        await session.send(b"\xff" * 6 + bytes(session.mac) + b"\x88\xb5" + bytes(46))
        await until(lambda: relay.numbers().rooms["R"].counters["frames_received"] == 1)
        (peer,) = relay._peers.values()
        counted = relay.numbers().rooms["R"].counters
        relay.send_away(peer.member, Code.KICKED, "enough")
        assert relay._peers, "it has not left yet"
        assert relay.numbers().rooms["R"].counters == counted
        assert relay.numbers().turned_away == {Code.KICKED: 1}


async def test_a_relay_that_ends_by_itself_says_so(tmp_path: Path) -> None:
    class Service:
        def ready(self) -> None: ...

        def stopping(self) -> None: ...

    async with keeping(tmp_path) as relay:
        ending = asyncio.create_task(cli._serve(relay, Service(), asyncio.Event(), 0))  # type: ignore[arg-type]
        await asyncio.sleep(0.1)
        # Its data plane is gone: nobody is accepted any more.
        await relay._endpoint.close(0, "")
        relay._endpoint.stop()
        with pytest.raises(SoftlanError, match="ended by itself"):
            await asyncio.wait_for(ending, 15)
