"""Puts measured figures into a document, between two markers, with the day and the machine they come from."""

from __future__ import annotations

import datetime
import os
import platform
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .namespaces import LabError


def replace_between(path: Path, name: str, content: str) -> None:
    """Put `content` between `<!-- NAME: begin -->` and `<!-- NAME: end -->` in `path`.

    Raises `LabError`: the markers are not there.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    text = path.read_text(encoding="utf-8")
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    fresh, count = pattern.subn(lambda _: f"{begin}\n{content}\n{end}", text)
    if count != 1:
        raise LabError(f"{path.name} does not hold the markers of `{name}` once")
    path.write_text(fresh, encoding="utf-8")


def machine_line(seed: int | None = None) -> str:
    """Say when, on what, and with which seed if there is one."""
    day = datetime.datetime.now(datetime.UTC).date()
    load = os.getloadavg()[0]
    seeded = "" if seed is None else f", seed {seed}"
    return f"{day}, Linux {platform.release()}, {os.cpu_count()} cores (load {load:.1f} at the end){seeded}."


def origin_of(runs: Iterable[Mapping[str, Any]]) -> str:
    """Give the `machine_line` that each run kept as `origin` beside its figures, on a line of its own; of one that kept none, say so."""
    return "\n".join(
        dict.fromkeys(run.get("origin", "Of a run that did not keep its origin.") for run in runs)
    )
