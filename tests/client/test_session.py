"""`RelaySession`: what a client and a gateway make of a relay, or a way to it, that does not do what it should."""

import asyncio
import contextlib
import shutil
import sys
import time
from pathlib import Path

import pytest

from softlan._core import Endpoint, TransportSettings
from softlan.client import Session, session
from softlan.config import parse_host_port
from softlan.control.codes import Code
from softlan.control.keys import issue
from softlan.control.messages import Reject
from softlan.errors import RejectedError, RelayUnreachableError, SoftlanError
from softlan.relay.certificates import make_dev_certificate
from softlan.relay.gate import GateLimits
from softlan.relay.rooms import RoomPolicy
from softlan.relay.rules import OPEN_RULES, Rules
from softlan.relay.server import Relay, RelayConfig
from softlan.relay.state import RelayState

sys.path.append(str(Path(__file__).parents[1] / "relay"))

from serving import NAME, SHOWN, serving, until

INVITES_ONLY = Rules()


def join(address, **more):
    return Session.join(relay=address, room="A", certificate=SHOWN.leaf, server_name=NAME, **more)


def followed_by(second, listen="127.0.0.1:0", **more):
    """The settings of a relay that names another as its successor."""
    return RelayConfig(listen=listen, successor=parse_host_port(second.local_address), **more)


def invite_of(state):
    return issue(state.invite_key, "A", expires=int(time.time()) + 999, once=True)


@contextlib.asynccontextmanager
async def moved_on(second, state=None):
    """A session whose relay has ended and named `second`; gives it and where its relay was. With a state it came by an invite."""
    rules, key = (OPEN_RULES, None) if state is None else (INVITES_ONLY, invite_of(state))
    async with contextlib.AsyncExitStack() as stack:
        async with serving(followed_by(second), rules, state) as former:
            address = former.local_address
            joined = await stack.enter_async_context(join(address, key=key))
        del former  # whoever has the endpoint has its socket
        yield joined, address


@contextlib.asynccontextmanager
async def relay_that_throws_out(monkeypatch):
    """A relay at which a peer is in the room for a moment, each time."""

    async def fail(*_):
        await asyncio.sleep(0.2)  # so that the welcome is read
        raise RuntimeError("a fault of the relay's")

    async with serving(RelayConfig(listen="127.0.0.1:0")) as relay:
        monkeypatch.setattr(Relay, "_listen_to", fail)
        yield relay


