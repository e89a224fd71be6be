"""The one list of codes: why a peer was refused, left, or was sent away.

The same list serves `reject`, `disconnect`, `peer_left` and, by number, the application error code of QUIC's
CONNECTION_CLOSE (RFC 9000, section 19.19). The table in docs/protocol.md is this list; a test compares them.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Code", "Retry"]


class Retry(StrEnum):
    """Whether trying again helps: not, or with luck, or after a while.

    Both NO and PERHAPS end a session. Beyond NO a person has to change something: settings, key, invite, or the relay's rules. What
    stands in the way of PERHAPS may pass by itself, as when somebody leaves or a ban is over, so that a standing service goes on trying.
    """

    NOT_APPLICABLE = "-"
    NO = "no"
    PERHAPS = "perhaps"
    LATER = "later"


class Code(StrEnum):
    """One code; its value is the name on the wire.

    A name or number that is not in the list reads as `INTERNAL_ERROR`: it comes from a newer peer, and all
    that can be known about it is that it ended the session. The `reason` that travels with it says more.
    """

    number: int
    retry: Retry
    meaning: str

    def __new__(cls, wire_name: str, number: int, retry: Retry, meaning: str) -> Code:
        """Make a member whose value is the name alone."""
        member = str.__new__(cls, wire_name)
        member._value_ = wire_name
        member.number = number
        member.retry = retry
        member.meaning = meaning
        return member

    GOODBYE = "goodbye", 0, Retry.NOT_APPLICABLE, "the peer left on purpose"
    PROTOCOL_ERROR = "protocol-error", 1, Retry.PERHAPS, "malformed or unexpected control message"
    UNSUPPORTED_PROTOCOL = (
        "unsupported-protocol",
        2,
        Retry.NO,
        "the relay does not speak the hello's `protocol`",
    )
    INVALID_HELLO = "invalid-hello", 3, Retry.NO, "a field of hello is not valid; `field` names it"
    INVALID_ROOM = (
        "invalid-room",
        4,
        Retry.NO,
        "the room code is malformed, or the relay does not serve it",
    )
    DUPLICATE_MAC = (
        "duplicate-mac",
        5,
        Retry.PERHAPS,
        "another client in the room has this MAC, or a machine on the gateway's LAN",
    )
    GATEWAY_PRESENT = "gateway-present", 6, Retry.PERHAPS, "the room has a gateway already"
    ROOM_FULL = "room-full", 7, Retry.PERHAPS, "the room has its number of peers"
    RELAY_FULL = "relay-full", 8, Retry.LATER, "the relay has its number of rooms or peers"
    BUDGET_TOO_SMALL = (
        "budget-too-small",
        9,
        Retry.PERHAPS,
        "without fragments this peer cannot carry the room's frames; `required_budget` says what it takes",
    )
    HELLO_TIMEOUT = "hello-timeout", 10, Retry.LATER, "no hello within the deadline"
    MALFORMED_DATAGRAMS = "malformed-datagrams", 11, Retry.PERHAPS, "too many malformed datagrams"
    REPLACED = (
        "replaced",
        12,
        Retry.PERHAPS,
        "a newer connection of the same identity took this one's place",
    )
    SHUTTING_DOWN = "shutting-down", 13, Retry.LATER, "the relay is stopping or restarting"
    CONNECTION_LOST = (
        "connection-lost",
        14,
        Retry.LATER,
        "the connection timed out or was reset (only in `peer_left`)",
    )
    INTERNAL_ERROR = "internal-error", 15, Retry.LATER, "a fault in the relay; its log says more"
    KICKED = "kicked", 16, Retry.PERHAPS, "the relay's operator removed the peer"
    KEY_REQUIRED = "key-required", 17, Retry.NO, "the room takes only peers that prove a key"
    KEY_WRONG = "key-wrong", 18, Retry.NO, "the proof does not fit a key of the room"
    INVITE_EXPIRED = "invite-expired", 19, Retry.NO, "the invite's time is over"
    INVITE_USED = "invite-used", 20, Retry.NO, "the invite was for one peer, and another has used it"
    GATEWAY_NOT_ALLOWED = (
        "gateway-not-allowed",
        21,
        Retry.NO,
        "the peer may not be a gateway in this room",
    )
    BANNED = "banned", 22, Retry.PERHAPS, "the relay's operator does not let this peer in"
    TOO_MANY_ATTEMPTS = (
        "too-many-attempts",
        23,
        Retry.LATER,
        "too many hellos, wrong keys or misbehaving peers from this address",
    )
    TOO_MANY_CONNECTIONS = (
        "too-many-connections",
        24,
        Retry.LATER,
        "too many connections from this address, or too many that have not said hello",
    )
    CONTROL_FLOOD = "control-flood", 25, Retry.PERHAPS, "too many control messages, or too large ones"
    SLOW_READER = "slow-reader", 26, Retry.LATER, "the peer does not read its control messages"

    @classmethod
    def _missing_(cls, value: object) -> Code | None:
        return cls.INTERNAL_ERROR if isinstance(value, str) else None

    @classmethod
    def from_number(cls, number: int) -> Code:
        """Read the application error code of a CONNECTION_CLOSE."""
        return next((code for code in cls if code.number == number), cls.INTERNAL_ERROR)
