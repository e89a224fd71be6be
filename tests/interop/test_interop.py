"""The relay against a stranger's implementation of docs/protocol.md: what it says, does and refuses."""

from __future__ import annotations

import asyncio
import json
import struct
from typing import Any

import pytest
from interop_peer import BUDGET, Closed, Peer, fragments, hello_of, whole

pytestmark = pytest.mark.slow

ANN, BEN, CAT = "02:00:00:00:00:0a", "02:00:00:00:00:0b", "02:00:00:00:00:0c"
NOBODY = bytes.fromhex("02000000ffff")
BROADCAST = b"\xff" * 6


def frame_of(source: str, destination: bytes = BROADCAST, length: int = 60, fill: int = 0x61) -> bytes:
    header = destination + bytes.fromhex(source.replace(":", "")) + b"\x88\xb5"
    return header + bytes((fill + index) & 0xFF for index in range(length - 14))


async def refused(peer: Peer, code: str, number: int) -> dict[str, Any]:
    """The reject that comes and the close that follows, both with the code of the document's table."""
    answer = await peer.hear()
    assert answer["type"] == "reject", answer
    assert answer["code"] == code
    assert answer["reason"]
    closed = await asyncio.wait_for(peer.closed, 5)
    assert closed.code == number
    return answer


# In the room


async def test_welcome(join: Any) -> None:
    ann = await join(ANN)
    ben = await join(BEN)
    assert ann.peer_id != ben.peer_id
    joined = await ann.hear("peer_joined")
    assert joined == {"type": "peer_joined", "peer_id": ben.peer_id, "role": "client", "mac": BEN}


async def test_what_welcome_tells(relay: Any, join: Any) -> None:
    ann = await join(ANN)
    gateway = await join(None)
    peer = await relay.connect()
    try:
        welcome = await peer.join("interop", BEN.upper().replace(":", "-"))
        assert welcome["protocol"] == 1
        assert 1 <= welcome["peer_id"] <= 65535
        assert 1280 <= welcome["tap_mtu"] <= 1500
        room = welcome["room"]
        assert room["code"] == "INTEROP", "the code is folded to upper case"
        assert room["gateway"] is True
        others = {member["peer_id"]: member for member in room["peers"]}
        assert set(others) == {ann.peer_id, gateway.peer_id}
        assert others[ann.peer_id]["role"] == "client"
        assert others[ann.peer_id]["mac"] == ANN
        assert others[gateway.peer_id]["role"] == "gateway"
    finally:
        await peer.leave()


@pytest.mark.parametrize(("mac", "limit"), [(ANN, 500), (None, 2000)], ids=["client", "gateway"])
async def test_welcome_tells_what_the_relay_takes_of_a_storm(relay: Any, mac: str | None, limit: int) -> None:
    peer = await relay.connect()
    try:
        assert (await peer.join("INTEROP", mac))["storm_limit"] == limit
    finally:
        await peer.leave()


async def test_room_mtu_is_the_first_peers_and_stays(relay: Any, join: Any) -> None:
    ann = await join(ANN, room="SMALL", datagram_budget=1400)
    ben = await relay.connect()
    try:
        assert (await ben.join("SMALL", BEN, datagram_budget=1000))["tap_mtu"] == 1400 - 4 - 14
    finally:
        await ben.leave()
    del ann


async def test_room_mtu_never_below_1280(relay: Any) -> None:
    peer = await relay.connect()
    try:
        assert (await peer.join("SMALL", ANN, datagram_budget=1000))["tap_mtu"] == 1280
    finally:
        await peer.leave()


async def test_frames_both_ways(join: Any) -> None:
    ann, ben, cat = await join(ANN), await join(BEN), await join(CAT)
    for source, mac, others in ((ann, ANN, (ben, cat)), (ben, BEN, (ann, cat))):
        frame = frame_of(mac)
        source.send(frame)
        for other in others:
            assert await other.frame() == (source.peer_id, frame)
        await source.silence(0.2)
    unicast = frame_of(ANN, bytes.fromhex(BEN.replace(":", "")))
    ann.send(unicast)
    assert await ben.frame() == (ann.peer_id, unicast)
    await cat.silence(0.2)


@pytest.mark.parametrize("length", [14, 60, BUDGET - 4, BUDGET - 3, 1400, 1431, 1514, 1518])
async def test_frames_of_any_size_arrive_whole(join: Any, length: int) -> None:
    ann, ben = await join(ANN), await join(BEN)
    for count in range(3):
        frame = frame_of(ANN, length=length, fill=count)
        ann.send(frame)
        assert await ben.frame() == (ann.peer_id, frame)


