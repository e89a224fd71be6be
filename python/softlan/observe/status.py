"""Words for players: what a part is doing, in a sentence without jargon, and what to do about it.

Pure functions from typed states; who shows the sentence, and where, is not settled here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, assert_never

from softlan._core import Mac
from softlan.control.codes import Code
from softlan.control.messages import Disconnect, Reject
from softlan.errors import RejectedError, TrustFault
from softlan.knock import Outcome

__all__ = [
    "AdapterReady",
    "Connected",
    "Connecting",
    "GatewayJoined",
    "GatewayLeft",
    "Joined",
    "NoGateway",
    "NoWay",
    "PathMtuSmall",
    "Reconnecting",
    "Rejected",
    "RelayUnreachable",
    "Resolving",
    "State",
    "Stopped",
    "Untrusted",
    "rejected_error",
    "say",
    "suggest",
]


@dataclass(frozen=True, slots=True)
class Resolving:
    """Looking up the relay's name."""

    host: str


@dataclass(frozen=True, slots=True)
class Connecting:
    """Knocking at the relay; `address` is `IP:port`."""

    relay: str
    address: str


@dataclass(frozen=True, slots=True)
class Connected:
    """The relay answered and is trusted; the room has not been entered yet."""

    relay: str


@dataclass(frozen=True, slots=True)
class Joined:
    """In the room; `others` counts the other peers, the gateway among them."""

    room: str
    peer_id: int
    others: int
    gateway: bool


@dataclass(frozen=True, slots=True)
class AdapterReady:
    """The virtual adapter is up and carries frames."""

    name: str
    mac: Mac
    mtu: int


@dataclass(frozen=True, slots=True)
class NoGateway:
    """Nobody has brought a real LAN into the room."""

    room: str


@dataclass(frozen=True, slots=True)
class GatewayJoined:
    """A real LAN is in the room now."""

    room: str


@dataclass(frozen=True, slots=True)
class GatewayLeft:
    """The real LAN is gone from the room."""

    room: str


@dataclass(frozen=True, slots=True)
class Reconnecting:
    """The connection is lost; the next of several attempts is `delay_s` seconds away."""

    attempt: int
    delay_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class RelayUnreachable:
    """Nothing answered at the relay's address within `waited_s` seconds."""

    relay: str
    waited_s: float


@dataclass(frozen=True, slots=True)
class NoWay:
    """Packets to `address` (`IP:port`) come to nothing: refused, forbidden or unreachable; `why` in the system's words."""

    address: str
    outcome: Outcome
    why: str


@dataclass(frozen=True, slots=True)
class Untrusted:
    """Something answered, but not with the certificate that was expected."""

    relay: str
    fault: TrustFault


@dataclass(frozen=True, slots=True)
class Rejected:
    """The relay said no."""

    code: Code
    reason: str


@dataclass(frozen=True, slots=True)
class PathMtuSmall:
    """The path carries datagrams of `datagram_budget` bytes only; the room's MTU is `tap_mtu`."""

    datagram_budget: int
    tap_mtu: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """Left on purpose."""

    room: str


State: TypeAlias = (
    Resolving
    | Connecting
    | Connected
    | Joined
    | AdapterReady
    | NoGateway
    | GatewayJoined
    | GatewayLeft
    | Reconnecting
    | RelayUnreachable
    | NoWay
    | Untrusted
    | Rejected
    | PathMtuSmall
    | Stopped
)


def say(state: State) -> str:
    """Put a state into one sentence, without a full stop."""
    match state:
        case Resolving(host):
            return f"looking up {host}"
        case Connecting(relay, address):
            return f"connecting to {relay}" if relay == address else f"connecting to {relay} at {address}"
        case Connected(relay):
            return f"the relay {relay} answered; asking to be let in"
        case Joined():
            return f"in room {state.room} {_company(state)}"
        case AdapterReady(name, mac, mtu):
            return f"the virtual network adapter {name} is ready (address {mac}, MTU {mtu})"
        case NoGateway(room):
            return f"room {room} has no gateway: players reach each other, but no real LAN"
        case GatewayJoined(room):
            return f"a gateway joined room {room}: its LAN is reachable now"
        case GatewayLeft(room):
            return f"the gateway left room {room}: its LAN is out of reach until it is back"
        case Reconnecting(attempt, delay_s, reason):
            when = "now" if delay_s < 0.05 else f"in {delay_s:.1f} s"
            return f"connection lost ({reason}); trying again {when} (attempt {attempt})"
        case RelayUnreachable(relay, waited_s):
            return f"the relay {relay} did not answer within {waited_s:.0f} s"
        case NoWay(address, Outcome.REFUSED, _):
            return f"nothing listens at {address}: the machine there refused the packet"
        case NoWay(address, Outcome.FORBIDDEN, why):
            return f"this machine's own firewall keeps packets to {address} back ({why})"
        case NoWay(address, _, why):
            return f"there is no way from here to {address} ({why})"
        case Untrusted(relay, fault):
            return f"{relay} answered, but {_DISTRUST[fault]}"
        case Rejected(code, reason):
            return f"the relay refused: {reason or code.meaning}"
        case PathMtuSmall(datagram_budget, tap_mtu):
            return (
                f"the path to the relay carries only {datagram_budget} bytes at once;"
                f" frames of the room's MTU ({tap_mtu}) travel in pieces"
            )
        case Stopped(room):
            return f"left room {room}"
        case _:
            assert_never(state)


