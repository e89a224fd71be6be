"""A place `pip` installs from in the lab, where there is no internet: softlan's wheel, and what it needs as this environment has it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def make(directory: Path) -> str | None:
    """Fill `directory`; gives why it cannot be, None when it is done. `SOFTLAN_WHEEL` names a wheel that was built already."""
    directory.mkdir()
    if built := os.environ.get("SOFTLAN_WHEEL"):
        shutil.copy(built, directory)
    else:
        maturin = Path(sys.executable).with_name("maturin")
        if not maturin.exists() or shutil.which("cargo") is None:
            return "neither SOFTLAN_WHEEL nor maturin and cargo are here"
        subprocess.run(
            [maturin, "build", "-q", "--release", "--out", directory], cwd=ROOT, check=True, timeout=600
        )
    for distribution in _needed("softlan"):
        _pack(distribution, directory)
    return None


def _needed(name: str) -> list[metadata.Distribution]:
    """What a distribution needs, extras included as far as they are installed, and so on."""
    found: dict[str, metadata.Distribution] = {}
    names = [name]
    while names:
        for requirement in metadata.requires(names.pop()) or []:
            if re.search(r"extra == .(test|lint|bench)", requirement):
                continue
            plain = re.match(r"[\w.-]+", requirement)
            assert plain is not None
            try:
                distribution = metadata.distribution(plain[0])
            except metadata.PackageNotFoundError:
                continue
            if distribution.name not in found:
                found[distribution.name] = distribution
                names.append(distribution.name)
    return list(found.values())


def _pack(distribution: metadata.Distribution, directory: Path) -> None:
    """Put an installed distribution into a wheel again, without the programs pip made for it (they are made anew)."""
    tag = re.search(r"^Tag: (.+)$", distribution.read_text("WHEEL") or "", re.MULTILINE)
    assert tag is not None
    name = re.sub(r"[-_.]+", "_", distribution.name)
    with zipfile.ZipFile(directory / f"{name}-{distribution.version}-{tag[1]}.whl", "w") as wheel:
        for file in distribution.files or []:
            kept = ".." not in file.parts and "__pycache__" not in file.parts
            if kept and file.name not in ("INSTALLER", "REQUESTED", "direct_url.json"):
                wheel.write(str(file.locate()), str(file))
