"""Who gets in, seen by a stranger's implementation: keys, invites, and what one address or peer may ask of the relay."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from interop_keys import prove
from interop_peer import Peer, hello_of
from interop_relay import RelayProcess, connected, running_relay

pytestmark = pytest.mark.slow

ANN, BEN, CAT = "02:00:00:00:00:0a", "02:00:00:00:00:0b", "02:00:00:00:00:0c"
ROOMS = """
[[room]]
code = "KEYED"
key = "correct horse"
gateway-key = "battery staple"

[[room]]
code = "OPEN"
open = true

[[room]]
code = "INVITED"
"""
NUMBERS = {
    "key-required": 17,
    "key-wrong": 18,
    "invite-expired": 19,
    "invite-used": 20,
    "gateway-not-allowed": 21,
    "banned": 22,
    "too-many-attempts": 23,
    "too-many-connections": 24,
    "control-flood": 25,
    "kicked": 16,
}


@dataclass
class Operated:
    """A relay, and its operator's command."""

    relay: RelayProcess
    directory: Path

    def admin(self, *words: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.tool("admin", "--json", *words))
        return answer

    def ask(self, **request: Any) -> dict[str, Any]:
        """What `softlan admin` asks, without starting a process for it."""
        (path,) = self.directory.glob("*.admin")
        done: dict[str, Any] = self._talk(path, json.dumps(request).encode() + b"\n")["done"]
        return done

    def turned_away(self, code: str) -> int:
        (path,) = self.directory.glob("*.status")
        return int(self._talk(path)["status"]["turned_away"].get(code, 0))

    def _talk(self, path: Path, words: bytes = b"") -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(10)
            connection.connect(str(path))
            if words:
                connection.sendall(words)
            answer: dict[str, Any] = json.loads(connection.makefile("rb").read())
            return answer

    async def says(self, event: str, times: int = 1) -> None:
        """Wait until the relay has logged an event, so many times in all."""
        for _ in range(500):
            if sum(f'"{event}"' in line for line in self.relay.lines) >= times:
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"no {event} in\n" + "".join(self.relay.lines))

    def tool(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "softlan", *words],
            env={**os.environ, "SOFTLAN_RUNTIME_DIR": str(self.directory)},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def invite(self, room: str, **more: Any) -> str:
        key: str = self.ask(ask="invite", room=room, **more)["key"]
        return key


def operated(directory: Path, *options: str) -> Iterator[Operated]:
    rooms = directory / "rooms.toml"
    rooms.write_text(ROOMS)
    with running_relay(
        directory, "--rooms", str(rooms), "--state", str(directory / "state"), *options
    ) as relay:
        yield Operated(relay, directory)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    """A relay that does not mind wrong keys much: the tests of this file share one address."""
    yield from operated(tmp_path_factory.mktemp("relay"), "--wrong-keys-per-minute", "600")


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[Operated]:
    """A relay with small limits."""
    yield from operated(
        tmp_path,
        "--wrong-keys-per-minute",
        "3",
        "--max-connections-per-address",
        "4",
        "--hellos-per-address",
        "1",
        "--misbehaved-per-minute",
        "2",
    )


async def attempt(
    host: Operated, room: str, key: str | None, mac: str | None = ANN, **more: Any
) -> dict[str, Any]:
    """The relay's answer to one hello on a connection of its own, which leaves again; holds it to the code's number."""
    async with connected(host.relay) as peer:
        return await ask(peer, room, key, mac, **more)


async def ask(peer: Peer, room: str, key: str | None, mac: str | None = ANN, **more: Any) -> dict[str, Any]:
    fields = {} if key is None else prove(peer, key, room, mac)
    peer.tell(hello_of(room, mac, **{**fields, **more}))
    answer = await peer.hear()
    if answer["type"] == "reject":
        closed = await asyncio.wait_for(peer.closed, 5)
        assert closed.code == NUMBERS[answer["code"]]
    return answer


async def code_of(host: Operated, room: str, key: str | None, mac: str | None = ANN, **more: Any) -> str:
    answer = await attempt(host, room, key, mac, **more)
    return "welcome" if answer["type"] == "welcome" else str(answer["code"])


@pytest.mark.parametrize(
    ("room", "key", "mac", "expected"),
    [
        ("OPEN", None, ANN, "welcome"),
        ("OPEN", None, None, "welcome"),
        ("KEYED", "correct horse", ANN, "welcome"),
        ("KEYED", "correct horsf", ANN, "key-wrong"),
        ("KEYED", None, ANN, "key-required"),
        ("KEYED", "battery staple", ANN, "key-wrong"),
        ("KEYED", "battery staple", None, "welcome"),
        ("KEYED", "correct horse", None, "gateway-not-allowed"),
        ("KEYED", None, None, "key-required"),
        ("INVITED", None, ANN, "key-required"),
        ("INVITED", "correct horse", ANN, "key-wrong"),
        ("UNHEARD-OF", None, ANN, "key-required"),
        ("UNHEARD-OF", "correct horse", ANN, "key-wrong"),
    ],
)
async def test_keys(host: Operated, room: str, key: str | None, mac: str | None, expected: str) -> None:
    assert await code_of(host, room, key, mac) == expected


