"""Where a relay is: its name looked up, in a thread of its own that nobody waits for when a session ends."""

from __future__ import annotations

import asyncio
import socket

from softlan.config import HostPort
from softlan.errors import RelayUnreachableError
from softlan.threads import in_thread

__all__ = ["resolve"]

_ANSWER_S = 6.0
"""How long name servers may take: as long as a first attempt to connect."""


async def resolve(relay: HostPort) -> list[str]:
    """Look a relay up: up to four addresses, `IP:PORT` each, in the order to try them in.

    Raises:
        RelayUnreachableError: the name has none, or nobody answers for it.

    """
    try:
        async with asyncio.timeout(_ANSWER_S):
            found = await in_thread(socket.getaddrinfo, relay.host, relay.port, type=socket.SOCK_DGRAM)
    except (OSError, TimeoutError, UnicodeError) as error:
        # A UnicodeError is a name that IDNA cannot write (RFC 5891).
        raise RelayUnreachableError(
            f"{relay.host} does not resolve to an address: {_words(error)}",
            hint="check the spelling, and this machine's name servers",
        ) from error
    return list(dict.fromkeys(_address(*info[4]) for info in found))[:4]


def _address(host: str | int, port: int | bytes, _flow: int = 0, scope: int = 0) -> str:
    """Print what getaddrinfo found as `IP:PORT`, a link-local address with its zone's number (RFC 4007 section 11.2)."""
    host = str(host).partition("%")[0]
    return str(HostPort(f"{host}%{scope}" if scope else host, int(port)))


def _words(error: OSError | TimeoutError | UnicodeError) -> str:
    if isinstance(error, UnicodeError):
        return "it is no name that can be asked for"
    return (
        (error.strerror or str(error))
        if isinstance(error, socket.gaierror)
        else "no answer from the name server"
    )
