"""Tests of the Windows side: pure ones run here; those with a fixture of this file run under Wine, and are marked `windows`.

What is real and what stands in for Windows is told in docs/windows.md. The slow things, a Wine prefix, Rust's standard library for Windows,
are kept in a cache (packaging/windows/cache.sh).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "inside")]

from standin_python import WindowsPython, make_standin_python  # noqa: E402
from wine_lab import HERE, ROOT, Wine, checked, free_ports, require_programs  # noqa: E402

from softlan.lab.testing import go_on_in_namespaces, skip  # noqa: E402

_ON_WINE = {"wine_base", "wine", "tap_wine", "standin"}
_refused = pytest.StashKey[str]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents and _ON_WINE & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.windows)
            # The first of them builds what is not in the cache yet.
            item.add_marker(pytest.mark.timeout(900))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Go on in a user namespace where the party needs that, as tests/e2e does."""
    config = session.config
    if config.option.collectonly or not any(
        item.path.parent == HERE and "party" in item.keywords for item in session.items
    ):
        return
    if refusal := go_on_in_namespaces(config):
        config.stash[_refused] = refusal


@pytest.fixture(scope="session")
def namespaces(request: pytest.FixtureRequest) -> None:
    """For tests that need network namespaces."""
    if refusal := request.config.stash.get(_refused, None):
        skip(refusal)


@pytest.fixture(scope="session")
def wine_base() -> Wine:
    """The cached prefix and Python, with whatever wheel was installed last. Not to be changed: `copy` it."""
    require_programs()
    directory = Path(checked([str(HERE / "wine" / "setup.sh")]))
    return Wine(directory / "prefix", directory / "python")


@pytest.fixture(scope="session")
def windows_wheel(wine_base: Wine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The win_amd64 wheel of this tree; SOFTLAN_WINDOWS_WHEEL names one that is built already."""
    if given := os.environ.get("SOFTLAN_WINDOWS_WHEEL"):
        return Path(given).resolve()
    build = ROOT / "packaging" / "windows" / "build-wheel.sh"
    return Path(checked([str(build), str(tmp_path_factory.mktemp("wheel"))]))


@pytest.fixture(scope="session")
def wine(wine_base: Wine, windows_wheel: Path) -> Wine:
    """The cached prefix and Python with softlan installed from the wheel. Not to be changed: `copy` it."""
    checked([str(HERE / "wine" / "setup.sh"), str(windows_wheel)])
    return wine_base


@pytest.fixture(scope="session")
def standin(wine: Wine, tmp_path_factory: pytest.TempPathFactory) -> WindowsPython:
    """Give a Windows Python whose IP Helper is the stand-in."""
    return make_standin_python(tmp_path_factory.mktemp("standin"))


@pytest.fixture(scope="session")
def tap_wine(wine: Wine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wine]:
    """A copy with the stand-in TAP driver."""
    made = wine.copy(tmp_path_factory.mktemp("tap"), standin_port=free_ports(5))
    try:
        yield made
    finally:
        made.server("-k")
