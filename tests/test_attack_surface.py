"""`docs/attack-surface.md` names files and tests: they must be there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "attack-surface.md").read_text(encoding="utf-8")

NAMED = sorted(
    set(re.findall(r"`((?:rust|python|tests|docs|packaging)/[\w./-]+|deny\.toml)(?:::(\w+))?`", TEXT))
)
TARGETS = re.findall(r"`(\w+)`", " ".join(re.findall(r"fuzz targets? ((?:`\w+`(?:, )?)+)", TEXT)))
LINKS = re.findall(r"\]\(([^)#]+)\)", TEXT)


def test_it_names_something():
    assert len(NAMED) > 80
    assert {"tests/fuzz/test_any_input.py", "rust/wire/src/reassembly.rs"} <= {path for path, _ in NAMED}


@pytest.mark.parametrize(("path", "name"), NAMED, ids="::".join)
def test_what_it_names_is_there(path, name):
    file = ROOT / path
    assert file.exists(), f"{path} is named in docs/attack-surface.md and is not there"
    if name:
        assert re.search(rf"\b(def|fn) {name}\b", file.read_text(encoding="utf-8")), f"{path} has no {name}"


@pytest.mark.parametrize("target", sorted(set(TARGETS)))
def test_the_fuzz_targets_are_there(target):
    assert (ROOT / "rust" / "fuzz" / "fuzz_targets" / f"{target}.rs").exists()


def test_every_fuzz_target_is_named():
    assert {path.stem for path in (ROOT / "rust" / "fuzz" / "fuzz_targets").iterdir()} == set(TARGETS)


@pytest.mark.parametrize("link", sorted(set(LINKS)))
def test_links_lead_somewhere(link):
    assert (ROOT / "docs" / link).exists()


def test_every_drop_counter_is_one():
    source = (ROOT / "rust" / "switch" / "src" / "counters.rs").read_text(encoding="utf-8")
    for counter in set(re.findall(r"`(drop_\w+)`", TEXT)):
        assert f'"{counter}"' in source, counter


def test_every_row_has_the_cells_of_its_table():
    rows = [
        (line, len(re.split(r" ?\| ?", line.strip("|").strip())))
        for line in TEXT.splitlines()
        if line.startswith("|")
    ]
    assert len(rows) > 60
    wanted = 0
    for number, (line, cells) in enumerate(rows):
        if number + 1 < len(rows) and rows[number + 1][0].startswith("|--"):
            wanted = cells
        assert cells == wanted, line


def test_what_shows_and_sets_up_a_part_is_covered():
    """A row for the page, metrics, captures, settings and services, each with its limit, its counter and a test."""
    section = TEXT.partition("## What shows a part")[2].partition("\n## ")[0]
    rows = [
        [cell.strip() for cell in row.split(" | ")]
        for row in re.findall(r"^\| (?!what they)(.+) \|$", section, re.MULTILINE)
    ]
    assert all(len(row) == 5 and all(row) and "::" in row[4] for row in rows)
    for place in ("page/server.py", "metrics.py", "capture.py", "settings.py", "packaging/systemd"):
        assert any(place in row[2] for row in rows), place
