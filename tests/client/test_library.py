"""`softlan.client.Session`: a room for programs, over loopback and without any rights."""

import asyncio
import contextlib
import re
import ssl
from pathlib import Path

import pytest

from softlan._core import Mac
from softlan.client import Session
from softlan.control.codes import Code
from softlan.control.messages import Disconnect, Role
from softlan.errors import ConfigError, RejectedError, SoftlanError, TrustError
from softlan.lab.testing import skip
from softlan.relay.certificates import make_dev_certificate
from softlan.relay.rooms import RoomPolicy
from softlan.relay.rules import OPEN_RULES, parse_rules
from softlan.relay.server import Relay, RelayConfig
from softlan.trust import public_key_pin

NAME = "relay.test"
CERTIFICATE = make_dev_certificate(NAME)
PIN = public_key_pin(CERTIFICATE.chain[0])
OTHER_CERTIFICATE = make_dev_certificate(NAME)
OTHER_PIN = public_key_pin(OTHER_CERTIFICATE.chain[0])
PEM = ssl.DER_cert_to_PEM_cert(CERTIFICATE.chain[0]).encode()
BROADCAST = b"\xff" * 6
ONE_KEYED_ROOM = """
[[room]]
code = "ROOM1"
key = "correct horse battery"
"""


@contextlib.asynccontextmanager
async def relay_at(listen="127.0.0.1:0", rules=OPEN_RULES, **policy):
    relay = Relay.start(RelayConfig(listen=listen, policy=RoomPolicy(**policy)), CERTIFICATE, rules)
    serving = asyncio.create_task(relay.serve())
    try:
        yield relay
    finally:
        await relay.close()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


@pytest.fixture
async def relay():
    async with relay_at() as made:
        yield made


def join(relay, **changes):
    usual = {
        "relay": relay.local_address,
        "room": "room1",
        "certificate": CERTIFICATE.chain[0],
        "server_name": NAME,
    }
    return Session.join(**{**usual, **changes})


def frame(session, *, to=BROADCAST, payload=b"hello", length=60):
    return (to + bytes(session.mac) + b"\x88\xb5" + payload).ljust(length, b"\0")


async def until(condition):
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not come about within 10 s")


def counters_of(relay, session):
    """The relay's counters of a session."""
    peers = [peer for room in relay.snapshot()["rooms"] for peer in room["peers"]]
    (counters,) = (peer["counters"] for peer in peers if peer["mac"] == str(session.mac))
    return counters


async def first(session):
    async with asyncio.timeout(10):
        return await anext(session.frames())


async def test_frames_go_to_the_others_and_not_back(relay):
    async with join(relay) as ann, join(relay) as ben, join(relay, room="elsewhere") as far:
        await until(lambda: len(ann.peers) == 1)
        assert ann.room == "ROOM1"
        assert [(peer.role, peer.mac) for peer in ann.peers] == [(Role.CLIENT, ben.mac)]
        assert ben.peers[0].peer_id == ann.peer_id
        assert ben.peers[0].mac == ann.mac
        assert far.peers == ()
        sent = frame(ann)
        await ann.send(sent)
        assert await first(ben) == sent
        answer = frame(ben, to=bytes(ann.mac), payload=b"hello yourself")
        await ben.send(answer)
        assert await first(ann) == answer
        assert ann.counters()["frames_received"] == 1
        assert far.counters()["frames_received"] == 0


async def test_frames_longer_than_a_datagram_arrive_whole(relay):
    async with join(relay) as ann, join(relay) as ben:
        await until(lambda: ann.peers)
        assert 1280 <= ann.mtu <= 1500
        # Longer than a LAN's: it comes to the relay, in fragments, and no further.
        await ann.send(frame(ann, length=9000))
        whole = frame(ann, length=1514)
        await ann.send(whole)
        assert await first(ben) == whole
        assert counters_of(relay, ann)["drop_jumbo"] == 1


