"""The licence texts that travel in the wheels: whose they are, and that they are those of what is locked."""

import importlib.util
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_SPEC = importlib.util.spec_from_file_location("third_party", ROOT / "packaging" / "third_party.py")
third_party = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(third_party)


def test_each_text_is_there_once_under_all_who_have_it():
    crates = [("b", "2", "MIT", ["one"]), ("a", "1", "MIT", ["one"]), ("c", "3", "ISC", ["two", "three"])]
    parts = third_party.gathered(crates).split(f"\n{'=' * 100}\n\n")
    assert parts[1:] == [
        "a 1 (MIT)\nb 2 (MIT)\n\none\n",
        "c 3 (ISC)\n\ntwo\n",
        "c 3 (ISC)\n\nthree\n",
    ]


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("MIT OR Apache-2.0", ["by ann", "mit", "fiat"]),
        ("Apache-2.0/MIT", ["by ann", "mit", "fiat"]),
        ("MIT AND Apache-2.0", ["by ann", "apache", "mit", "fiat"]),
        ("Apache-2.0", ["by ann", "apache", "mit", "fiat"]),
    ],
)
def test_where_mit_is_a_choice_it_is_taken(tmp_path, expression, found):
    (tmp_path / "inside").mkdir()
    for name, text in (
        ("COPYRIGHT", "by ann\n"),
        ("LICENSE-APACHE", "apache"),
        ("license-mit", "mit\n"),
        ("inside/LICENSE", "fiat"),
        ("README.md", "hello"),
    ):
        (tmp_path / name).write_text(text)
    assert sorted(third_party.texts(tmp_path, expression)) == sorted(found)


def test_a_crate_without_a_text_is_named(tmp_path):
    with pytest.raises(ValueError, match=tmp_path.name):
        third_party.texts(tmp_path, "MIT")


def test_the_file_is_what_the_locked_crates_say(tmp_path, monkeypatch, capsys):
    assert third_party.main(["--check"]) == 0
    monkeypatch.setattr(third_party, "FILE", tmp_path / "file")
    assert third_party.main(["--check"]) == 1
    assert "hint: python packaging/third_party.py" in capsys.readouterr().err


def test_the_wheels_carry_it():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert third_party.FILE.name in project["license-files"]
    container = (ROOT / "packaging" / "container" / "Containerfile").read_text()
    assert all(f" {name} " in container for name in project["license-files"])
