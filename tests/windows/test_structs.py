"""Addresses, prefixes and GUIDs into C's layout and back."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softlan.windows.structs import GUID, IP_ADDRESS_PREFIX, SOCKADDR_INET


@given(st.ip_addresses())
def test_addresses(address):
    assert SOCKADDR_INET.of(address).address() == address


@given(st.ip_addresses(), st.data())
def test_prefixes(address, data):
    length = data.draw(st.integers(0, address.max_prefixlen))
    network = ip_network((address, length), strict=False)
    assert IP_ADDRESS_PREFIX.of(network).network() == network


def test_the_bytes_of_an_ipv4_address():
    assert bytes(SOCKADDR_INET.of(IPv4Address("192.0.2.1")))[:8] == b"\x02\x00\x00\x00\xc0\x00\x02\x01"


def test_the_bytes_of_an_ipv6_address():
    made = bytes(SOCKADDR_INET.of(IPv6Address("2001:db8::1")))
    assert made[:2] == b"\x17\x00"
    assert made[8:24] == IPv6Address("2001:db8::1").packed


def test_bits_beyond_the_prefix_are_left_out():
    made = IP_ADDRESS_PREFIX(Prefix=SOCKADDR_INET.of(IPv4Address("10.1.2.3")), PrefixLength=8)
    assert made.network() == IPv4Network("10.0.0.0/8")


def test_an_address_of_no_family_is_refused():
    with pytest.raises(ValueError, match="0"):
        SOCKADDR_INET().address()


def test_guids():
    text = "{4D36E972-E325-11CE-BFC1-08002BE10318}"
    assert str(GUID.parse(text)) == text
    assert bytes(GUID.parse(text))[:4] == b"\x72\xe9\x36\x4d"
