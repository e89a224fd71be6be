"""Looking a relay's name up: what cannot be a name is told like one that nobody knows, and addresses keep their zone."""

from __future__ import annotations

import socket

import pytest

from softlan.client.lookup import resolve
from softlan.config import HostPort
from softlan.errors import RelayUnreachableError


@pytest.mark.parametrize(
    "host", ["relay..example.org", "x" * 64 + ".example.org", "\u00df" * 63 + ".example.org"]
)
async def test_what_cannot_be_a_name_does_not_resolve(host: str) -> None:
    # A relay names its successor; who joins it must not fall over that.
    with pytest.raises(RelayUnreachableError, match="does not resolve"):
        await resolve(HostPort(host, 443))


async def test_an_address_keeps_its_zone() -> None:
    number = socket.if_nametoindex("lo")
    assert await resolve(HostPort("fe80::1%lo", 443)) == [f"[fe80::1%{number}]:443"]
    assert await resolve(HostPort("2001:db8::1", 443)) == ["[2001:db8::1]:443"]
    assert await resolve(HostPort("192.0.2.1", 443)) == ["192.0.2.1:443"]
