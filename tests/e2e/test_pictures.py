"""The pictures in the documents: they can be drawn again, anybody can read them, and they fetch nothing from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

IMAGES = Path(__file__).parents[2] / "docs" / "images"


def words(picture: Path) -> str:
    """Everything written in a picture, on one line."""
    text = " ".join(
        "".join(element.itertext())
        for element in ElementTree.parse(picture).iter()
        if element.tag.endswith("}text")
    )
    return re.sub(r"\s+", " ", text.replace("\xa0", " "))


@pytest.mark.parametrize("name", ["topology.svg", "terminal.svg", "terminal-200.svg"])
def test_a_picture_is_whole_and_needs_nothing_else(name: str) -> None:
    picture = IMAGES / name
    root = ElementTree.parse(picture).getroot()
    assert root.get("role") == "img"
    assert root.get("aria-label") or root.get("aria-labelledby")
    assert not re.search(r"(?:href|src|url)\s*[=(]\s*[\"']?(?:https?:|//)", picture.read_text())


def test_the_drawing_is_readable_on_light_and_dark() -> None:
    assert "prefers-color-scheme: dark" in (IMAGES / "topology.svg").read_text()
    assert {"relay", "gateway", "ann", "ben"} <= set(words(IMAGES / "topology.svg").split())


def test_the_terminal_is_drawn_with_200_peers(tmp_path: Path) -> None:
    drawn = tmp_path / "terminal-200.svg"
    command = [sys.executable, str(IMAGES / "terminal.py"), "--made-up", str(drawn)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    for picture in (drawn, IMAGES / "terminal-200.svg"):
        assert "200 peers in 30 rooms" in words(picture)
        assert "scroll: 1-39 of 236" in words(picture)


def test_the_terminal_is_drawn_from_a_party(tmp_path: Path) -> None:
    drawn = tmp_path / "terminal.svg"
    command = [sys.executable, str(IMAGES / "terminal.py"), str(drawn), "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    for picture in (drawn, IMAGES / "terminal.svg"):
        said = words(picture)
        for what in ("6 peers in 2 rooms", "FRIDAY", "PARTY1", "4 peers, gateway", "dhcp-server", "q end"):
            assert what in said, f"{picture}: {said}"
