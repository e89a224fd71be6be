"""Schema and validation of control messages."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kinds import FIELDS, GENUINE, KINDS, TYPES

from softlan._core import Mac
from softlan.control.codes import Code
from softlan.control.messages import (
    Disconnect,
    GoingDown,
    Hello,
    Notice,
    PeerFacts,
    PeerJoined,
    PeerLeft,
    Reject,
    Role,
    RoomFacts,
    Stats,
    Welcome,
    decode_answer,
    decode_from_peer,
    decode_from_relay,
    decode_hello,
    encode,
    reject_for,
)
from softlan.control.stream import encode_frame
from softlan.errors import LocalProtocolError, RemoteProtocolError, UnsupportedProtocolError

MAC = "02:00:5e:10:00:01"
DECODERS = (decode_hello, decode_answer, decode_from_peer, decode_from_relay)


def hello(**changes):
    fields = {
        "type": "hello",
        "protocol": 1,
        "role": "client",
        "room": "ROOM1",
        "mac": MAC,
        "datagram_budget": 1434,
    }
    fields.update(changes)
    return json.dumps({name: value for name, value in fields.items() if value is not ...}).encode()


def welcome(room=None, **changes):
    facts = {
        "code": "ROOM1",
        "peers": [{"peer_id": 1, "role": "gateway"}, {"peer_id": 2, "role": "client", "mac": MAC}],
        "gateway": True,
    } | (room or {})
    fields = {"type": "welcome", "protocol": 1, "peer_id": 3, "tap_mtu": 1416, "room": facts} | changes
    return json.dumps(fields).encode()


def refused(decode, body):
    with pytest.raises(RemoteProtocolError) as caught:
        decode(body)
    error = caught.value
    if error.field is not None:
        assert str(error).startswith(f"{error.field}: "), "the text names the field as well"
    encode_frame(encode(reject_for(error)))
    return error


# Hello


def test_hello_reads():
    message = decode_hello(hello(resume="AB" * 32, software="other/1", fragments=False, new_thing=[1]))
    assert message.role is Role.CLIENT
    assert message.mac == Mac(MAC)
    assert message.datagram_budget == 1434
    assert message.fragments is False
    assert message.resume == "ab" * 32
    assert message.software == "other/1"


def test_hello_defaults():
    message = decode_hello(hello())
    assert message.fragments is True
    assert message.resume is None
    assert message.software is None


def test_room_codes_fold_to_upper_case():
    assert decode_hello(hello(room="lan_party-1")).room == "LAN_PARTY-1"


def test_macs_read_in_other_notations():
    assert decode_hello(hello(mac="02-00-5E-10-00-01")).mac == Mac(MAC)


def test_a_gateway_has_no_mac():
    assert decode_hello(hello(role="gateway", mac=...)).mac is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("protocol", ...),
        ("protocol", "1"),
        ("protocol", True),
        ("protocol", -1),
        ("protocol", 10**30),
        ("role", ...),
        ("role", "king"),
        ("room", ...),
        ("room", 7),
        ("mac", ...),
        ("mac", None),
        ("mac", 7),
        ("mac", "02:00:5e:10:00"),
        ("mac", "01:00:5e:10:00:01"),
        ("mac", "ff:ff:ff:ff:ff:ff"),
        ("mac", "00:00:00:00:00:00"),
        ("datagram_budget", ...),
        ("datagram_budget", 999),
        ("datagram_budget", 65536),
        ("datagram_budget", 1200.5),
        ("datagram_budget", "1200"),
        ("fragments", 1),
        ("resume", "ab" * 31),
        ("resume", "xy" * 32),
        ("resume", "ab" * 32 + "\n"),
        ("software", "x" * 65),
    ],
)
def test_a_wrong_field_of_hello_is_named(field, value):
    error = refused(decode_hello, hello(**{field: value}))
    assert error.field == field
    assert error.code is Code.INVALID_HELLO


@pytest.mark.parametrize("room", ["", "A B", "R" * 33, "RÖOM", "ıı", "A\n", "A/B"])
def test_a_malformed_room_code_has_a_code_of_its_own(room):
    error = refused(decode_hello, hello(room=room))
    assert error.field == "room"
    assert error.code is Code.INVALID_ROOM


def test_a_gateway_with_a_mac_is_refused():
    error = refused(decode_hello, hello(role="gateway"))
    assert error.field == "mac"


@pytest.mark.parametrize("decode", [decode_hello, decode_answer])
def test_another_version_is_refused_with_what_is_spoken(decode):
    kind = "hello" if decode is decode_hello else "welcome"
    body = json.dumps({"type": kind, "protocol": 2, "role": {"everything": "else"}}).encode()
    error = refused(decode, body)
    assert isinstance(error, UnsupportedProtocolError)
    assert (error.offered, error.supported) == (2, (1,))
    reject = reject_for(error)
    assert reject.code is Code.UNSUPPORTED_PROTOCOL
    assert reject.supported_protocols == (1,)


def test_the_resume_secret_is_in_no_repr():
    message = decode_hello(hello(resume="ab" * 32))
    assert "abab" not in repr(message)
    assert "abab" not in str(message)


# The others


def test_welcome_reads():
    message = decode_answer(welcome())
    assert isinstance(message, Welcome)
    assert [peer.peer_id for peer in message.room.peers] == [1, 2]
    assert message.room.peers[1].mac == Mac(MAC)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (welcome(peer_id=0), "peer_id"),
        (welcome(peer_id=65536), "peer_id"),
        (welcome(peer_id=2), "peer_id"),
        (welcome(tap_mtu=1279), "tap_mtu"),
        (welcome(tap_mtu=1501), "tap_mtu"),
        (welcome(storm_limit=-1), "storm_limit"),
        (welcome(storm_limit=2**32), "storm_limit"),
        (welcome(room={"code": "a b"}), "room.code"),
        (welcome(room={"gateway": "yes"}), "room.gateway"),
        (welcome(room={"peers": [{"peer_id": 1, "role": "client"}]}), "room.peers[0].mac"),
        (welcome(room={"peers": [{"peer_id": 0, "role": "gateway"}]}), "room.peers[0].peer_id"),
        (welcome(room={"peers": [{"peer_id": 1, "role": "gateway"}] * 2}), "room.peers"),
        (b'{"type":"welcome","protocol":1,"peer_id":1,"tap_mtu":1400,"room":{}}', "room.code"),
    ],
)
def test_a_wrong_field_of_welcome_is_named_with_its_path(body, field):
    error = refused(decode_answer, body)
    assert error.field == field
    assert error.code is Code.PROTOCOL_ERROR


@pytest.mark.parametrize("counters", [{"a": -1}, {"a": 1.5}, {"a": 2**63}, {"": 1}, {"x" * 65: 1}])
def test_counters_are_small_non_negative_integers(counters):
    body = json.dumps({"type": "stats", "counters": counters, "interval_s": 10}).encode()
    assert refused(decode_from_peer, body).field.startswith("counters")


def test_a_newer_relays_code_is_understood_as_far_as_it_can_be():
    message = decode_answer(b'{"type":"reject","code":"out-of-pizza","reason":"come back tomorrow"}')
    assert message == Reject(code=Code.INTERNAL_ERROR, reason="come back tomorrow")


def test_unknown_types_are_ignored_after_welcome_and_refused_before():
    body = b'{"type":"fireworks","colour":"red"}'
    assert decode_from_peer(body) is None
    assert decode_from_relay(body) is None
    for decode in (decode_hello, decode_answer):
        error = refused(decode, body)
        assert error.field == "type"
        assert error.code is Code.PROTOCOL_ERROR


def test_known_types_in_the_wrong_place_are_refused():
    assert refused(decode_from_peer, hello()).field == "type"
    assert refused(decode_from_peer, b'{"type":"peer_left","peer_id":1,"reason":"goodbye"}').field == "type"
    assert refused(decode_from_relay, welcome()).field == "type"


MESSAGES = [
    (decode_hello, Hello(protocol=1, role=Role.CLIENT, room="A", mac=Mac(MAC), datagram_budget=1200)),
    (decode_hello, Hello(protocol=1, role=Role.GATEWAY, room="A", datagram_budget=1200, fragments=False)),
    (
        decode_answer,
        Welcome(
            protocol=1,
            peer_id=2,
            tap_mtu=1400,
            room=RoomFacts(code="A", peers=(PeerFacts(peer_id=1, role=Role.GATEWAY),), gateway=True),
            storm_limit=500,
        ),
    ),
    (decode_answer, Reject(code=Code.ROOM_FULL, reason="full")),
    (decode_answer, Reject(code=Code.BUDGET_TOO_SMALL, reason="small", required_budget=1418)),
    (
        decode_answer,
        Reject(code=Code.SHUTTING_DOWN, reason="back soon", back_in_s=30, relay="other.example.org:443"),
    ),
    (decode_from_relay, PeerJoined(peer_id=2, role=Role.CLIENT, mac=Mac(MAC))),
    (decode_from_relay, PeerJoined(peer_id=2, role=Role.GATEWAY)),
    (decode_from_relay, PeerLeft(peer_id=2, reason=Code.REPLACED)),
    (decode_from_peer, Stats(counters={"frames_sent": 7}, interval_s=10.0)),
    (decode_from_relay, Disconnect(code=Code.SHUTTING_DOWN, reason="back soon")),
    (
        decode_from_relay,
        Disconnect(code=Code.SHUTTING_DOWN, reason="back soon", back_in_s=30, relay="other.example.org:443"),
    ),
    (decode_from_relay, GoingDown(reason="for an update", in_s=60)),
]


@pytest.mark.parametrize(("decode", "message"), MESSAGES, ids=lambda value: type(value).__name__)
def test_what_is_encoded_reads_back(decode, message):
    body = encode(message)
    assert decode(body) == message
    assert json.loads(body)["type"] == message.__struct_config__.tag


def test_what_is_absent_is_not_sent():
    body = encode(Hello(protocol=1, role=Role.GATEWAY, room="A", datagram_budget=1200))
    assert json.loads(body) == {
        "type": "hello",
        "protocol": 1,
        "role": "gateway",
        "room": "A",
        "datagram_budget": 1200,
    }


def test_what_a_receiver_would_refuse_is_not_sent():
    message = Hello(protocol=1, role=Role.CLIENT, room="A", mac=Mac(MAC), datagram_budget=10)
    with pytest.raises(LocalProtocolError, match="datagram_budget"):
        encode(message)


# Whatever arrives


def refusal(decode, body):
    try:
        decode(body)
    except RemoteProtocolError as error:
        return error
    return None


def never_anything_else(body):
    for decode in DECODERS:
        error = refusal(decode, body)
        if error is not None:
            assert len(str(error)) < 400
            assert str(error).isprintable()
            encode_frame(encode(reject_for(error)))


@given(st.binary(max_size=300))
@example(b"[" * 65536)
@example(b'{"type":"hello","x":' + b'{"a":' * 10000)
@example(b'{"type":"hello","protocol":' + b"9" * 65000 + b"}")
@example(b'{"type":"hello","protocol":' + b"9" * 4000 + b"}")
@example(b'{"type":"\\ud800"}')
@example(b'{"type":"' + b"x" * 65000 + b'"}')
@example(b'{"type":"hello","protocol":1,"role":"' + b"\\n" * 30000 + b'"}')
@example(b'{"type":"stats","counters":{},"interval_s":1e999}')
@example(b'{"type":"stats","counters":{"a":1' + b"0" * 5000 + b'},"interval_s":1}')
@example(b'{"type":"hello","ignored":"\xff"}')
@example(b"{}")
@example(b"null")
@example(b"\xef\xbb\xbf{}")
def test_bytes_parse_or_are_refused(body):
    never_anything_else(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@given(
    st.sampled_from([*GENUINE, *({"type": kind} for kind in TYPES)]),
    st.dictionaries(st.sampled_from(FIELDS), JSON),
    st.none() | st.sampled_from(TYPES),
)
def test_distorted_messages_parse_or_are_refused(base, changes, kind):
    fields = base | changes | ({"type": kind} if kind else {})
    never_anything_else(json.dumps(fields).encode("utf-8", "surrogatepass"))


def test_there_is_a_genuine_one_of_each_kind_and_with_each_field():
    """A new kind or field is to be among them, for what distorts them."""
    bodies = [json.dumps(one).encode() for one in GENUINE]
    read = {type(decode(body)) for body in bodies for decode in DECODERS if refusal(decode, body) is None}
    assert read == set(KINDS)
    inner = [fact for one in GENUINE if isinstance(fact := one.get("room"), dict)]
    named = {name for one in (*GENUINE, *inner) for name in one} - {"type"}
    assert named == set(FIELDS)


# Notice


def test_a_notice_reads_and_holds_what_it_must():
    said = Notice(topic="loop", reason="frames come back", peers=(1, 3))
    assert decode_from_relay(encode(said)) == said
    assert decode_from_relay(b'{"type": "notice", "topic": "new", "reason": "so", "more": 1}') == Notice(
        topic="new", reason="so"
    )
    for fields in (
        {"topic": "", "reason": "x"},
        {"topic": "loop"},
        {"topic": "loop", "reason": "x" * 501},
        {"topic": "loop", "reason": "x", "peers": [0]},
        {"topic": "loop", "reason": "x", "over": 1},
    ):
        refused(decode_from_relay, json.dumps({"type": "notice", **fields}).encode())


def test_only_the_relay_gives_notice():
    refused(decode_from_peer, encode(Notice(topic="loop", reason="x")))