async def pauses_between(monkeypatch, relay, count):
    """The first pauses of a session that comes back at once."""
    pauses = []

    async def pause(_, seconds):
        pauses.append(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr(session.RelaySession, "_pause", pause)
    async with join(relay.local_address):
        await until(lambda: len(pauses) >= count)
    return pauses[:count]


async def test_stays_that_do_not_last_are_ever_further_apart(monkeypatch):
    async with relay_that_throws_out(monkeypatch) as relay:
        pauses = await pauses_between(monkeypatch, relay, 6)
    assert min(pauses[-3:]) >= session._BACKOFF_S[-1] / 2


async def test_after_a_stay_that_lasted_a_session_is_back_at_once(monkeypatch):
    monkeypatch.setattr(session, "_BRIEF_S", 0.0)
    async with relay_that_throws_out(monkeypatch) as relay:
        pauses = await pauses_between(monkeypatch, relay, 6)
    assert max(pauses) <= session._BACKOFF_S[0]


async def test_a_relay_that_hangs_up_before_the_hello_has_its_code_understood():
    limits = GateLimits(connections=1)
    async with serving(RelayConfig(listen="127.0.0.1:0", gate=limits)) as relay, join(relay.local_address):
        with pytest.raises(RejectedError) as refused:
            async with join(relay.local_address):
                pass
    assert refused.value.code is Code.TOO_MANY_CONNECTIONS
    assert refused.value.hint


async def test_a_relay_that_ends_the_stream_and_keeps_the_connection_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(session, "_WELCOME_S", 0.5)
    endpoint = Endpoint.server("127.0.0.1:0", list(SHOWN.chain), SHOWN.key, TransportSettings())
    kept = []

    async def end_streams():
        while (connection := await endpoint.accept()) is not None:
            kept.append(connection)
            await connection.accept_control()
            await connection.read_control(1000)
            await connection.finish_control(timeout=0.1)

    relay = asyncio.create_task(end_streams())
    try:
        async with asyncio.timeout(15):
            with pytest.raises(RelayUnreachableError, match="did not answer the hello"):
                async with join(endpoint.local_address):
                    pass
    finally:
        relay.cancel()
        endpoint.stop()


async def test_who_is_in_the_room_comes_back_from_a_connection_without_its_stream():
    async with serving(RelayConfig(listen="127.0.0.1:0")) as relay, join(relay.local_address) as joined:
        (peer,) = relay._peers.values()
        await peer.channel.finish()
        await until(lambda: joined._inner.joins == 2)


class _Line(asyncio.DatagramProtocol):
    """A relay's UDP, which can lose everything, or everything but handshakes, those of connections begun since or of all."""

    def __init__(self, relay):
        self.relay, self.player, self.mode, self.known = relay, None, "whole", b""

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        if address != self.relay:
            self.player = address
            self.transport.sendto(data, self.relay)
            return
        # RFC 9000 section 17.3: short headers have the highest bit clear, and begin with the connection id.
        is_short = not data[0] & 0x80
        if is_short and self.mode == "whole":
            self.known = data[1:3]
        passes = {"whole": True, "dead": False, "handshakes": not is_short}
        if passes.get(self.mode, not is_short or data[1:3] == self.known):
            self.transport.sendto(data, self.player)


@contextlib.asynccontextmanager
async def line_to(relay):
    """A line to a relay, and what to join it by."""
    host, port = relay.local_address.rsplit(":", 1)
    transport, line = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Line((host, int(port))), local_addr=("127.0.0.1", 0)
    )
    with contextlib.closing(transport):
        yield line, "{}:{}".format(*transport.get_extra_info("sockname"))


@pytest.mark.parametrize("dead_s", [session._SILENCE_S + 0.1, 1.8])
async def test_a_line_that_is_dead_for_less_than_the_idle_timeout_costs_no_connection(monkeypatch, dead_s):
    async with (
        serving(RelayConfig(listen="127.0.0.1:0")) as relay,
        line_to(relay) as (line, address),
        join(address) as joined,
    ):
        inner, doubts = joined._inner, []
        connect = session.RelaySession._connect_beside

        async def doubt(*arguments):
            doubts.append(arguments)
            return await connect(*arguments)

        monkeypatch.setattr(session.RelaySession, "_connect_beside", doubt)
        before = inner.connection
        line.mode = "dead"
        await asyncio.sleep(dead_s)
        line.mode = "whole"
        await until(lambda: doubts)
        await asyncio.sleep(session._RECONNECT_S + 1)  # whatever was begun in doubt has come to its end
        assert inner.connection is before
        assert (inner.joins, relay.peer_count) == (1, 1)


async def test_who_was_replaced_does_not_come_back_for_its_place(monkeypatch):
    """A session that is busy in that moment sees that its connection is silent before it reads why."""
    closed = session.RelaySession._closed

    async def late(*arguments):
        await asyncio.sleep(0.5)
        return await closed(*arguments)

    monkeypatch.setattr(session.RelaySession, "_closed", late)
    async with serving(RelayConfig(listen="127.0.0.1:0")) as relay, join(relay.local_address) as joined:
        (peer,) = relay._peers.values()
        peer.channel.connection.close(Code.REPLACED.number, Code.REPLACED.meaning)
        await until(joined._running.done)
        assert isinstance(joined._failure, RejectedError)
        assert (joined._inner.joins, relay.peer_count) == (1, 0)


async def test_a_session_is_not_ended_by_its_own_second_connection(monkeypatch):
    """The relay lets the second connection in and tells the first that it was replaced; the welcome is lost on the way."""
    monkeypatch.setattr(session, "_BUDGET_S", 0.1)
    async with (
        serving(RelayConfig(listen="127.0.0.1:0")) as relay,
        line_to(relay) as (line, address),
        join(address) as joined,
    ):
        await until(lambda: joined.connected and relay.peer_count == 1)
        await asyncio.sleep(0.2)  # so that the line has seen the connection's id
        before = set(relay._peers)
        line.mode = "handshakes"
        await until(lambda: relay._peers and not before & set(relay._peers))
        line.mode = "old"
        await until(lambda: not joined.connected)
        line.mode = "whole"
        await until(lambda: joined.connected)