async def test_who_leaves_is_seen_to_leave(relay):
    async with join(relay) as ann:
        async with join(relay):
            await until(lambda: len(ann.peers) == 1)
        await until(lambda: not ann.peers)


async def test_frames_end_when_the_session_is_left(relay):
    async with join(relay) as ann:
        reading = asyncio.create_task(anext(ann.frames(), None))
        await asyncio.sleep(0)
        await ann.leave()
        assert await reading is None
        with pytest.raises(SoftlanError, match="ended"):
            await ann.send(frame(ann))
    assert not ann.connected


async def test_what_nobody_reads_is_counted(relay):
    async with join(relay) as ann, join(relay, queue=4) as ben:
        await until(lambda: ann.peers)
        for _ in range(20):
            await ann.send(frame(ann, to=bytes(ben.mac)))
        await until(lambda: ben.counters()["frames_received"] == 20)
        await until(lambda: ben.lost == 16)
        assert len(await anext(ben.batches())) == 4


async def test_who_stops_reading_goes_on_where_it_stopped(relay):
    async with join(relay) as ann, join(relay) as ben:
        await until(lambda: ann.peers)
        sent = [frame(ann, payload=bytes([number])) for number in range(20)]
        for one in sent:
            await ann.send(one)
        await until(lambda: ben.counters()["frames_received"] == 20)
        assert [await first(ben) for _ in range(3)] == sent[:3]
        read = []
        async with asyncio.timeout(10):
            async for batch in ben.batches():
                read += batch
                if len(read) == 17:
                    break
        assert read == sent[3:]


async def test_a_full_queue_is_waited_for(relay):
    async with join(relay, queue=1) as ann, join(relay) as ben:
        await until(lambda: ann.peers)
        for _ in range(200):
            await ann.send(frame(ann, to=bytes(ben.mac)))
        await until(lambda: ann.counters()["frames_sent"] == 200)


@pytest.mark.parametrize("length", [13, 9217])
async def test_what_is_no_frame_is_refused(relay, length):
    async with join(relay) as ann:
        with pytest.raises(ValueError, match=str(length)):
            await ann.send(bytes(length))


async def test_refusals_say_why():
    async with relay_at(allowed_rooms=frozenset({"OTHER"})) as relay:
        with pytest.raises(RejectedError):
            async with join(relay):
                pass
        with pytest.raises(TrustError):
            async with join(relay, room="other", certificate=make_dev_certificate(NAME).chain[0]):
                pass


async def test_a_session_that_is_thrown_out_says_so(relay):
    async with join(relay) as ann:
        reading = asyncio.create_task(anext(ann.frames()))
        await until(lambda: relay._peers)
        for peer in relay._peers.values():
            peer.channel.post(Disconnect(code=Code.KICKED, reason="be nice"))
        with pytest.raises(RejectedError, match="be nice"):
            await reading
        with pytest.raises(RejectedError):
            await ann.send(frame(ann))


async def test_it_comes_back_to_a_restarted_relay():
    async with relay_at() as former:
        address = former.local_address
        session = join(former)
        await session.__aenter__()
    del former  # whoever has the endpoint has its socket
    try:
        await until(lambda: not session.connected)
        await session.send(frame(session))  # as on any LAN whose cable is out
        async with relay_at(address) as relay, join(relay) as ben:
            await until(lambda: ben.peers)
            await ben.send(frame(ben))
            assert (await first(session))[6:12] == bytes(ben.mac)
    finally:
        await session.leave()