async def test_a_proof_heard_elsewhere_is_worth_nothing(host: Operated) -> None:
    async with connected(host.relay) as ann, connected(host.relay) as thief:
        proof = prove(ann, "correct horse", "KEYED", ANN)
        assert (await ask(thief, "KEYED", None, ANN, **proof))["code"] == "key-wrong"
        assert (await ask(ann, "KEYED", None, ANN, **proof))["type"] == "welcome"


async def test_a_proof_is_for_its_mac(host: Operated) -> None:
    async with connected(host.relay) as peer:
        proof = prove(peer, "correct horse", "KEYED", ANN)
        assert (await ask(peer, "KEYED", None, BEN, **proof))["code"] == "key-wrong"


@pytest.mark.parametrize("room", ["KEYED", "INVITED", "NEVER-LISTED"])
async def test_invites(host: Operated, room: str) -> None:
    key = host.invite(room)
    assert await code_of(host, room, key) == "welcome"
    assert await code_of(host, room, key, BEN) == "welcome"
    assert await code_of(host, room, key, None) == "gateway-not-allowed"
    assert await code_of(host, "OPEN", key) == "key-wrong"
    assert await code_of(host, room, key[:-2] + ("AA" if key[-2:] != "AA" else "BA")) == "key-wrong"
    assert await code_of(host, room, host.invite(room, gateway=True), None) == "welcome"


async def test_an_expired_invite(host: Operated) -> None:
    key = host.invite("KEYED", expires_s=0.001)
    assert await code_of(host, "KEYED", key) == "invite-expired"


async def test_a_single_use_invite_twice(host: Operated) -> None:
    key = host.invite("INVITED", once=True)
    assert await code_of(host, "INVITED", key, ANN, resume="aa" * 32) == "welcome"
    assert await code_of(host, "INVITED", key, ANN, resume="aa" * 32) == "welcome", "the same peer comes back"
    assert await code_of(host, "INVITED", key, BEN, resume="bb" * 32) == "invite-used"
    assert await code_of(host, "INVITED", key, ANN, resume="bb" * 32) == "invite-used"


async def test_a_token_without_a_proof(host: Operated) -> None:
    async with connected(host.relay) as peer:
        peer.tell(hello_of("KEYED", ANN, token=host.invite("KEYED").split(".")[1]))
        answer = await peer.hear()
        assert (answer["code"], answer["field"]) == ("invalid-hello", "proof")


async def test_rules_are_read_again(tmp_path: Path) -> None:
    for host in operated(tmp_path):
        (tmp_path / "rooms.toml").write_text(ROOMS.replace("correct horse", "another horse"))
        host.relay.hang_up()
        await host.says("rules.loaded")
        assert await code_of(host, "KEYED", "correct horse") == "key-wrong"
        assert await code_of(host, "KEYED", "another horse") == "welcome"
        for times, wrong in enumerate(("code = 3", f"max-peers = {'9' * 5000}"), 1):
            (tmp_path / "rooms.toml").write_text(f"[[room]]\n{wrong}\n")
            host.relay.hang_up()
            await host.says("rules.failed", times)
        assert await code_of(host, "KEYED", "another horse") == "welcome"


# By the operator's hand


async def test_kick(host: Operated) -> None:
    async with connected(host.relay) as ann, connected(host.relay) as ben:
        peer_id = (await ann.join("OPEN", ANN))["peer_id"]
        await ben.join("OPEN", BEN)
        assert host.admin("kick", "open", str(peer_id))["kicked"]["mac"] == ANN
        left = await ben.hear("peer_left")
        assert left == {"type": "peer_left", "peer_id": peer_id, "reason": "kicked"}
        assert (await ann.hear("disconnect"))["code"] == "kicked"
        assert (await asyncio.wait_for(ann.closed, 5)).code == 16
    async with connected(host.relay) as peer:
        peer.tell(hello_of("OPEN", ANN))
        answer = await peer.hear()
        assert answer["code"] == "kicked"
        assert "minute" in answer["reason"]
    assert await code_of(host, "OPEN", None, CAT) == "welcome"
    host.ask(ask="unban", room="OPEN", target=ANN)
    assert await code_of(host, "OPEN", None, ANN) == "welcome"


