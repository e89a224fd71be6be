"""Name lookups that hang, fail or come late: a session ends all the same, and goes back where it was."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from typing import Any

import pytest

from softlan.client import lookup
from softlan.client.library import Session
from softlan.client.lookup import AddressBook
from softlan.client.session import RelaySession, SessionConfig
from softlan.config import HostPort
from softlan.control.codes import Code
from softlan.control.messages import Role
from softlan.errors import RelayUnreachableError
from softlan.parts import run_part
from softlan.relay.certificates import make_dev_certificate
from softlan.relay.server import Relay, RelayConfig

NAME = HostPort("relay.example.org", 443)


def to(relay: HostPort) -> SessionConfig:
    return SessionConfig(
        relay=relay,
        server_name="x",
        trusted=list,
        room="PARTY1",
        role=Role.GATEWAY,
        mac=None,
        resume="A" * 43,
        pins=(bytes(32),),
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_session_whose_lookup_hangs(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    over = threading.Event()
    came_back: list[bool] = []

    def hang(*_asked: Any, **_how: Any) -> Any:
        os.kill(os.getpid(), number)
        came_back.append(over.wait(20))
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", hang)

    async def main(stopping: asyncio.Event) -> None:
        session = RelaySession(to(NAME), handler=None)  # type: ignore[arg-type]  # nobody is let in
        running = asyncio.ensure_future(session.run())
        await stopping.wait()
        session.stop()
        await running

    run_part(main)
    assert not came_back  # So nobody waited for it.
    over.set()


class Names:
    """A name server whose answers are given one by one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[asyncio.Future[list[str]]] = []
        self._one_more = asyncio.Event()
        monkeypatch.setattr(lookup, "resolve", self._resolve)

    async def _resolve(self, _relay: HostPort) -> list[str]:
        self.asked.append(asyncio.get_running_loop().create_future())
        self._one_more.set()
        return await self.asked[-1]

    async def ask(self, book: AddressBook) -> asyncio.Task[list[str]]:
        self._one_more.clear()
        asking = asyncio.create_task(book.addresses(NAME))
        await asyncio.wait_for(self._one_more.wait(), 10)
        return asking


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


async def known(names: Names) -> AddressBook:
    """A book of a relay with two addresses that was reached at the second."""
    book = AddressBook()
    asking = await names.ask(book)
    names.asked[-1].set_result(["192.0.2.1:443", "192.0.2.2:443"])
    assert await asking == ["192.0.2.1:443", "192.0.2.2:443"]
    book.reached(NAME, "192.0.2.2:443")
    return book


GOOD = ["192.0.2.2:443", "192.0.2.1:443"]
NOBODY = RelayUnreachableError("no answer from the name server")


async def test_a_relay_that_was_never_reached_needs_its_name(names: Names) -> None:
    asking = await names.ask(AddressBook())
    names.asked[-1].set_exception(NOBODY)
    with pytest.raises(RelayUnreachableError, match="no answer"):
        await asking


async def test_a_lookup_that_fails_leaves_where_the_relay_was_reached(names: Names) -> None:
    asking = await names.ask(await known(names))
    names.asked[-1].set_exception(NOBODY)
    assert await asking == GOOD


async def test_what_the_name_says_now_counts_more(names: Names) -> None:
    asking = await names.ask(await known(names))
    names.asked[-1].set_result(["198.51.100.1:443"])
    assert await asking == ["198.51.100.1:443"]


async def test_a_lookup_that_takes_long_is_not_waited_for_and_adds_what_it_finds(names: Names) -> None:
    book = await known(names)
    addresses = await (await names.ask(book))
    assert addresses == GOOD
    # The next attempt to connect asks nobody again.
    asking = asyncio.create_task(book.addresses(NAME))
    await asyncio.sleep(0)
    names.asked[-1].set_result(["198.51.100.1:443"])
    assert await asking == ["198.51.100.1:443"]
    assert addresses == [*GOOD, "198.51.100.1:443"]
    assert len(names.asked) == 2


async def test_a_session_comes_back_without_a_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = make_dev_certificate("relay.test")
    relay = Relay.start(RelayConfig(listen="127.0.0.1:0"), certificate)
    serving = asyncio.create_task(relay.serve())
    answers: list[Any] = [socket.getaddrinfo("127.0.0.1", relay.local_address.rpartition(":")[2])]

    def once(*_asked: Any, **_how: Any) -> Any:
        if answers:
            return answers.pop()
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", once)
    try:
        async with Session.join(
            relay="relay.test:443", room="A", certificate=certificate.chain[0]
        ) as session:
            inner = session._inner
            assert inner is not None
            assert inner.connection is not None
            inner.entered.clear()
            inner.connection.close(Code.GOODBYE.number, "")
            await asyncio.wait_for(inner.entered.wait(), 20)
    finally:
        await relay.close()
        await asyncio.gather(serving, return_exceptions=True)
