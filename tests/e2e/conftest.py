"""The end-to-end tests stand on `softlan.lab`: real programs, real TAPs and packet sockets, in network namespaces.

They run as root, or as anybody else in a user namespace: the whole pytest run is then executed again under `unshare`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from softlan.lab import Party, Player, usual_party
from softlan.lab.testing import go_on_in_namespaces, need, skip

sys.path.append(str(Path(__file__).parents[1] / "interop"))
sys.path.append(str(Path(__file__).parents[1] / "observe"))

_HERE = Path(__file__).parent
_refused = pytest.StashKey[str]()
_parties: list[Party] = []


def _is_ours(item: pytest.Item) -> bool:
    return _HERE in item.path.parents


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _is_ours(item):
            item.add_marker(pytest.mark.e2e)
            if pytest_asyncio.is_async_test(item):
                item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Go on in a user namespace where that is needed, and only when there is something to run in it."""
    config = session.config
    if config.option.collectonly or not any(_is_ours(item) for item in session.items):
        return
    if refusal := go_on_in_namespaces(config):
        config.stash[_refused] = refusal


@pytest.fixture(autouse=True)
def _namespaces_allowed(request: pytest.FixtureRequest) -> None:
    if refusal := request.config.stash.get(_refused, None):
        skip(refusal)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: Any = yield
    if report.failed and _is_ours(item):
        report.sections += [("the parts' logs", party.logs()) for party in _parties]
    return report


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def party() -> AsyncIterator[Party]:
    """A LAN with `router` and `server`, a gateway, clients `ann` (.51) and `ben` (.52); drops are logged."""
    async with usual_party(relay_options=["--frame-log", "drops"]) as made:
        _parties.append(made)
        try:
            yield made
        finally:
            _parties.remove(made)


@pytest_asyncio.fixture(loop_scope="session")
async def empty_party() -> AsyncIterator[Party]:
    """An internet with nobody on it."""
    async with Party() as made:
        _parties.append(made)
        try:
            yield made
        finally:
            _parties.remove(made)


Tool = Callable[..., Coroutine[Any, Any, str]]


@pytest.fixture
def tool() -> Tool:
    """Run a real tool on a player's machine: `await tool(ann, "ping", "-c", "1", address)`; skips where it is missing."""

    async def run(player: Player, *command: str, within: float = 30.0, check: bool = True) -> str:
        need(command[0])
        return await asyncio.to_thread(player.host.run, *command, timeout=within, check=check)

    return run


@pytest.fixture
def needs() -> Callable[[str], None]:
    """Skip where a tool is missing."""
    return need
