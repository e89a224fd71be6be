"""When a joining player stops trying: knocks judged by numbers alone, and made for real on loopback."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softlan.client import barred as barred_module
from softlan.client import session as session_module
from softlan.client.barred import Barred, Doubt, barred
from softlan.client.session import RelaySession, SessionConfig
from softlan.config import HostPort
from softlan.control.messages import Role
from softlan.errors import RelayUnreachableError
from softlan.knock import Outcome

REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")


def closed_port() -> int:
    """A UDP port of this machine at which nobody listens."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@given(times=st.lists(st.floats(0, 10), max_size=8), later=st.floats(0, 5), answered=st.booleans())
def test_doubt_takes_a_failure_and_time_without_an_answer(
    times: list[float], later: float, answered: bool
) -> None:
    doubt = Doubt("127.0.0.1:9", answered=answered)
    for now in sorted(times):
        doubt.failed(REFUSED, now)
    now = max(times, default=0.0) + later
    enough = bool(times) and now - min(times) >= 1.5
    assert (doubt.verdict(now) is not None) == (enough and not answered)
    assert doubt.verdict(now) in (None, Barred("127.0.0.1:9", Outcome.REFUSED, "Connection refused"))


def test_a_packet_that_is_too_long_says_nothing_of_the_way() -> None:
    doubt = Doubt("127.0.0.1:9")
    doubt.failed(OSError(errno.EMSGSIZE, "Message too long"), 0)
    doubt.failed(OSError(errno.EINVAL, "a system's own oddity"), 0)
    assert doubt.verdict(100) is None


async def test_a_closed_port_is_noticed() -> None:
    address = f"127.0.0.1:{closed_port()}"
    found = await asyncio.wait_for(barred([address]), 20)
    assert (found.address, found.outcome) == (address, Outcome.REFUSED)


async def test_one_address_that_is_silent_keeps_the_hope(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(barred_module, "_PATIENCE_S", 0.0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{closed_port()}", f"127.0.0.1:{silent.getsockname()[1]}"]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(barred(addresses), 2)


async def test_an_answer_ends_the_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay that answers once, and whose port is closed then."""
    monkeypatch.setattr(barred_module, "_PATIENCE_S", 0.0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as relay:
        relay.bind(("127.0.0.1", 0))
        relay.setblocking(False)
        address = relay.getsockname()
        watching = asyncio.ensure_future(barred([f"127.0.0.1:{address[1]}"]))
        loop = asyncio.get_running_loop()
        packet, sender = await loop.sock_recvfrom(relay, 2048)
        assert len(packet) == 1200
        await loop.sock_sendto(relay, b"anything", sender)
    done, _ = await asyncio.wait((watching,), timeout=2)
    assert not done
    watching.cancel()


async def test_a_session_says_so_long_before_its_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_FIRST_CONNECT_S", 300.0)
    relay = HostPort("127.0.0.1", closed_port())
    config = SessionConfig(
        relay=relay,
        server_name="x",
        trusted=list,
        room="PARTY1",
        role=Role.GATEWAY,
        mac=None,
        resume="A" * 43,
        pins=(bytes(32),),
    )
    session = RelaySession(config, handler=None)  # type: ignore[arg-type]  # nobody is let in
    with pytest.raises(RelayUnreachableError, match=f"nothing listens at {relay}") as caught:
        await session.run()
    assert "the relay may be stopped" in str(caught.value.hint)
