"""What a relay can say about where players reach it."""

import ipaddress

import pytest

from softlan.config import HostPort
from softlan.relay.whereabouts import find_whereabouts, own_addresses

PIN = "A" * 43
DEV = {"pins": (PIN,), "certified_names": None}


@pytest.mark.parametrize(
    ("listening", "public", "own", "relay", "words"),
    [
        ("[::]:443", ("play.example.org", None), ("192.168.1.5",), HostPort("play.example.org", 443), None),
        ("[::]:443", ("play.example.org", 4433), (), HostPort("play.example.org", 4433), None),
        ("[::]:443", None, ("192.168.1.5", "2600::5"), HostPort("2600::5", 443), None),
        ("0.0.0.0:99", None, ("8.8.8.8",), HostPort("8.8.8.8", 99), None),
        ("[::]:443", None, ("192.168.1.5",), HostPort("192.168.1.5", 443), "own network only"),
        ("[::]:443", None, (), None, "no address to the outside"),
        ("8.8.4.4:5", None, ("192.168.1.5",), HostPort("8.8.4.4", 5), None),
        ("127.0.0.1:5", None, ("8.8.8.8",), HostPort("127.0.0.1", 5), "own network only"),
    ],
)
def test_the_address(listening, public, own, relay, words):
    found = find_whereabouts(listening, public, own=own, **DEV)
    assert found.relay == relay
    assert found.pins == (PIN,)
    assert words in found.notes[0] if words else not found.notes


def test_a_certificate_of_an_authority_needs_no_pin_under_its_own_name():
    by_name = find_whereabouts(
        "[::]:443", ("Play.example.org", None), pins=(PIN,), certified_names=("play.example.org",)
    )
    assert (by_name.pins, by_name.notes) == ((), ())
    by_address = find_whereabouts(
        "[::]:443", ("8.8.8.8", None), pins=(PIN,), certified_names=("play.example.org",)
    )
    assert by_address.pins == (PIN,)
    assert "is not for 8.8.8.8" in by_address.notes[0]


@pytest.mark.parametrize(
    ("host", "name", "certified"),
    [
        ("play.example.org", "*.example.org", True),
        ("Play.Example.org", "*.EXAMPLE.org", True),
        ("play.example.org", "Play.Example.org", True),
        ("play.example.org.", "play.example.org", True),
        ("m\u00fcller.example", "xn--mller-kva.example", True),
        ("example.org", "*.example.org", False),
        ("a.play.example.org", "*.example.org", False),
        ("localhost", "*", False),
    ],
)
def test_names_are_compared_as_peers_compare_them(host, name, certified):
    found = find_whereabouts("[::]:443", (host, None), pins=(PIN,), certified_names=("other.example", name))
    assert (found.pins, len(found.notes)) == (((), 0) if certified else ((PIN,), 1))


def test_a_certificate_that_will_not_last_is_mentioned():
    found = find_whereabouts("[::]:443", ("h", None), kept=False, **DEV)
    assert "--state" in found.other_notes[0]
    assert str(found.invite("a")) == f"softlan://h/A?pin={PIN}"


def test_own_addresses_are_addresses():
    for address in own_addresses():
        ipaddress.ip_address(address)