async def test_it_comes_back_when_the_relay_says_goodbye_before_it_answers(relay, monkeypatch):
    """As a relay did that was about to end: no answer to the hello, and a close without a reason."""
    admit, hung_up = relay._admit, []

    async def hang_up_once(connection, channel, line):
        if hung_up:
            return await admit(connection, channel, line)
        await connection.accept_control()
        await channel.receive()
        relay.gate.heard_hello(line, connection)
        hung_up.append(connection)
        return None

    async with join(relay) as ann:
        await until(lambda: relay._peers)
        monkeypatch.setattr(relay, "_admit", hang_up_once)
        for peer in list(relay._peers.values()):
            peer.channel.post(Disconnect(code=Code.SHUTTING_DOWN, reason="in a moment"))
        await until(lambda: hung_up and ann.connected and relay._peers)


async def test_the_operator_sees_its_name(relay):
    async with join(relay, name="echo bot", mac="02:00:00:00:00:07") as bot:
        (room,) = relay.snapshot()["rooms"]
        (peer,) = room["peers"]
        assert peer["software"].startswith("echo bot; softlan/")
        assert bot.mac == Mac("02:00:00:00:00:07")


async def test_an_invite_is_all_it_takes(relay):
    async with Session.join(f"<softlan://{relay.local_address}/room1?pin={PIN}>") as ann, join(relay) as ben:
        await until(lambda: ann.peers)
        assert ann.peers[0].mac == ben.mac
        assert ann.room == "ROOM1"


async def test_an_invite_brings_the_room_s_key():
    async with relay_at(rules=parse_rules(ONE_KEYED_ROOM, str)) as relay:
        invite = f"softlan://{relay.local_address}/ROOM1?pin={PIN}"
        async with Session.join(f"{invite}&key=correct%20horse%20battery"):
            pass
        async with Session.join(invite, key="correct horse battery"):
            pass
        for wrong in (invite, f"{invite}&key=correct%20horse%20buttery"):
            with pytest.raises(RejectedError):
                async with Session.join(wrong):
                    pass


async def test_what_is_given_beside_an_invite_counts_more(relay):
    other = f"softlan://127.0.0.1:1/elsewhere?pin={OTHER_PIN}"
    async with Session.join(other, relay=relay.local_address, room="room2", pins=[PIN]) as ann:
        assert ann.room == "ROOM2"
    with pytest.raises(TrustError, match="pin"):
        async with Session.join(other, relay=relay.local_address):
            pass
    async with join(relay, invite=other) as ann:
        assert ann.room == "ROOM1"
    with pytest.raises(TrustError):
        async with join(relay, invite=f"softlan://h/R?pin={PIN}", certificate=OTHER_CERTIFICATE.chain[0]):
            pass
    # By another way it is the same relay: its certificate is held to the invite's name.
    there = {"relay": relay.local_address, "room": "room1", "certificate": CERTIFICATE.chain[0]}
    async with Session.join(f"softlan://{NAME}/room1", **there) as ann:
        assert ann.connected
    with pytest.raises(TrustError, match="another name"):
        async with Session.join("softlan://other.test/room1", **there):
            pass


async def test_a_name_in_another_script_is_the_one_in_its_certificate(relay):
    shown = make_dev_certificate("xn--mller-kva.example")
    relay.replace_certificate(shown)
    where = {"relay": relay.local_address, "room": "room1"}
    by_invite = {"invite": f"softlan://M%C3%BCller.example/R?pin={shown.pin}", "relay": relay.local_address}
    for given in (
        {**where, "pins": [shown.pin], "server_name": "müller.example"},
        {**where, "certificate": shown.leaf, "server_name": "müller.example"},
        by_invite,
    ):
        async with Session.join(**given) as ann:
            assert ann.connected
    with pytest.raises(ConfigError, match="host name"):
        Session.join(**where, pins=[PIN], server_name="ß" * 63)
    with pytest.raises(ConfigError, match="server name") as caught:
        async with Session.join(**where, pins=[PIN], server_name="127.1"):
            pass
    assert "--server-name" in caught.value.hint


