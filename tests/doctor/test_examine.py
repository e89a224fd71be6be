"""What the doctor leaves alone, and what it goes by."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from softlan.client.identity import hold_identity
from softlan.control.messages import Role
from softlan.doctor import examine as examine_module
from softlan.doctor import windows
from softlan.doctor.examine import Wish, examine
from softlan.doctor.findings import Finding, Grade
from softlan.errors import InterfaceError
from softlan.windows.registry import InstalledAdapter


def this_machine(identity: Path) -> Wish:
    return Wish(
        session=None,
        room=False,
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
