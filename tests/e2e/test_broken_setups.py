"""Broken set-ups, each named by the doctor or the part itself; the table in docs/troubleshooting-cases.md is made from them.

    SOFTLAN_WRITE_DOCS=1 python -m pytest tests/e2e/test_broken_setups.py -k table

writes the table anew after sentences have changed. The cases run beside each other, a few at a time.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

sys.path.append(str(Path(__file__).parent))

from broken_setups import CASES, Case, Said, World, fits, world  # found by the line above

from softlan.lab.docs import replace_between

DOCUMENT = Path(__file__).parents[2] / "docs" / "troubleshooting-cases.md"
BESIDE_EACH_OTHER = 4


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, asyncio.Task[list[Said]]]]:
    """All chosen cases, under way."""
    chosen = {item.callspec.id for item in request.session.items if hasattr(item, "callspec")}
    some = asyncio.Semaphore(BESIDE_EACH_OTHER)

    async def build(one: Case, made: World) -> list[Said]:
        async with some:
            return await one.build(made)

    async with world(tmp_path_factory.mktemp("broken")) as made:
        tasks = {one.name: asyncio.create_task(build(one, made)) for one in CASES if one.name in chosen}
        try:
            yield tasks
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)


@pytest.mark.parametrize("one", CASES, ids=lambda one: one.name)
async def test_it_is_named(one: Case, running: dict[str, asyncio.Task[list[Said]]]) -> None:
    said = await running[one.name]
    expected = one.expected
    lines = "\n".join(map(str, said))
    found = [s for s in said if (s.who, s.grade) == (expected.who, expected.grade)]
    assert found, f"{expected.who} says nothing {expected.grade}:\n{lines}"
    assert fits(expected.says, found[0].says), f"expected: {expected.says}\n{lines}"
    assert fits(expected.hint, found[0].hint), f"expected: {expected.hint}\n{lines}"
    # A busy machine may be slow besides.
    others = {s.who for s in said} - {expected.who, *one.beside, "doctor: line", "doctor: echo"}
    assert not others, f"blamed as well:\n{lines}"


def table() -> str:
    rows = ["| what is broken | who says it | in these words | and advises |", "|---|---|---|---|"]
    for one in CASES:
        words = (
            one.setup,
            f"{one.expected.who} ({one.expected.grade})",
            one.expected.says,
            one.expected.hint or "",
        )
        rows.append("| " + " | ".join(_cell(word) for word in words) + " |")
    return "\n".join(rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")


def test_the_table_is_what_was_tested() -> None:
    if os.environ.get("SOFTLAN_WRITE_DOCS") == "1":
        replace_between(DOCUMENT, "cases", table())
    text = DOCUMENT.read_text(encoding="utf-8")
    assert f"<!-- cases: begin -->\n{table()}\n<!-- cases: end -->" in text, (
        "SOFTLAN_WRITE_DOCS=1 writes it anew"
    )


def test_there_are_enough() -> None:
    assert len({one.name for one in CASES}) == len(CASES) > 40