async def test_without_authorities_nobody_is_said_to_have_answered(monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/dev/null")
    monkeypatch.setenv("SSL_CERT_DIR", "/nowhere")
    if ssl.create_default_context().get_ca_certs():
        skip("this system adds authorities of its own")
    with pytest.raises(ConfigError, match="no certificate authorities"):
        async with Session.join(relay="127.0.0.1:9", room="room1"):
            pass


async def test_a_certificate_is_a_file_or_what_is_in_one(relay, tmp_path):
    for kind, data in (("der", CERTIFICATE.chain[0]), ("pem", PEM)):
        file = tmp_path / f"relay.{kind}"
        file.write_bytes(data)
        for given in (data, file, str(file)):
            async with join(relay, certificate=given) as ann:
                assert ann.connected


async def test_a_certificate_that_tls_cannot_use_is_no_answer_of_the_relays():
    # It says of itself that it is signed with SHA-384 (RFC 5758 section 3.2), but in one place only.
    sha256, sha384 = (bytes.fromhex("2a8648ce3d0403") + bytes([number]) for number in (2, 3))
    odd = CERTIFICATE.leaf.replace(sha256, sha384, 1)
    with pytest.raises(ConfigError, match="unusable certificate") as caught:
        async with Session.join(relay="127.0.0.1:9", room="room1", certificate=odd):
            pass
    assert "pin" in caught.value.hint


async def test_what_an_invite_says_that_is_not_known_is_told(relay, caplog):
    async with Session.join(f"softlan://{relay.local_address}/R?pin={PIN}&colour=blue"):
        assert "'colour'" in caplog.text


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"relay": "127.0.0.1:1"},
        {"room": "R"},
        {"invite": "https://party.example.org/R"},
        {"invite": "softlan://127.0.0.1/R?pin=AAAA"},
        {"invite": "softlan://127.0.0.1/R", "pins": [PIN], "certificate": CERTIFICATE.chain[0]},
        {"relay": "127.0.0.1:1", "room": "R", "pins": PIN},
        {"relay": "127.0.0.1:1", "room": "R", "pins": ["short"]},
        {"relay": "127.0.0.1:1", "room": "R", "key": ""},
    ],
)
def test_an_entrance_that_makes_no_sense(wrong):
    with pytest.raises(ConfigError):
        Session.join(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"relay": "nowhere"},
        {"room": "no room"},
        {"mac": "01:00:5e:00:00:01"},
        {"certificate": "/nonexistent/relay.der"},
        {"certificate": b"garbage"},
        {"certificate": b""},
        {"certificate": PEM[:-40]},
        {"name": "x" * 33},
        {"name": "line\nbreak"},
        {"queue": 0},
    ],
)
def test_arguments_that_make_no_sense(wrong):
    usual = {"relay": "127.0.0.1:1", "room": "R", "certificate": CERTIFICATE.chain[0]}
    assert Session.join(**usual)
    with pytest.raises(ConfigError):
        Session.join(**{**usual, **wrong})


async def test_a_session_is_entered_once(relay):
    session = join(relay)
    with pytest.raises(RuntimeError):
        await session.send(b"\0" * 60)
    async with session:
        pass
    with pytest.raises(RuntimeError, match="once"):
        await session.__aenter__()


async def test_the_example_in_the_document(relay, capsys):
    """As it stands in docs/library.md, but for the invite's dots."""
    text = (Path(__file__).parents[2] / "docs" / "library.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    invite = f"softlan://{relay.local_address}/ROOM1?pin={PIN}"
    example = re.sub(r"softlan://[^\"]+", invite, example).replace("asyncio.run(main())\n", "")
    defined = {}
    exec(example, defined)
    async with join(relay) as other:
        running = asyncio.create_task(defined["main"]())
        heard = await first(other)
        assert heard[12:].rstrip(b"\0") == b"\x88\xb5hello".ljust(48)
        await other.send(frame(other, length=77))
        said = ""
        while "77 bytes from" not in said:
            assert not running.done()
            said += capsys.readouterr().out
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
