"""What docs/troubleshooting.md quotes, softlan says: each quotation is looked up in the strings of the sources, holes and all."""

import ast
import re
from functools import cache

import pytest
from blocks import DOCS, ROOT

PAGE = DOCS / "troubleshooting.md"
HOLE = "..."


def quotations():
    """The code in the first column of every table."""
    rows = re.findall(r"^\| (.+?) \| .+ \| .+ \|$", PAGE.read_text(), re.MULTILINE)
    return [quote for row in rows for quote in re.findall(r"`([^`]+)`", row) if quote not in ("ping",)]


@cache
def templates():
    """Every text in the product's sources, with `...` for what is filled in."""
    found = set()
    for file in (ROOT / "python" / "softlan").rglob("*.py"):
        if "lab" not in file.parts:
            found.update(filter(None, map(template, ast.walk(ast.parse(file.read_text())))))
    for file in (ROOT / "rust").glob("*/src/**/*.rs"):
        literals = re.findall(r'"((?:[^"\\\n]|\\.)*)"', file.read_text())
        found.update(with_holes(text) for text in literals)
    return {text for text in found if " " in text or text.startswith("drop_")}


def template(node):
    match node:
        case ast.Constant(str() as text):
            return with_holes(text)
        case ast.JoinedStr(values):
            return "".join(v.value if isinstance(v, ast.Constant) else HOLE for v in values)
    return None


def with_holes(text):
    return re.sub(r"\{[\w:.?>!]*\}", HOLE, text)


def is_said(quote):
    return any(quote in text for text in templates())


@pytest.mark.parametrize("quote", sorted(set(quotations())))
def test_softlan_says_it(quote):
    assert is_said(quote), f"no source says {quote!r}"


def test_quotations_are_found_and_can_be_wrong():
    assert len(set(quotations())) > 50
    assert is_said("room ... is full: it holds ...")
    assert not is_said("room ... is full, it holds ...")
    assert not is_said("room PARTY1 is full: it holds ...")