async def test_a_second_connection_that_comes_about_with_the_goodbye_is_let_go(monkeypatch):
    """The goodbye waits for a relay that is silent; meanwhile the second connection is welcomed."""
    monkeypatch.setattr(session, "_BUDGET_S", 0.1)
    ask_in, say_goodbye = session.RelaySession._ask_in, session.RelaySession._say_goodbye
    welcomes = []

    async def note(*arguments):
        welcomes.append(await ask_in(*arguments))
        return welcomes[-1]

    async def wait(*arguments):
        await until(lambda: len(welcomes) == 2)
        await say_goodbye(*arguments)

    monkeypatch.setattr(session.RelaySession, "_ask_in", note)
    monkeypatch.setattr(session.RelaySession, "_say_goodbye", wait)
    async with serving(RelayConfig(listen="127.0.0.1:0")) as relay:
        async with line_to(relay) as (line, address), join(address) as joined:
            await until(lambda: joined.connected and relay.peer_count == 1)
            before = set(relay._peers)
            line.mode = "handshakes"
            await until(lambda: relay._peers and not before & set(relay._peers))
            line.mode = "whole"
            joined._inner.stop()
            await until(lambda: len(welcomes) == 2)
        await until(lambda: not [task for task in asyncio.all_tasks() if "._write" in repr(task)])


async def test_a_room_that_cannot_be_used_leaves_no_connection(monkeypatch):
    """An adapter that is just not there when the session comes back: the next attempt may find it."""
    async with serving(RelayConfig(listen="127.0.0.1:0")) as relay, join(relay.local_address) as joined:
        handler, paused = joined._inner._handler, []
        enter = handler.joined

        def refuse(*_):
            raise SoftlanError("the adapter is restarting")

        async def pause(_, seconds):
            paused.append(joined.connected)
            if len(paused) == 2:
                handler.joined = enter
            await asyncio.sleep(seconds)

        handler.joined = refuse
        monkeypatch.setattr(session.RelaySession, "_pause", pause)
        (peer,) = relay._peers.values()
        peer.channel.connection.close(Code.INTERNAL_ERROR.number, "")
        await until(lambda: joined._inner.joins == 2)
        assert paused == [False, False]
        assert joined.connected


async def test_a_successor_that_knows_nothing_of_its_invites_does_not_end_a_session(caplog):
    """It goes on with the relay it was given, which may be back, and does not use up the successor's tries at keys."""
    state = RelayState()
    second = serving(RelayConfig(listen="127.0.0.1:0"), INVITES_ONLY, RelayState())
    async with second as other, moved_on(other, state) as (joined, address):
        await until(lambda: other.gate.turned_away[Code.KEY_WRONG] == 1)
        await until(lambda: f"going back to {address}" in caplog.text)
        async with serving(RelayConfig(listen=address), INVITES_ONLY, state) as back:
            await until(lambda: back.peer_count == 1)
            await until(lambda: joined.connected)
        assert other.gate.turned_away == {Code.KEY_WRONG: 1}


async def test_a_successor_without_a_place_does_not_end_a_session():
    second = serving(RelayConfig(listen="127.0.0.1:0", policy=RoomPolicy(max_peers_per_room=1)))
    async with second as other, join(other.local_address), moved_on(other) as (_, address):
        await until(lambda: other.gate.turned_away[Code.ROOM_FULL] == 1)
        async with serving(RelayConfig(listen=address)) as back:
            await until(lambda: back.peer_count == 1)


async def test_a_successor_with_another_key_is_not_joined(caplog):
    caplog.set_level("INFO")
    second = serving(RelayConfig(listen="127.0.0.1:0"), shown=make_dev_certificate(NAME))
    async with second as other, moved_on(other) as (_, address):
        await until(lambda: f"{other.local_address} answered, but it is not the relay" in caplog.text)
        async with serving(RelayConfig(listen=address)) as back:
            await until(lambda: back.peer_count == 1)
        assert other.gate.turned_away == {}