async def test_ban(host: Operated) -> None:
    async with connected(host.relay) as ann:
        await ann.join("OPEN", ANN)
        gone = host.admin("ban", "OPEN", ANN, "--for", "1h")["disconnected"]
        assert [entry["mac"] for entry in gone] == [ANN]
        assert (await asyncio.wait_for(ann.closed, 5)).code == 22
    assert await code_of(host, "OPEN", None, ANN) == "banned"
    assert [entry["target"] for entry in host.ask(ask="bans")["bans"]] == [ANN]
    assert json.loads((host.directory / "state" / "bans.json").read_text())[0]["target"] == ANN
    host.admin("unban", "*", ANN)
    assert await code_of(host, "OPEN", None, ANN) == "welcome"
    host.ask(ask="ban", room="*", target="127.0.0.0/8")
    assert await code_of(host, "KEYED", "correct horse", BEN) == "banned"
    host.ask(ask="unban", room="*", target="127.0.0.0/8")
    assert host.turned_away("banned") >= 3


async def test_what_an_operator_gets_wrong_is_told(host: Operated) -> None:
    for words, told in ((("kick", "OPEN", "77"), "no peer"), (("unban", "*", CAT), "nothing bans")):
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "softlan", "admin", *words],
            env={**os.environ, "SOFTLAN_RUNTIME_DIR": str(host.directory)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert told in done.stderr
        assert "hint: " in done.stderr


async def test_the_sockets_are_the_owners_alone(host: Operated) -> None:
    sockets = [*host.directory.glob("*.admin"), *host.directory.glob("*.status")]
    assert len(sockets) == 2
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in sockets)


async def test_an_invite_carries_the_pin(host: Operated) -> None:
    (listening,) = [json.loads(line) for line in host.relay.lines if "relay.listening" in line]
    assert host.admin("invite", "OPEN", "--single-use")["pins"] == [listening["pin"]]
    assert len(listening["pin"]) == 43


# Addresses


def elsewhere(last: int) -> socket.socket:
    """A socket of another address, at which nobody listens."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((f"127.0.0.{last}", 0))
    return sock


async def test_a_ban_is_not_evaded_by_a_forged_source(host: Operated) -> None:
    assert await code_of(host, "OPEN", None) == "welcome"
    host.ask(ask="ban", target="127.0.0.1", room="OPEN")
    try:
        assert await code_of(host, "OPEN", None) == "banned"
        with elsewhere(3) as forged:
            async with connected(host.relay) as peer:
                peer.tell_from(forged, hello_of("OPEN", ANN))
                # What the relay sends there is lost; a packet from where the peer is brings the connection back.
                await asyncio.sleep(0.1)
                peer.show_up()
                assert (await peer.hear())["code"] == "banned"
        assert host.ask(ask="peers")["rooms"] == []
    finally:
        host.ask(ask="unban", target="127.0.0.1", room="OPEN")


async def test_a_kick_is_not_evaded_by_a_forged_source(host: Operated) -> None:
    with elsewhere(4) as forged:
        async with connected(host.relay) as gateway:
            await gateway.join("OPEN", None)
            for _ in range(100):
                gateway.tell_from(forged, {"type": "disregard"})
                [peer] = host.ask(ask="peers", room="OPEN")["rooms"][0]["peers"]
                if peer["address"].startswith("127.0.0.4:"):
                    break
            assert peer["came_from"].startswith("127.0.0.1:")
            host.ask(ask="kick", room="OPEN", peer=str(peer["peer_id"]))
    assert await code_of(host, "OPEN", None, None) == "kicked"
    # Or the other tests' gateways would be kept out for a minute.
    for target in ("127.0.0.1", "127.0.0.4"):
        assert host.ask(ask="unban", target=target, room="OPEN")["lifted"] == 1


async def test_guesses_are_not_charged_to_a_forged_source(strict: Operated) -> None:
    codes = []
    for number in range(4):
        with elsewhere(10 + number) as forged:
            async with connected(strict.relay) as peer:
                peer.tell_from(forged, hello_of("KEYED", ANN, proof="00" * 32))
                await asyncio.sleep(0.1)
                peer.show_up()
                codes.append((await peer.hear())["code"])
    assert codes == ["key-wrong"] * 3 + ["too-many-attempts"]


# Limits


async def test_wrong_keys_are_limited_and_even_the_right_one_then_waits(strict: Operated) -> None:
    for _ in range(3):
        assert await code_of(strict, "KEYED", "wrong wrong") == "key-wrong"
    assert await code_of(strict, "KEYED", "wrong wrong") == "too-many-attempts"
    assert await code_of(strict, "KEYED", "correct horse") == "too-many-attempts"
    assert await code_of(strict, "OPEN", None) == "welcome", "who proves nothing cannot be guessing"
    assert strict.turned_away("key-wrong") == 3
    assert strict.turned_away("too-many-attempts") == 2


async def test_guesses_side_by_side_are_counted_too(strict: Operated) -> None:
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(connected(strict.relay)) for _ in range(4)]
        answers = await asyncio.gather(*(ask(peer, "KEYED", "wrong wrong") for peer in peers))
    codes = sorted(answer["code"] for answer in answers)
    assert codes == ["key-wrong"] * 3 + ["too-many-attempts"]


async def test_connections_of_one_address_are_limited(strict: Operated) -> None:
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(connected(strict.relay)) for _ in range(4)]
        fifth = await stack.enter_async_context(connected(strict.relay))
        assert (await asyncio.wait_for(fifth.closed, 5)).code == NUMBERS["too-many-connections"]
        assert (await ask(peers[0], "OPEN", None))["type"] == "welcome", "those who were there stay"
    assert strict.turned_away("too-many-connections") == 1
    assert await code_of(strict, "OPEN", None) == "welcome", "a connection that ended is counted no more"


@pytest.fixture
async def at_the_desk(
    host: Operated,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to the operator's socket, with what comes back on it."""
    (path,) = host.directory.glob("*.admin")
    reader, writer = await asyncio.open_unix_connection(path)
    yield reader, writer
    writer.close()


