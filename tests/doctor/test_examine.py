"""What the doctor leaves alone, and what it goes by."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from softlan.client.identity import hold_identity
from softlan.client.session import SessionConfig
from softlan.config import HostPort
from softlan.control.keys import issue, parse_key
from softlan.control.messages import Role
from softlan.doctor import examine as examine_module
from softlan.doctor import visit, windows
from softlan.doctor.examine import Wish, examine
from softlan.doctor.findings import Check, Finding, Grade
from softlan.doctor.knock import Reach
from softlan.errors import InterfaceError, SoftlanError
from softlan.knock import Outcome
from softlan.windows.registry import InstalledAdapter


def this_machine(identity: Path | None, session: SessionConfig | None = None) -> Wish:
    return Wish(
        session=session,
        room=session is not None,
        identity=identity,
        interface=None,
        tap=None,
        attach=None,
        seconds=0,
        join=True,
    )


@pytest.mark.parametrize("playing", [True, False])
async def test_a_client_that_tells_nobody_is_known_by_its_identity(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, playing: bool
) -> None:
    """As on Windows, which has no sockets for a part's status."""
    told: list[bool] = []

    def look(_tap: str | None, _attach: str | None, *, playing: bool) -> list[Finding]:
        told.append(playing)
        return []

    monkeypatch.setattr(examine_module, "read_all", list)
    monkeypatch.setattr(examine_module, "look_at_adapter", look)
    identity = tmp_path / "identity.json"
    hold_identity(identity, Role.CLIENT).close()
    with contextlib.ExitStack() as stack:
        if playing:
            stack.enter_context(hold_identity(identity, Role.CLIENT))
        assert [finding async for finding in examine(this_machine(identity))] == []
    assert told == [playing]


async def test_looking_at_the_machine_makes_no_identity(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(examine_module, "look_at_adapter", lambda *_, **__: [])
    _ = [finding async for finding in examine(this_machine(tmp_path / "identity.json"))]
    assert os.listdir(tmp_path) == []


def test_who_plays_on_windows_is_not_told_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(_adapter: InstalledAdapter) -> None:
        raise InterfaceError("the adapter 'LAN party' is in use by another program", hint="stop it")

    monkeypatch.setattr(windows.Tap, "open", busy)
    adapter = InstalledAdapter(guid="{0}", name="LAN party", key="0007", instance=None)
    (found,) = windows._try_adapter(adapter, playing=True)
    assert (found.grade, found.hint) == (Grade.SKIPPED, None)
    (found,) = windows._try_adapter(adapter, playing=False)
    assert (found.grade, found.hint) == (Grade.BAD, "stop it")


def invited(*, once: bool) -> SessionConfig:
    return SessionConfig(
        relay=HostPort("192.0.2.1", 443),
        server_name="x",
        trusted=list,
        room="PARTY1",
        role=Role.CLIENT,
        mac=None,
        resume="A" * 43,
        pins=(bytes(32),),
        key=parse_key(issue(bytes(32), "PARTY1", expires=2**40, once=once)),
    )


class Entrance(examine_module._Relay):
    """Nothing but the room of a relay that is well."""

    async def examine(self) -> AsyncIterator[Finding]:
        self._trusted = visit.Trusted(1200, 0.01)
        async for finding in self._room():
            yield finding


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere who runs the doctor is who plays")
@pytest.mark.parametrize(
    ("who", "enters"),
    [
        ((1000, Grade.BAD, True, False), False),
        ((1000, Grade.BAD, False, False), True),
        ((1000, Grade.BAD, True, True), True),
        ((1000, Grade.GOOD, True, False), True),
        ((0, Grade.BAD, True, False), True),
    ],
    ids=["user", "invite-for-many", "identity-named", "with-rights", "root"],
)
async def test_who_cannot_play_does_not_spend_the_invite(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, who: tuple[int, Grade, bool, bool], enters: bool
) -> None:
    user, adapter, once, named = who
    entered: list[SessionConfig] = []

    def enter(config: SessionConfig) -> None:
        entered.append(config)
        raise SoftlanError("this is as far as it goes")

    monkeypatch.setattr(examine_module, "read_all", list)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    look = [Finding(Check.ADAPTER, adapter, "as it is")]
    monkeypatch.setattr(examine_module, "look_at_adapter", lambda *_, **__: look)
    monkeypatch.setattr(examine_module, "_Relay", Entrance)
    monkeypatch.setattr(visit, "enter", enter)
    identity = tmp_path / "identity.json" if named else None
    found = [finding async for finding in examine(this_machine(identity, invited(once=once)))]
    assert (len(entered) == 1) == enters
    if not enters:
        assert (found[-1].check, found[-1].grade) == (Check.ROOM, Grade.SKIPPED)
        assert "sudo" in str(found[-1].hint)


def test_on_windows_the_doctor_is_never_who_plays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    says, hint = examine_module._why_another_plays(may_play=True) or ("", "")
    assert "the adapter's MAC" in says
    assert "sudo" not in hint


async def test_who_is_told_to_stop_while_the_look_is_awaited_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent relay: its knocks are settled before the look is, and Ctrl-C comes in between."""
    looked, went_on = asyncio.Event(), []

    async def look(_place: tuple[str, int], _name: str) -> None:
        looked.set()
        await asyncio.Event().wait()

    async def resolve(_relay: HostPort) -> list[str]:
        return ["192.0.2.1:443"]

    async def knock_at_once(_reach: object, _place: tuple[str, int]) -> Reach:
        return Reach("192.0.2.1", Outcome.SILENT)

    async def try_trust(_session: SessionConfig, address: str) -> None:
        went_on.append(address)
        raise SoftlanError("this is as far as it goes")

    monkeypatch.setattr(examine_module, "look", look)
    monkeypatch.setattr(examine_module, "resolve", resolve)
    monkeypatch.setattr(examine_module, "in_thread", knock_at_once)
    monkeypatch.setattr(visit, "try_trust", try_trust)
    relay = examine_module._Relay(this_machine(None), invited(once=False), may_play=True)

    async def run() -> None:
        async for _ in relay.examine():
            pass

    running = asyncio.create_task(run())
    await looked.wait()
    for _ in range(10):  # turns of the loop, in which the knocks are told
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait((running,))
    assert (running.cancelled(), went_on) == (True, [])