async def test_fragments_go_out_when_a_frame_does_not_fit(join: Any) -> None:
    ann, ben = await join(ANN), await join(BEN)
    ann.send(frame_of(ANN, length=1514))
    await ben.frame()
    assert ben.received.reassembled == 1


async def test_fragments_in_any_order_and_interleaved(join: Any) -> None:
    ann, ben = await join(ANN), await join(BEN)
    first, second = frame_of(ANN, length=1400, fill=1), frame_of(ANN, length=1400, fill=2)
    one, two = fragments(ann.peer_id, 1, first, 500), fragments(ann.peer_id, 2, second, 500)
    for piece in [two[2], one[0], two[0], one[2], one[1], two[1]]:
        ann.datagram(piece)
    assert {await ben.frame(), await ben.frame()} == {(ann.peer_id, first), (ann.peer_id, second)}


async def test_an_unfinished_frame_does_not_arrive(join: Any) -> None:
    ann, ben = await join(ANN), await join(BEN)
    for piece in fragments(ann.peer_id, 1, frame_of(ANN, length=1400), 500)[:-1]:
        ann.datagram(piece)
    await ben.silence(0.8)
    ann.send(frame_of(ANN))
    assert await ben.frame() == (ann.peer_id, frame_of(ANN))


async def test_16_fragments(join: Any) -> None:
    ann, ben = await join(ANN), await join(BEN)
    frame = frame_of(ANN, length=1504)
    pieces = fragments(ann.peer_id, 9, frame, 8 + 94)
    assert len(pieces) == 16
    for piece in pieces:
        ann.datagram(piece)
    assert await ben.frame() == (ann.peer_id, frame)


async def test_peer_left(join: Any, relay: Any) -> None:
    ann = await join(ANN)
    ben = await relay.connect()
    await ben.join("INTEROP", BEN)
    await ben.leave()
    assert await ann.hear("peer_left") == {"type": "peer_left", "peer_id": ben.peer_id, "reason": "goodbye"}


async def test_peer_lost(join: Any, relay: Any) -> None:
    ann = await join(ANN)
    ben = await relay.connect()
    await ben.join("INTEROP", BEN)
    await ben.shut()  # without a word
    left = await ann.hear("peer_left", 15)
    assert (left["peer_id"], left["reason"]) == (ben.peer_id, "connection-lost")


async def test_stats_come(join: Any) -> None:
    ann = await join(ANN)
    ann.send(frame_of(ANN))
    told = await ann.hear("stats", 20)
    assert told["interval_s"] > 0
    assert all(isinstance(value, int) and value >= 0 for value in told["counters"].values())
    assert told["counters"]["frames_received"] == 1
    ann.tell({"type": "stats", "counters": {"frames_sent": 1}, "interval_s": 10.0})
    ann.tell({"type": "something-new", "of": "the future"})
    await asyncio.sleep(0.3)
    assert not ann.closed.done(), "unknown messages are ignored after welcome"


async def test_a_resume_secret_takes_the_place_over(join: Any, relay: Any) -> None:
    secret = "ab" * 32
    first = await join(ANN, resume=secret)
    second = await relay.connect()
    try:
        await second.join("INTEROP", ANN, resume=secret)
        closed = await asyncio.wait_for(first.closed, 5)
        assert closed.code == 12
    finally:
        await second.leave()


async def test_hello_byte_by_byte(stranger: Peer) -> None:
    body = json.dumps(hello_of("INTEROP", ANN)).encode()
    for byte in struct.pack("!I", len(body)) + body:
        stranger.raw(bytes([byte]))
        await asyncio.sleep(0)
    assert (await stranger.hear())["type"] == "welcome"


async def test_unknown_fields_of_hello_are_ignored(join: Any) -> None:
    await join(ANN, mood="good", nested={"a": [1, 2, None]})


# Refused


async def test_unsupported_protocol(stranger: Peer) -> None:
    stranger.tell(hello_of("INTEROP", ANN, protocol=2))
    answer = await refused(stranger, "unsupported-protocol", 2)
    assert answer["supported_protocols"] == [1]


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("mac", {"mac": "03:00:00:00:00:01"}),
        ("mac", {"mac": "00:00:00:00:00:00"}),
        ("mac", {"mac": "ff:ff:ff:ff:ff:ff"}),
        ("mac", {"mac": "not a mac"}),
        ("mac", {"mac": ...}),
        ("mac", {"mac": 5}),
        ("mac", {"role": "gateway"}),
        ("role", {"role": "king"}),
        ("role", {"role": ...}),
        ("room", {"room": ...}),
        ("datagram_budget", {"datagram_budget": 999}),
        ("datagram_budget", {"datagram_budget": 65536}),
        ("datagram_budget", {"datagram_budget": "1100"}),
        ("datagram_budget", {"datagram_budget": ...}),
        ("fragments", {"fragments": "yes"}),
        ("resume", {"resume": "ab"}),
        ("resume", {"resume": "zz" * 32}),
        ("software", {"software": "x" * 65}),
    ],
    ids=str,
)
async def test_invalid_hello(stranger: Peer, field: str, changes: dict[str, Any]) -> None:
    stranger.tell(hello_of("INTEROP", ANN, **changes))
    answer = await refused(stranger, "invalid-hello", 3)
    assert answer["field"] == field


