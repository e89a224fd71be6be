"""The messages of the control stream: their schema, their validation, and to and from JSON.

A message that decodes is valid: nothing behind this module checks a field again. What does not decode raises
`RemoteProtocolError`, which names the field and carries the code to answer with; nothing else is ever raised
for outside input. Framing is `stream.py`'s; who may say what when is settled by picking the right
`decode_...`.
"""

from __future__ import annotations

import re
from typing import Any, TypeAlias

import msgspec
from msgspec import DecodeError, Struct, ValidationError

from softlan._core import Mac
from softlan.control.codes import Code
from softlan.control.fields import (
    MAX_PROTOCOL,
    CounterName,
    CounterValue,
    DatagramBudget,
    FieldFault,
    FrameRate,
    PeerId,
    Proof,
    Protocol,
    ResumeKey,
    Role,
    Seconds,
    Sentence,
    Software,
    TapMtu,
    Token,
    Topic,
    check_role_and_mac,
    decode_custom,
    encode_custom,
    normalise_room_code,
)
from softlan.errors import LocalProtocolError, RemoteProtocolError, UnsupportedProtocolError
from softlan.texts import harmless

__all__ = [
    "PROTOCOL",
    "SUPPORTED_PROTOCOLS",
    "ControlMessage",
    "Disconnect",
    "GoingDown",
    "Hello",
    "Notice",
    "PeerFacts",
    "PeerJoined",
    "PeerLeft",
    "Reject",
    "Role",
    "RoomFacts",
    "Stats",
    "Welcome",
    "decode_answer",
    "decode_from_peer",
    "decode_from_relay",
    "decode_hello",
    "encode",
    "reject_for",
]

PROTOCOL = 1
SUPPORTED_PROTOCOLS = (PROTOCOL,)

MAX_PROBLEM = 160
"""Characters of an explanation that may repeat what the other side sent."""