async def all_of(reader: asyncio.StreamReader) -> bytes:
    """What comes until the relay hangs up, whether or not it had read everything by then."""
    try:
        return await asyncio.wait_for(reader.read(), 30)
    except ConnectionError:
        return b""


@pytest.mark.parametrize(("size", "is_answered"), [(4096, True), (4098, False), (1 << 20, False)])
async def test_a_request_longer_than_4_kib_is_not_answered(
    at_the_desk: Any, size: int, is_answered: bool
) -> None:
    reader, writer = at_the_desk
    with contextlib.suppress(ConnectionError):
        writer.write(b'{"ask":"bans"}'.ljust(size - 1) + b"\n")
        await writer.drain()
    answer = await all_of(reader)
    assert answer == (b'{"done":{"bans":[]}}\n' if is_answered else b"")


@pytest.mark.parametrize("said", [b"", b'{"ask":"bans"'])
async def test_who_asks_the_operators_socket_nothing_is_hung_up_on(at_the_desk: Any, said: bytes) -> None:
    reader, writer = at_the_desk
    writer.write(said)
    assert await all_of(reader) == b""


async def test_a_request_with_a_field_nobody_knows_is_refused(at_the_desk: Any) -> None:
    reader, writer = at_the_desk
    writer.write(b'{"ask":"ban","room":"*","target":"192.0.2.1","for":60}\n')
    answer = json.loads(await all_of(reader))
    assert set(answer) == {"error", "hint"}
    assert "unknown field `for`" in answer["error"]


async def test_hellos_are_limited(strict: Operated) -> None:
    codes = [await code_of(strict, "OPEN", None) for _ in range(24)]
    assert codes[:16] == ["welcome"] * 16
    assert "too-many-attempts" in codes


async def test_who_is_thrown_out_again_and_again_stays_out_for_a_while(strict: Operated) -> None:
    async with connected(strict.relay) as bystander:
        await bystander.join("OPEN", BEN)
        for _ in range(2):
            async with connected(strict.relay) as rude:
                await rude.join("OPEN", ANN)
                rude.tell([])
                await asyncio.wait_for(rude.closed, 5)
        answer = await attempt(strict, "OPEN", None)
        assert answer["code"] == "too-many-attempts"
        assert "disconnected for what they sent" in answer["reason"]
        await bystander.silence(0.1)
        assert not bystander.closed.done(), "who is in stays in"


@pytest.mark.parametrize("size", [10, 60000])
async def test_a_control_flood_ends_the_flooder_alone(host: Operated, size: int) -> None:
    async with connected(host.relay) as flooder, connected(host.relay) as ben:
        await flooder.join("OPEN", ANN)
        await ben.join("OPEN", BEN)
        before = host.turned_away("control-flood")
        for _ in range(400):
            if flooder.closed.done():
                break
            flooder.tell({"type": "whatever", "filling": "x" * size})
            await asyncio.sleep(0)
        assert (await asyncio.wait_for(flooder.closed, 20)).code == NUMBERS["control-flood"]
        assert (await ben.hear("peer_left"))["reason"] == "control-flood"
        assert host.turned_away("control-flood") == before + 1
        ben.tell({"type": "stats", "counters": {}, "interval_s": 1})
        await ben.silence(0.2)
        assert not ben.closed.done()