@pytest.mark.parametrize("room", ["", "a b", "x" * 33, "Ä", "ELSEWHERE"])
async def test_invalid_room(stranger: Peer, room: str) -> None:
    stranger.tell(hello_of(room, ANN))
    await refused(stranger, "invalid-room", 4)


async def test_duplicate_mac(join: Any, stranger: Peer) -> None:
    ann = await join(ANN)
    stranger.tell(hello_of("INTEROP", ANN.upper()))
    await refused(stranger, "duplicate-mac", 5)
    assert not ann.closed.done()


async def test_the_mac_of_a_machine_on_the_lan(join: Any, stranger: Peer) -> None:
    ann, gateway = await join(ANN), await join(None)
    gateway.send(frame_of(CAT))
    assert await ann.frame() == (gateway.peer_id, frame_of(CAT))
    stranger.tell(hello_of("INTEROP", CAT))
    answer = await refused(stranger, "duplicate-mac", 5)
    assert answer["field"] == "mac"
    assert "LAN" in answer["reason"]
    # What is for the machine still goes to the LAN.
    to_cat = frame_of(ANN, bytes.fromhex(CAT.replace(":", "")))
    ann.send(to_cat)
    assert await gateway.frame() == (ann.peer_id, to_cat)


async def test_a_player_whose_frames_the_lan_shows_comes_back(relay: Any, join: Any) -> None:
    ann, gateway = await join(ANN), await join(None)
    peer = await relay.connect()
    await peer.join("INTEROP", CAT)
    await peer.leave()
    await gateway.hear("peer_left")
    # Its last frame comes back over the LAN after it has left.
    gateway.send(frame_of(CAT))
    assert await ann.frame() == (gateway.peer_id, frame_of(CAT))
    await join(CAT)


async def test_a_mac_that_the_lan_shows_later_is_told_to_both(join: Any) -> None:
    ann, ben, gateway = await join(ANN), await join(BEN), await join(None)
    # Until it is told, as a machine on a LAN goes on talking.
    for fill in range(60):
        gateway.send(frame_of(ANN, fill=fill))
        try:
            told = await gateway.hear("notice", within=0.3)
        except TimeoutError:
            continue
        break
    else:
        pytest.fail("the gateway was not told")
    assert (told["topic"], sorted(told["peers"])) == ("mac-conflict", sorted([ann.peer_id, gateway.peer_id]))
    assert ANN in told["reason"]
    assert (await ann.hear("notice")) == told
    await ben.silence(0.1)


async def test_a_wrong_secret_takes_nothing_over(join: Any, stranger: Peer) -> None:
    ann = await join(ANN, resume="ab" * 32)
    stranger.tell(hello_of("INTEROP", ANN, resume="cd" * 32))
    await refused(stranger, "duplicate-mac", 5)
    assert not ann.closed.done()


async def test_second_gateway(join: Any, stranger: Peer) -> None:
    await join(None)
    stranger.tell(hello_of("INTEROP", None))
    await refused(stranger, "gateway-present", 6)


async def test_full_room(join: Any, stranger: Peer) -> None:
    for number in range(4):
        await join(f"02:00:00:00:01:0{number}")
    stranger.tell(hello_of("INTEROP", ANN))
    await refused(stranger, "room-full", 7)


async def test_too_small_a_budget_without_fragments(join: Any, stranger: Peer) -> None:
    await join(BEN, room="SMALL", datagram_budget=1400)
    stranger.tell(hello_of("SMALL", ANN, fragments=False))
    answer = await refused(stranger, "budget-too-small", 9)
    assert answer["required_budget"] == 1400


async def test_no_hello(stranger: Peer) -> None:
    """Without a control stream there is nothing a reject could travel on: the close alone tells."""
    closed = await asyncio.wait_for(stranger.closed, 5)
    assert closed.code == 10


async def test_half_a_hello(stranger: Peer) -> None:
    body = json.dumps(hello_of("INTEROP", ANN)).encode()
    stranger.raw(struct.pack("!I", len(body)) + body[:20])
    await refused(stranger, "hello-timeout", 10)


