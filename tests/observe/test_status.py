"""Words for players."""

import pytest

from softlan._core import Mac
from softlan.control.codes import Code, Retry
from softlan.control.messages import Disconnect, Reject
from softlan.errors import TrustFault
from softlan.knock import Outcome
from softlan.observe import status
from softlan.observe.status import rejected_error, say, suggest

STATES = [
    (status.Resolving("relay.example"), "looking up relay.example"),
    (
        status.Connecting("relay.example:443", "192.0.2.1:443"),
        "connecting to relay.example:443 at 192.0.2.1:443",
    ),
    (status.Connecting("192.0.2.1:443", "192.0.2.1:443"), "connecting to 192.0.2.1:443"),
    (status.Connected("relay:443"), "the relay relay:443 answered; asking to be let in"),
    (status.Joined("A", 1, 0, False), "in room A alone"),
    (status.Joined("A", 1, 1, False), "in room A with 1 other player"),
    (status.Joined("A", 1, 1, True), "in room A with the gateway"),
    (status.Joined("A", 1, 3, True), "in room A with 2 other players and the gateway"),
    (
        status.AdapterReady("tap0", Mac("02:00:00:00:00:01"), 1416),
        "the virtual network adapter tap0 is ready (address 02:00:00:00:00:01, MTU 1416)",
    ),
    (status.NoGateway("A"), "room A has no gateway: players reach each other, but no real LAN"),
    (status.GatewayJoined("A"), "a gateway joined room A: its LAN is reachable now"),
    (status.GatewayLeft("A"), "the gateway left room A: its LAN is out of reach until it is back"),
    (
        status.Reconnecting(3, 1.5, "timed out"),
        "connection lost (timed out); trying again in 1.5 s (attempt 3)",
    ),
    (status.Reconnecting(1, 0, "reset"), "connection lost (reset); trying again now (attempt 1)"),
    (status.RelayUnreachable("relay:443", 5), "the relay relay:443 did not answer within 5 s"),
    (
        status.NoWay("192.0.2.1:443", Outcome.REFUSED, "Connection refused"),
        "nothing listens at 192.0.2.1:443: the machine there refused the packet",
    ),
    (status.Rejected(Code.ROOM_FULL, ""), "the relay refused: the room has its number of peers"),
    (status.Rejected(Code.ROOM_FULL, "room A is full"), "the relay refused: room A is full"),
    (
        status.PathMtuSmall(1162, 1280),
        "the path to the relay carries only 1162 bytes at once;"
        " frames of the room's MTU (1280) travel in pieces",
    ),
    (status.Stopped("A"), "left room A"),
    *(
        (status.Untrusted("relay:443", fault), f"relay:443 answered, but {words}")
        for fault, words in {
            TrustFault.WRONG_PIN: "it is not the relay whose certificate or pin you were given",
            TrustFault.WRONG_NAME: "its certificate is for another name",
            TrustFault.EXPIRED: "its certificate is not valid at this time",
            TrustFault.OTHER: "its certificate could not be verified",
        }.items()
    ),
]


@pytest.mark.parametrize(("state", "sentence"), STATES, ids=lambda value: type(value).__name__)
def test_sentences(state, sentence):
    assert say(state) == sentence


def test_every_state_has_a_sentence_here():
    assert {type(state) for state, _ in STATES} == set(status.State.__args__)


@pytest.mark.parametrize("code", [code for code in Code if code.retry in (Retry.NO, Retry.PERHAPS)])
def test_what_will_not_mend_itself_comes_with_a_hint(code):
    if code is not Code.PROTOCOL_ERROR:
        assert suggest(status.Rejected(code, "no"))


@pytest.mark.parametrize("fault", TrustFault)
def test_distrust_comes_with_a_hint(fault):
    assert suggest(status.Untrusted("relay:443", fault))


def test_a_state_that_is_fine_needs_no_hint():
    assert suggest(status.Joined("A", 1, 0, False)) is None


def test_a_reject_becomes_an_error():
    error = rejected_error(
        Reject(code=Code.DUPLICATE_MAC, reason="another client has it", field="mac", required_budget=1300)
    )
    assert str(error) == "the relay refused: another client has it"
    assert (error.code, error.field, error.required_budget) == (Code.DUPLICATE_MAC, "mac", 1300)
    assert "--virtual-mac" in error.hint
    assert not error.retryable


def test_a_disconnect_becomes_an_error_too():
    error = rejected_error(Disconnect(code=Code.SHUTTING_DOWN, reason="update"))
    assert error.retryable
    assert error.field is None