def suggest(state: State) -> str | None:
    """Say what the player can do about a state, None when there is nothing to do."""
    match state:
        case RelayUnreachable():
            return (
                "check the address and port, that the relay is running,"
                " and that no firewall on the way blocks UDP; `softlan doctor` with the same invite looks closer"
            )
        case NoWay(_, Outcome.REFUSED, _):
            return (
                "check the port; the relay may be stopped, or a router forwards the port to the wrong machine"
            )
        case NoWay(_, Outcome.FORBIDDEN, _):
            return "let outgoing UDP to that port through (Linux: `nft list ruleset` or `iptables -S OUTPUT` shows the rule)"
        case NoWay():
            return "check this machine's network connection and routes (Linux: `ip route get ADDRESS`)"
        case Untrusted(_, fault):
            return _TRUST_HINTS[fault]
        case Rejected(code):
            return _REJECT_HINTS.get(code)
        case NoGateway():
            return "start `softlan gateway` on a machine of the LAN that is to be reached"
        case PathMtuSmall():
            return "it works as it is; a VPN or mobile link on the way is the usual cause"
        case _:
            return None


def rejected_error(message: Reject | Disconnect) -> RejectedError:
    """Turn the relay's no into the error that carries the same words and a hint."""
    state = Rejected(message.code, message.reason)
    field, budget = (message.field, message.required_budget) if isinstance(message, Reject) else (None, None)
    return RejectedError(
        message.code,
        say(state),
        field=field,
        required_budget=budget,
        back_in_s=message.back_in_s,
        relay=message.relay,
        hint=suggest(state),
    )


def _company(state: Joined) -> str:
    players = state.others - state.gateway
    people = {0: "alone", 1: "with 1 other player"}.get(players, f"with {players} other players")
    if not state.gateway:
        return people
    return "with the gateway" if players == 0 else f"{people} and the gateway"


_DISTRUST = {
    TrustFault.WRONG_PIN: "it is not the relay whose certificate or pin you were given",
    TrustFault.WRONG_NAME: "its certificate is for another name",
    TrustFault.EXPIRED: "its certificate is not valid at this time",
    TrustFault.OTHER: "its certificate could not be verified",
}

_TRUST_HINTS = {
    TrustFault.WRONG_PIN: (
        "ask the host for a new invite (or the current pin or certificate file): the relay may have been restarted without keeping its key,"
        " as --state does"
    ),
    TrustFault.WRONG_NAME: "give the name the certificate was made for with --server-name",
    TrustFault.EXPIRED: (
        "check this machine's clock; if it is right, the relay's operator must renew the certificate"
    ),
    TrustFault.OTHER: (
        "join by the relay's pin (--pin, or an invite that has it): its certificate does not matter then; or its operator takes one that is"
        " a server's and no authority's (CA:FALSE)"
    ),
}

_REJECT_HINTS = {
    Code.UNSUPPORTED_PROTOCOL: "install the softlan version the relay runs",
    Code.INVALID_HELLO: "this is likely a bug in softlan: please report it with the line above",
    Code.INVALID_ROOM: "check the room code with the one who invited you",
    Code.DUPLICATE_MAC: (
        "is softlan running twice with the same identity? Stop the other one, or give this one --identity or"
        " --virtual-mac of its own. If a machine on the LAN has the MAC, choose another, and take softlan's adapter out of any bridge"
        " with that LAN"
    ),
    Code.GATEWAY_PRESENT: "stop the other gateway, or choose another room with --room",
    Code.ROOM_FULL: "wait until somebody leaves, or ask the relay's operator for more places",
    Code.RELAY_FULL: "try again later, or ask the relay's operator for more places",
    Code.BUDGET_TOO_SMALL: (
        "let this peer use fragments, or ask the relay's operator for a smaller --room-mtu"
    ),
    Code.MALFORMED_DATAGRAMS: "the two softlan versions do not fit: install the one the relay runs",
    Code.REPLACED: "the same identity joined from elsewhere; run only one client with it",
    Code.SHUTTING_DOWN: "the relay is being stopped or restarted; try again in a moment",
    Code.INTERNAL_ERROR: "the relay's operator finds more in the relay's log",
    Code.KICKED: "talk to the relay's operator; it takes a minute before the relay lets you in again",
    Code.KEY_REQUIRED: (
        "check the room code and ask the host for an invite, or give the room's key with --key or --key-file; an invite without double"
        " quotes around it is cut at its & by the shell"
    ),
    Code.KEY_WRONG: "check the key and the room code with the one who invited you",
    Code.INVITE_EXPIRED: "ask the host for a new invite",
    Code.INVITE_USED: "ask the host for an invite of your own",
    Code.GATEWAY_NOT_ALLOWED: "ask the host for the gateway's key, or for an invite for a gateway",
    Code.BANNED: "talk to the relay's operator",
    Code.TOO_MANY_ATTEMPTS: (
        "wait a minute; if others play from the same address, one of them may have a wrong key or a program that misbehaves"
    ),
    Code.TOO_MANY_CONNECTIONS: (
        "close what else is connected from here, or ask the relay's operator for a higher --max-connections-per-address"
    ),
    Code.CONTROL_FLOOD: "this is likely a bug in softlan: please report it with the line above",
    Code.SLOW_READER: "the line to the relay may be too slow; try again in a moment",
}
