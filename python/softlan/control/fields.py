"""What single fields of control messages may hold, in one place for messages and command lines alike.

Nothing here knows about whole messages; `messages.py` puts these together and turns faults into protocol
errors.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any

from msgspec import Meta

from softlan._core import MAX_TAP_MTU, MIN_DATAGRAM_BUDGET, MIN_TAP_MTU, Mac
from softlan.control.codes import Code
from softlan.texts import MAX_SAID

__all__ = [
    "MAX_PEER_ID",
    "MAX_PROTOCOL",
    "CounterName",
    "CounterValue",
    "DatagramBudget",
    "FieldFault",
    "FrameRate",
    "PeerId",
    "Proof",
    "Protocol",
    "ResumeKey",
    "Role",
    "Seconds",
    "Sentence",
    "Software",
    "TapMtu",
    "Token",
    "Topic",
    "check_role_and_mac",
    "decode_custom",
    "encode_custom",
    "normalise_room_code",
]

MAX_PEER_ID = 65535
"""A peer id is 16 bits on the wire and never 0."""

MAX_ROOM_CODE = 32
_ROOM_CODE = re.compile(rf"[A-Z0-9_-]{{1,{MAX_ROOM_CODE}}}")

MAX_PROTOCOL = 65535
"""Version numbers above this are no versions."""

Protocol = Annotated[int, Meta(ge=0, le=MAX_PROTOCOL)]
PeerId = Annotated[int, Meta(ge=1, le=MAX_PEER_ID)]
TapMtu = Annotated[int, Meta(ge=MIN_TAP_MTU, le=MAX_TAP_MTU)]
"""IP MTU of a peer's virtual adapter, in bytes."""

DatagramBudget = Annotated[int, Meta(ge=MIN_DATAGRAM_BUDGET, le=65535)]
"""Largest QUIC DATAGRAM payload a peer can send, in bytes (RFC 9221)."""

FrameRate = Annotated[int, Meta(ge=0, le=2**32 - 1)]
"""Frames a second."""

ResumeKey = Annotated[str, Meta(pattern=r"\A[0-9a-fA-F]{64}\Z")]
Proof = Annotated[str, Meta(pattern=r"\A[0-9a-fA-F]{64}\Z")]
Token = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{1,256}\Z")]
Software = Annotated[str, Meta(max_length=64)]
CounterName = Annotated[str, Meta(min_length=1, max_length=64)]
CounterValue = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Topic = Annotated[str, Meta(min_length=1, max_length=32)]
Sentence = Annotated[str, Meta(max_length=MAX_SAID)]
Seconds = Annotated[float, Meta(ge=0)]


class Role(StrEnum):
    """What a peer plugs into the room: one virtual adapter, or a whole LAN."""

    CLIENT = "client"
    GATEWAY = "gateway"


class FieldFault(ValueError):
    """A field holds what it must not.

    `field` is its name within its own object, `problem` a clause about it, `code` what to answer to a hello.
    """

    def __init__(self, field: str, problem: str, *, code: Code = Code.INVALID_HELLO) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem
        self.code = code


def normalise_room_code(text: str) -> str:
    """Fold a room code to the upper case in which rooms are compared.

    Raises FieldFault: it is not 1 to 32 characters of `A-Z a-z 0-9 _ -`.
    """
    # upper() turns some letters outside ASCII into ones inside it (the dotless i), so ASCII comes first.
    folded = text.upper() if text.isascii() else ""
    if not _ROOM_CODE.fullmatch(folded):
        raise FieldFault(
            "room",
            f"a room code is 1 to {MAX_ROOM_CODE} letters, digits, '-' or '_'",
            code=Code.INVALID_ROOM,
        )
    return folded


def check_role_and_mac(role: Role, mac: Mac | None) -> None:
    """Hold a peer to the rule that clients have a MAC of their own and gateways none.

    Raises FieldFault: the MAC is missing, superfluous, or not one a client may have.
    """
    if role is Role.GATEWAY:
        if mac is not None:
            raise FieldFault("mac", "a gateway must not send one")
        return
    if mac is None:
        raise FieldFault("mac", "a client must send one")
    try:
        mac.check_client_identity()
    except ValueError as error:
        raise FieldFault("mac", str(error)) from error


def decode_custom(kind: type, value: Any) -> Any:  # msgspec's hook is typed like this
    """Read a MAC out of its text, for msgspec."""
    if kind is not Mac:
        raise NotImplementedError(f"no decoder for {kind!r}")
    if isinstance(value, str):
        try:
            return Mac(value)
        except ValueError:
            # The core's words repeat the input, which is the other side's to choose: not for our logs.
            pass
    raise ValueError("expected a MAC address such as 02:00:5e:10:00:01")


def encode_custom(value: object) -> str:
    """Print a MAC, for msgspec."""
    if isinstance(value, Mac):
        return str(value)
    raise NotImplementedError(f"no encoder for {type(value)!r}")
