"""Where a relay is: its name looked up, in a thread of its own that nobody waits for when a session ends, and where it was last reached.

A machine that changes networks, or wakes up, often has no name server for a while, and its relay is where it was.
"""

from __future__ import annotations

import asyncio
import socket

from softlan.config import HostPort
from softlan.errors import RelayUnreachableError
from softlan.threads import in_thread

__all__ = ["AddressBook", "resolve"]

_ANSWER_S = 6.0
"""How long name servers may take: as long as a first attempt to connect."""

_PATIENCE_S = 0.7
"""For name servers where an address is known: as long as between two attempts to connect."""


class AddressBook:
    """The addresses of a session's relays: looked up for each attempt to connect, and kept once a relay was reached there."""

    def __init__(self) -> None:
        self._found: dict[HostPort, list[str]] = {}
        self._good: dict[HostPort, list[str]] = {}
        self._under_way: dict[HostPort, asyncio.Future[list[str]]] = {}

    async def addresses(self, relay: HostPort) -> list[str]:
        """Give a relay's addresses, in the order to try them in: those its name has, or those it was reached at if that is not known soon.

        What a lookup finds after that is appended to the list that was given. It goes on when this is cancelled, for the next attempt.

        Raises:
            RelayUnreachableError: the name has none, and the relay was never reached.

        """
        lookup = self._under_way.get(relay)
        if lookup is None:
            lookup = self._under_way[relay] = asyncio.ensure_future(resolve(relay))
            lookup.add_done_callback(lambda ended: self._note(relay, ended))
        good = list(self._good.get(relay, ()))
        await asyncio.wait((lookup,), timeout=_PATIENCE_S if good else None)
        if not lookup.done():
            lookup.add_done_callback(lambda ended: _append(good, ended))
        elif not good or not _failed(lookup):
            return list(lookup.result())
        return good

    def reached(self, relay: HostPort, address: str) -> None:
        """Take note that the relay answered there."""
        others = [other for other in self._found.get(relay, ()) if other != address]
        self._good[relay] = [address, *others]

    def close(self) -> None:
        """End what is under way."""
        for lookup in self._under_way.values():
            lookup.cancel()

    def _note(self, relay: HostPort, ended: asyncio.Future[list[str]]) -> None:
        del self._under_way[relay]
        if not _failed(ended):
            self._found[relay] = ended.result()


def _failed(lookup: asyncio.Future[list[str]]) -> bool:
    return lookup.cancelled() or lookup.exception() is not None


def _append(addresses: list[str], lookup: asyncio.Future[list[str]]) -> None:
    if not _failed(lookup):
        addresses += [address for address in lookup.result() if address not in addresses]


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
