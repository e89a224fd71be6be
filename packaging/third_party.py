"""Gathers the licence texts of the crates that are linked into softlan's wheels, which their licences want beside every copy.

    python packaging/third_party.py           writes THIRD-PARTY-LICENSES anew, after Cargo.lock has changed
    python packaging/third_party.py --check   ends with 1 where it is not what the locked crates say

What is linked is the tree of the module `softlan._core` on the machines that wheels are made for, without build scripts and macros. The
texts are the crates' own files, as cargo has fetched them; of a crate that leaves a choice with MIT in it, the MIT one.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "THIRD-PARTY-LICENSES"
TARGETS = ("x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "x86_64-pc-windows-gnu")

_NOTICE = re.compile(r"(licen[cs]e|copying|copyright|notice|unlicense)", re.IGNORECASE)
_HEAD = """\
softlan's compiled module (softlan._core) holds code of the crates below, under these terms. It also holds parts of Rust's standard
library (github.com/rust-lang/rust, MIT OR Apache-2.0), whose texts are those in LICENSE-MIT and LICENSE-APACHE. softlan's own are the
same two. Made by packaging/third_party.py.
"""


def linked() -> set[tuple[str, str]]:
    """Ask cargo which crates, name and version, are linked into the module."""
    found = set()
    for target in TARGETS:
        command = [
            "cargo",
            "tree",
            "--locked",
            "-p",
            "softlan-python",
            "--features",
            "extension-module",
            "--target",
            target,
        ]
        command += ["-e", "normal,no-proc-macro", "--prefix", "none", "-f", "{p}"]
        told = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
        for line in told.splitlines():
            name, version = line.split()[:2]
            if not name.startswith("softlan-"):
                found.add((name, version.removeprefix("v")))
    return found


def texts(directory: Path, expression: str) -> list[str]:
    """Read a crate's licence files, those of what it has taken over too; where its SPDX expression leaves the choice, MIT's and notices.

    Raises ValueError: there is none.
    """
    files = sorted(file for file in directory.rglob("*") if file.is_file() and _NOTICE.match(file.name))
    if "MIT" in re.split(r" OR |/", expression):
        files = [
            file for file in files if not re.search(r"apache|zlib|isc|unlicense", file.name, re.IGNORECASE)
        ]
    if not files:
        raise ValueError(f"{directory.name} carries no licence text for {expression}")
    return list(dict.fromkeys(file.read_text(encoding="utf-8").strip("\r\n") for file in files))


def gathered(crates: Iterable[tuple[str, str, str, Sequence[str]]]) -> str:
    """Put it together: each text once, under the crates (name, version, licence) that have it. Pure."""
    bearers: dict[str, list[str]] = {}
    for name, version, expression, found in sorted(crates):
        for text in found:
            bearers.setdefault(text, []).append(f"{name} {version} ({expression})")
    parts = [
        "\n".join(names) + "\n\n" + text + "\n"
        for text, names in sorted(bearers.items(), key=lambda each: each[1])
    ]
    return f"\n{'=' * 100}\n\n".join([_HEAD, *parts])


def present() -> str:
    """Give what the file should hold. Raises ValueError: a crate carries no text."""
    command = [
        "cargo",
        "metadata",
        "--format-version",
        "1",
        "--locked",
        "--manifest-path",
        str(ROOT / "Cargo.toml"),
    ]
    described = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["packages"]
    wanted = linked()
    return gathered(
        (
            each["name"],
            each["version"],
            each["license"],
            texts(Path(each["manifest_path"]).parent, each["license"]),
        )
        for each in described
        if (each["name"], each["version"]) in wanted
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file, or compare it."""
    parser = argparse.ArgumentParser(
        description="Gathers the licence texts of what is linked into the wheels."
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; end with 1 where the file is out of date"
    )
    told = parser.parse_args(arguments)
    text = present()
    if not told.check:
        FILE.write_text(text, encoding="utf-8")
    elif not FILE.exists() or FILE.read_text(encoding="utf-8") != text:
        print(f"error: {FILE.name} is not what the locked crates say", file=sys.stderr)
        print("hint: python packaging/third_party.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