class _Message(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """Base of all messages: JSON objects told apart by their `type`."""

    def _make_harmless(self, *names: str) -> None:
        """Make fields harmless that hold words for a person, who may read them on a terminal."""
        for name in names:
            if (text := getattr(self, name)) is not None:
                msgspec.structs.force_setattr(self, name, harmless(text))


class Hello(_Message, frozen=True, kw_only=True, tag="hello"):
    """peer -> relay, the first message: who wants in, where, and what it can carry.

    `room` is folded to upper case, `resume` and `proof` to lower case, when the message is made. `proof` and `token` are
    `softlan.control.keys`'.
    """

    protocol: Protocol
    role: Role
    room: str
    datagram_budget: DatagramBudget
    mac: Mac | None = None
    fragments: bool = True
    resume: ResumeKey | None = None
    proof: Proof | None = None
    token: Token | None = None
    software: Software | None = None

    def __post_init__(self) -> None:
        check_role_and_mac(self.role, self.mac)
        msgspec.structs.force_setattr(self, "room", normalise_room_code(self.room))
        for name in ("resume", "proof"):
            if (text := getattr(self, name)) is not None:
                msgspec.structs.force_setattr(self, name, text.lower())
        if self.token is not None and self.proof is None:
            raise FieldFault("proof", "a token needs one beside it")
        self._make_harmless("software")

    def __repr__(self) -> str:
        """Leave out `resume`, which is a secret, and proofs: reprs end up in logs."""
        resume = "None" if self.resume is None else "<secret>"
        proof = "None" if self.proof is None else f"<by {'key' if self.token is None else 'invite'}>"
        return (
            f"Hello(protocol={self.protocol}, role={self.role.value!r}, room={self.room!r}, mac={self.mac},"
            f" datagram_budget={self.datagram_budget}, fragments={self.fragments}, resume={resume},"
            f" proof={proof}, software={self.software!r})"
        )


class PeerFacts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One peer of a room, as the others are told about it."""

    peer_id: PeerId
    role: Role
    mac: Mac | None = None

    def __post_init__(self) -> None:
        check_role_and_mac(self.role, self.mac)


class RoomFacts(Struct, frozen=True, kw_only=True):
    """The room a peer has just entered; `peers` are the others."""

    code: str
    peers: tuple[PeerFacts, ...]
    gateway: bool

    def __post_init__(self) -> None:
        try:
            msgspec.structs.force_setattr(self, "code", normalise_room_code(self.code))
        except FieldFault as fault:
            raise FieldFault("code", fault.problem) from fault
        if len({peer.peer_id for peer in self.peers}) != len(self.peers):
            raise FieldFault("peers", "two peers have the same peer_id")


class Welcome(_Message, frozen=True, kw_only=True, tag="welcome"):
    """relay -> peer: admitted; from now on Ethernet frames may flow.

    `storm_limit` is how many broadcasts and multicasts a second the relay takes from this peer; None is no limit.
    """

    protocol: Protocol
    peer_id: PeerId
    tap_mtu: TapMtu
    room: RoomFacts
    storm_limit: FrameRate | None = None

    def __post_init__(self) -> None:
        if any(peer.peer_id == self.peer_id for peer in self.room.peers):
            raise FieldFault("peer_id", "another peer of the room has it")


class Reject(_Message, frozen=True, kw_only=True, tag="reject"):
    """relay -> peer: not admitted; the relay closes the connection after it.

    `back_in_s` and `relay` are those of `Disconnect`, from a relay that goes down.
    """

    code: Code
    reason: str
    field: str | None = None
    supported_protocols: tuple[int, ...] = ()
    required_budget: DatagramBudget | None = None
    back_in_s: Seconds | None = None
    relay: str | None = None

    def __post_init__(self) -> None:
        self._make_harmless("reason", "field", "relay")


class PeerJoined(_Message, frozen=True, kw_only=True, tag="peer_joined"):
    """relay -> peer: somebody else is in the room now."""

    peer_id: PeerId
    role: Role
    mac: Mac | None = None

    def __post_init__(self) -> None:
        check_role_and_mac(self.role, self.mac)


class PeerLeft(_Message, frozen=True, kw_only=True, tag="peer_left"):
    """relay -> peer: somebody else is no longer in the room."""

    peer_id: PeerId
    reason: Code


class Stats(_Message, frozen=True, kw_only=True, tag="stats"):
    """Both ways: the sender's tunnel counters for this connection, and seconds since its last `stats`."""

    counters: dict[CounterName, CounterValue]
    interval_s: Seconds


class GoingDown(_Message, frozen=True, kw_only=True, tag="going_down"):
    """relay -> peer: it is going to end the session in `in_s` seconds; a `disconnect` follows then. `relay` is that of `Disconnect`."""

    reason: str
    in_s: Seconds
    relay: str | None = None

    def __post_init__(self) -> None:
        self._make_harmless("reason", "relay")


class Disconnect(_Message, frozen=True, kw_only=True, tag="disconnect"):
    """Both ways, the last message: why the sender is about to close.

    From a relay that goes down: in how many seconds it will be back, and a relay, `HOST:PORT`, that takes its place meanwhile.
    """

    code: Code
    reason: str
    back_in_s: Seconds | None = None
    relay: str | None = None

    def __post_init__(self) -> None:
        self._make_harmless("reason", "relay")


class Notice(_Message, frozen=True, kw_only=True, tag="notice"):
    """relay -> peer: something in the room is wrong that concerns the peer, or is over (`over`).

    `topic` and `peers` together tell notices apart: the end of one has the same as its beginning.
    """

    topic: Topic
    reason: Sentence
    peers: tuple[PeerId, ...] = ()
    over: bool = False

    def __post_init__(self) -> None:
        self._make_harmless("topic", "reason")


ControlMessage: TypeAlias = (
    Hello | Welcome | Reject | PeerJoined | PeerLeft | Stats | GoingDown | Disconnect | Notice
)


class _Envelope(Struct):
    """What can be known of a message before its type is: enough to route it, or to refuse its version."""

    type: str
    protocol: Any = None


_ENVELOPE = msgspec.json.Decoder(_Envelope)
_DECODERS: dict[str, msgspec.json.Decoder[ControlMessage]] = {
    kind.__struct_config__.tag: msgspec.json.Decoder(kind, dec_hook=decode_custom)  # type: ignore[misc]
    for kind in (Hello, Welcome, Reject, PeerJoined, PeerLeft, Stats, GoingDown, Disconnect, Notice)
}
_ENCODER = msgspec.json.Encoder(enc_hook=encode_custom)


def encode(message: ControlMessage) -> bytes:
    """Print a message as the JSON object that goes into one control frame.

    Raises LocalProtocolError: the message holds something that a receiver would refuse.
    """
    body = _ENCODER.encode(message)
    try:
        # Messages are rare and small, so what leaves is held to the same rules as what arrives.
        _decode(body, (type(message),))
    except RemoteProtocolError as error:
        raise LocalProtocolError(f"cannot send this {type(message).__name__}: {error}") from error
    return body


def decode_hello(body: bytes) -> Hello:
    """Read a peer's first message."""
    message = _decode(body, (Hello,))
    assert isinstance(message, Hello)
    return message


def decode_answer(body: bytes) -> Welcome | Reject:
    """Read the relay's answer to a hello."""
    message = _decode(body, (Welcome, Reject))
    assert isinstance(message, Welcome | Reject)
    return message


def decode_from_peer(body: bytes) -> Stats | Disconnect | None:
    """Read what an admitted peer sends; None for a type not known here, to be ignored."""
    message = _decode(body, (Stats, Disconnect), ignore_unknown=True)
    assert isinstance(message, Stats | Disconnect | None)
    return message


def decode_from_relay(body: bytes) -> PeerJoined | PeerLeft | Stats | GoingDown | Disconnect | Notice | None:
    """Read what the relay sends after its welcome; None for a type not known here, to be ignored."""
    kinds = (PeerJoined, PeerLeft, Stats, GoingDown, Disconnect, Notice)
    message = _decode(body, kinds, ignore_unknown=True)
    assert isinstance(message, PeerJoined | PeerLeft | Stats | GoingDown | Disconnect | Notice | None)
    return message


def reject_for(error: RemoteProtocolError) -> Reject:
    """Put into words for the peer why its hello could not be read."""
    supported = error.supported if isinstance(error, UnsupportedProtocolError) else ()
    return Reject(code=error.code, reason=error.message, field=error.field, supported_protocols=supported)


def _decode(
    body: bytes, expected: tuple[type[ControlMessage], ...], *, ignore_unknown: bool = False
) -> ControlMessage | None:
    """Read one JSON object whose type must be one of `expected`."""
    kind = "message"
    try:
        # msgspec skips unknown fields without looking at their bytes; the protocol says UTF-8 throughout.
        text = body.decode("utf-8")
        envelope = _ENVELOPE.decode(text)
        kind = envelope.type
        decoder = _DECODERS.get(kind)
        if decoder is None and ignore_unknown:
            return None
        if decoder is None or kind not in _names(expected):
            wanted = " or ".join(_names(expected))
            raise RemoteProtocolError(f"type: expected {wanted}, got {_shorten(kind)}", field="type")
        if kind in _VERSIONED:
            _check_protocol(envelope.protocol)
        return decoder.decode(text)
    except ValidationError as error:
        raise _explain(error, kind) from error
    except UnicodeDecodeError as error:
        raise RemoteProtocolError(f"not UTF-8 at byte {error.start}") from error
    except RecursionError as error:
        raise RemoteProtocolError("objects nested too deeply") from error
    except DecodeError as error:
        raise RemoteProtocolError(f"not a JSON object: {_tame(str(error))}") from error


_VERSIONED = frozenset({"hello", "welcome"})


def _names(kinds: tuple[type[ControlMessage], ...]) -> list[str]:
    return [str(kind.__struct_config__.tag) for kind in kinds]


def _shorten(text: str) -> str:
    """Quote text that the other side chose, for a sentence of ours."""
    return ascii(text if len(text) <= 32 else text[:32] + "...")


def _tame(problem: str) -> str:
    """Bound a sentence that may quote the other side: it goes into logs, and back as a reason."""
    printable = "".join(char if char.isprintable() else "?" for char in problem[:MAX_PROBLEM])
    return printable if len(problem) <= MAX_PROBLEM else printable + "..."


def _check_protocol(offered: object) -> None:
    """Refuse another version before its other fields, which may mean something else there, are looked at."""
    if type(offered) is int and 0 <= offered <= MAX_PROTOCOL and offered not in SUPPORTED_PROTOCOLS:
        raise UnsupportedProtocolError(offered, SUPPORTED_PROTOCOLS)


_MISSING = re.compile(r"Object missing required field `([^`]+)`")
_AT = re.compile(r"(.*?)(?: - at (`key` in )?`\$\.?([^`]*)`)?", re.DOTALL)


def _explain(error: ValidationError, kind: str) -> RemoteProtocolError:
    """Turn msgspec's `problem - at `$.path`` into an error that knows the field."""
    matched = _AT.fullmatch(str(error))
    problem, path = (matched[1], matched[3] or "") if matched else (str(error), "")
    code = Code.INVALID_HELLO if kind == "hello" else Code.PROTOCOL_ERROR
    name: str | None = None
    if isinstance(error.__cause__, FieldFault):
        name, problem = error.__cause__.field, error.__cause__.problem
        code = error.__cause__.code if kind == "hello" else code
    elif missing := _MISSING.fullmatch(problem):
        name, problem = missing[1], "is missing"
    problem = _tame(problem)
    field = ".".join(part for part in (path, name) if part) or None
    return RemoteProtocolError(f"{field}: {problem}" if field else problem, code=code, field=field)