@pytest.mark.parametrize(
    "sent",
    [
        b"\0\0\0\x05{bad}",
        b"\0\0\0\x02[]",
        b"\0\0\0\x02{}",
        b"\0\0\0\x04\xff\xfe\xfd\xfc",
        b'\0\0\0\x0f{"type":"odd!"}',
        b"\0\x01\0\x01",
        b"\xff\xff\xff\xff",
        b"\0\0\0\0",
        b"\0\0\0\x01",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=repr,
)
async def test_what_is_no_message(stranger: Peer, sent: bytes) -> None:
    stranger.raw(sent)
    closed = await asyncio.wait_for(stranger.closed, 5)
    assert closed.code == 1, closed


async def test_garbage_after_welcome(join: Any) -> None:
    ann = await join(ANN)
    ann.raw(b"\xff\xff\xff\xff")
    closed = await asyncio.wait_for(ann.closed, 5)
    assert closed.code == 1


NO_APPLICATION_PROTOCOL = 0x100 + 120
"""How QUIC says TLS's alert: CRYPTO_ERROR (RFC 9001, 4.8) and no_application_protocol (RFC 7301, 3.2)."""


async def test_another_protocol_by_alpn(relay: Any) -> None:
    with pytest.raises(Closed) as refused:
        await Peer.connect(relay.address, relay.certificate, alpn="h3")
    assert refused.value.code == NO_APPLICATION_PROTOCOL, refused.value


MALFORMED = {
    "version": b"\x20\x00\x00\x01" + frame_of(ANN),
    "kind": b"\x12\x00\x00\x01" + frame_of(ANN),
    "reserved": b"\x10\x01\x00\x01" + frame_of(ANN),
    "peer-zero": whole(0, frame_of(ANN)),
    "another-peer": whole(4711, frame_of(ANN)),
    "short": b"\x10\x00",
    "fragment-single": b"\x11\x00\x00\x01\x00\x00\x00\x01" + b"x" * 20,
    "fragment-index": b"\x11\x21\x00\x01\x00\x00\x00\x01" + b"x" * 20,
    "fragment-empty": b"\x11\x01\x00\x01\x00\x00\x00\x01",
}


@pytest.mark.parametrize("kind", list(MALFORMED))
async def test_malformed_datagrams(join: Any, kind: str) -> None:
    ann, ben = await join(ANN), await join(BEN)
    # Where another rule than the sender id is meant to catch it, the id is right.
    data = bytearray(MALFORMED[kind])
    if data[2:4] == b"\x00\x01":
        data[2:4] = ann.peer_id.to_bytes(2, "big")
    for number in range(64):
        ann.datagram(bytes(data))
        if number % 8 == 7:
            await asyncio.sleep(0.01)
    closed = await asyncio.wait_for(ann.closed, 5)
    assert closed.code == 11
    left = await ben.hear("peer_left")
    assert (left["peer_id"], left["reason"]) == (ann.peer_id, "malformed-datagrams")
    await ben.silence(0.1)


async def test_a_few_malformed_datagrams_are_forgiven(join: Any) -> None:
    ann, ben = await join(ANN), await join(BEN)
    for _ in range(20):
        ann.datagram(b"\x20\x00\x00\x01" + frame_of(ANN))
    ann.send(frame_of(ANN))
    assert await ben.frame() == (ann.peer_id, frame_of(ANN))


async def test_another_source_than_ones_own(join: Any) -> None:
    ann, ben = await join(ANN), await join(BEN)
    ann.send(frame_of(CAT))
    await ben.silence(0.3)


async def test_datagrams_before_welcome_reach_nobody(join: Any, stranger: Peer) -> None:
    ben = await join(BEN)
    stranger.datagram(whole(ben.peer_id, frame_of(ANN)))
    await ben.silence(0.3)


async def test_a_few_early_datagrams_wait_for_admission(join: Any, stranger: Peer) -> None:
    """They are judged by whose they are then; those of somebody who is never admitted went nowhere."""
    ben = await join(BEN)
    stranger.peer_id = ben.peer_id + 1  # ids go round
    stranger.send(frame_of(CAT))
    for number in range(40):
        stranger.send(frame_of(ANN, fill=number))
    await ben.silence(0.3)
    assert (await stranger.join("INTEROP", ANN))["peer_id"] == ben.peer_id + 1
    heard = [await ben.frame() for _ in range(31)]
    assert heard == [(stranger.peer_id, frame_of(ANN, fill=number)) for number in range(31)], (
        "of 32, one is not ann's"
    )
    await ben.silence(0.3)
