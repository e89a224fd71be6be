"""Puts a run's tables into a document, between two marks that stay."""

from __future__ import annotations

from pathlib import Path

from softlan.lab import LabError


def replace(file: Path, mark: str, text: str) -> None:
    """Replace what stands between `<!-- MARK: begin -->` and `<!-- MARK: end -->`. Raises `LabError` without both."""
    begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    before, found, rest = file.read_text(encoding="utf-8").partition(begin)
    _, found_too, after = rest.partition(end)
    if not found or not found_too:
        raise LabError(f"{file} has no marks `{begin}` and `{end}`")
    file.write_text(f"{before}{begin}\n{text.strip()}\n{end}{after}", encoding="utf-8")