async def test_the_relay_that_was_given_has_the_last_word():
    """Its refusal ends the session, where the successor's has not."""
    state = RelayState()
    second = serving(RelayConfig(listen="127.0.0.1:0"), INVITES_ONLY, RelayState())
    async with second as other, moved_on(other, state) as (joined, address):
        await until(lambda: other.gate.turned_away[Code.KEY_WRONG] == 1)
        policy = RoomPolicy(allowed_rooms=frozenset({"OTHER"}))
        async with serving(RelayConfig(listen=address, policy=policy), INVITES_ONLY, state):
            with pytest.raises(RejectedError) as refused:
                await asyncio.wait_for(anext(joined.frames()), 15)
    assert refused.value.code is Code.INVALID_ROOM


async def test_a_successor_with_a_copy_of_the_state_takes_the_invites(tmp_path):
    """Those for a single use too, from who has used them."""
    state = RelayState.open(tmp_path / "first")
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    copy = RelayState.open(tmp_path / "second")
    with contextlib.closing(state), contextlib.closing(copy):
        second = serving(RelayConfig(listen="127.0.0.1:0"), INVITES_ONLY, copy)
        async with second as other, moved_on(other, state) as (joined, _):
            await until(lambda: other.peer_count == 1)
            await until(lambda: joined.connected)


def lose(joined):
    joined._inner.connection.close(Code.CONNECTION_LOST.number, "")


@contextlib.asynccontextmanager
async def forgotten(config, monkeypatch):
    """A relay that drains, at which a session asks to be let in again that was not there when it began; gives the relay."""
    async with serving(config) as relay, join(relay.local_address) as joined:
        monkeypatch.setattr(relay._rooms, "has_kept_place", lambda _: False)
        draining = asyncio.create_task(relay.drain(86400))
        await asyncio.sleep(0)
        lose(joined)
        yield relay
        draining.cancel()


async def test_who_asks_a_relay_that_goes_down_is_told_of_its_successor(monkeypatch):
    """However often it asked before."""
    monkeypatch.setattr(session, "_BACKOFF_S", (0.01,))
    second = serving(RelayConfig(listen="127.0.0.1:0"))
    async with second as other, serving(followed_by(other)) as relay, join(relay.local_address) as joined:
        asked = []

        async def judge(hello, *_, **__):
            asked.append(hello)
            if len(asked) <= 2 * session._ELSEWHERE_ATTEMPTS:
                return Reject(code=Code.RELAY_FULL, reason="full")
            await until(lambda: relay.peer_count == 0)
            await relay.drain(60)  # nobody is in, so that it does not wait
            return None

        monkeypatch.setattr(relay.gate, "judge", judge)
        lose(joined)
        await until(lambda: other.peer_count == 1)
        await until(lambda: joined.connected)
        assert joined._inner.relay == parse_host_port(other.local_address)


async def test_who_asks_a_relay_that_goes_down_is_told_when_it_is_back(monkeypatch):
    pauses = []

    async def pause(_, seconds):
        pauses.append(seconds)
        await asyncio.sleep(0.01)

    monkeypatch.setattr(session.RelaySession, "_pause", pause)
    async with forgotten(RelayConfig(listen="127.0.0.1:0", back_in_s=50), monkeypatch):
        await until(lambda: len(pauses) >= 3)
    assert 50 <= pauses[-1] <= 62.5


async def test_a_successor_that_refused_is_not_asked_again_and_again(monkeypatch):
    """A relay that drains names it each time."""
    monkeypatch.setattr(session, "_BACKOFF_S", (0.01,))
    second = serving(RelayConfig(listen="127.0.0.1:0"), INVITES_ONLY, RelayState())
    async with second as other, forgotten(followed_by(other), monkeypatch) as relay:
        await until(lambda: relay.gate.turned_away[Code.SHUTTING_DOWN] >= 5)
        assert other.gate.turned_away == {Code.KEY_REQUIRED: 1}
