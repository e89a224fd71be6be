"""The commands that documents, hints and help name, are there."""

import re

import click
import pytest
from blocks import ROOT

from softlan.cli import main

NAMED = re.compile(r"`(?:sudo )?softlan\s+([a-z]+)(?:\s+([a-z]+))?\b")
VERBS = {"changes"}
"""In sentences about softlan that begin a quotation."""

SOURCES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "packaging" / "config").glob("*.toml")),
    *sorted((ROOT / "python" / "softlan").rglob("*.py")),
]


def unknown(text: str) -> list[str]:
    """Give what `softlan ...` names of what there is not."""
    found = []
    for first, second in NAMED.findall(text):
        command = main.commands.get(first)
        if first in VERBS:
            continue
        if command is None:
            found.append(first)
        elif isinstance(command, click.Group) and second and second not in command.commands:
            found.append(f"{first} {second}")
    return found


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_command_that_is_named_is_there(source):
    assert unknown(source.read_text(encoding="utf-8")) == []


def test_one_that_is_not_is_noticed():
    text = "ask with `softlan kick`, `sudo softlan admin\n  keck R 1` or `softlan admin kick R 1`, and `softlan status`"
    assert unknown(text) == ["kick", "admin keck"]


def test_an_update_brings_the_libraries_up_to_date_too():
    """pip leaves an older one in place while it is good enough, with what is wrong in it."""
    told = [
        (source.name, options)
        for source in (ROOT / "docs").rglob("*.md")
        for options in re.findall(
            r"/pip install (--upgrade[^`\n]*) softlan", source.read_text(encoding="utf-8")
        )
    ]
    assert {name for name, _ in told} == {"service.md", "relay.md"}
    assert {options for _, options in told} == {"--upgrade --upgrade-strategy eager"}
