"""Holds what softlan depends on to its policy, offline: licences, floors, bans and sources.

    python packaging/check_dependencies.py [--advisories DIRECTORY]

The policy for Rust is `deny.toml`, which `cargo deny check` reads too where it is installed, advisories included. This check needs
nothing but cargo, the crates a build has fetched, and `packaging`, which pytest brings along. The policy for Python is
`python-dependencies.toml`, judged over the packages installed beside the Python that runs this. With a directory that holds the
RustSec project's database (github.com/rustsec/advisory-db), the Cargo.locks are held to that, too; advisories that deny.toml
ignores are left out. Ends with 1 and a line for each fault.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Collection, Iterable, Iterator, Sequence
from email.message import Message
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCKS = [ROOT / "Cargo.lock", ROOT / "rust" / "fuzz" / "Cargo.lock"]
REGISTRY = "registry+https://github.com/rust-lang/crates.io-index"

_WORD = re.compile(r"\(|\)|[^\s()]+")
_CLASSIFIED = {
    "MIT License": "MIT",
    "BSD License": "BSD-3-Clause",
    "Apache Software License": "Apache-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}


def licence_fits(expression: str, allowed: Collection[str]) -> bool:
    """Say whether an SPDX expression can be satisfied with allowed licences alone; crates of old write `/` for OR.

    Raises ValueError: it is no expression.
    """
    words = _WORD.findall(expression.replace("/", " OR "))

    def either() -> bool:
        fits = both()
        while words[:1] == ["OR"]:
            words.pop(0)
            fits |= both()
        return fits

    def both() -> bool:
        fits = single()
        while words[:1] == ["AND"]:
            words.pop(0)
            fits &= single()
        return fits

    def single() -> bool:
        if not words or words[0] in ("OR", "AND", "WITH", ")"):
            raise ValueError(f"{expression!r} is no SPDX expression")
        word = words.pop(0)
        if word == "(":
            fits = either()
            if words[:1] != [")"]:
                raise ValueError(f"{expression!r} is no SPDX expression")
            words.pop(0)
            return fits
        if words[:1] == ["WITH"]:
            word = " ".join([word, words.pop(0), *words[:1]])
            del words[:1]
        return word in allowed

    fits = either()
    if words:
        raise ValueError(f"{expression!r} is no SPDX expression")
    return fits


def version(text: str) -> tuple[int, ...]:
    """Make a version comparable by its numbers; what follows them (`-rc1`, `+build`) is left out."""
    numbers = re.match(r"[0-9]+(?:\.[0-9]+)*", text)
    return tuple(int(number) for number in numbers[0].split(".")) if numbers else ()


def rust_faults(
    lock: dict[str, Any], licences: dict[tuple[str, str], str | None], policy: dict[str, Any]
) -> Iterator[str]:
    """Judge the packages of a Cargo.lock. `licences` are those of its packages by name and version, as far as they are built here."""
    banned = [(ban["crate"].partition(":"), ban["reason"]) for ban in policy["bans"]["deny"]]
    for package in lock["package"]:
        name, its_version, source = package["name"], package["version"], package.get("source")
        if source is None:
            continue  # softlan's own.
        if source != REGISTRY:
            yield f"{name} {its_version} comes from {source}, not from crates.io"
        for (crate, _, bound), reason in banned:
            if crate == name and (not bound or version(its_version) < version(bound.removeprefix("<"))):
                yield f"{name} {its_version} is banned{f' below {bound[1:]}' if bound else ''}: {reason}"
        if (name, its_version) not in licences:
            continue
        licence = licences[name, its_version]
        if licence is None or not licence_fits(licence, policy["licenses"]["allow"]):
            yield f"{name} {its_version} has the licence {licence or 'unknown'}, which deny.toml does not allow"


_PLACES = 3
_COMPARATOR = re.compile(
    r"(>=|<=|>|<|=|\^|~)?\s*([0-9]+(?:\.[0-9]+){0,2})(-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?$"
)


def _ordered(text: str) -> tuple[list[int], bool]:
    """Make a version comparable: its numbers, and whether it is a release, which comes after what is before it (`1.0.0-rc.1`)."""
    numbers = list(version(text))
    return [*numbers, *[0] * (_PLACES - len(numbers))], "-" not in text.partition("+")[0]


def meets(its_version: str, requirement: str) -> bool:
    """Say whether a version is one of those a Cargo requirement means: comparators with commas between, all of which must hold.

    Two pre-releases of one release count as the same. Raises ValueError: it is no requirement.
    """
    it = _ordered(its_version)
    for part in requirement.split(","):
        match = _COMPARATOR.match(part.strip())
        if match is None:
            raise ValueError(f"{requirement!r} is no requirement for versions")
        sign, numbers, pre = match[1] or "^", match[2], match[3] or ""
        bound, given = _ordered(numbers + pre), [int(number) for number in numbers.split(".")]
        # What is not given may be anything: 1.2.5 is `=1.2` and `<=1.2`, and not `>1.2`.
        beginning = it[0][: len(given)]
        if sign in (">=", "<"):
            fits = (it >= bound) is (sign == ">=")
        elif sign in (">", "<="):
            is_above = beginning > given if len(given) < _PLACES else it > bound
            fits = is_above is (sign == ">")
        elif sign == "=":
            fits = beginning == given and (len(given) < _PLACES or it == bound)
        else:
            # Compatible: nothing changes left of, and in, the first number that is not 0; with `~`, in the second.
            kept = next((place for place, number in enumerate(given) if number), len(given) - 1)
            kept = min(1, len(given) - 1) if sign == "~" else kept
            fits = it >= bound and it[0][: kept + 1] == bound[0][: kept + 1]
        if not fits:
            return False
    return True


def read_advisories(directory: Path) -> list[dict[str, Any]]:
    """Read the database: one Markdown file an advisory, which begins with a block of TOML.

    Raises ValueError: there is none, or one cannot be read.
    """
    found = []
    for path in sorted(directory.glob("crates/*/RUSTSEC-*.md")):
        block = re.match(r"```toml\n(.*?)\n```", path.read_text(encoding="utf-8"), re.DOTALL)
        if block is None:
            raise ValueError(f"{path} does not begin with a block of TOML")
        found.append(tomllib.loads(block[1]))
    if not found:
        raise ValueError(
            f"{directory} holds no crates/*/RUSTSEC-*.md: is it a checkout of rustsec/advisory-db?"
        )
    return found


def advised(
    lock: dict[str, Any], advisories: Iterable[dict[str, Any]], ignored: Collection[str]
) -> Iterator[str]:
    """Name each package of a Cargo.lock that an advisory is about."""
    locked: dict[str, list[str]] = {}
    for package in lock["package"]:
        if "source" in package:
            locked.setdefault(package["name"], []).append(package["version"])
    for told in advisories:
        facts, versions = told["advisory"], told.get("versions", {})
        if facts["id"] in ignored or "withdrawn" in facts:
            continue
        safe = [*versions.get("patched", []), *versions.get("unaffected", [])]
        for its_version in locked.get(facts["package"], []):
            if not any(meets(its_version, requirement) for requirement in safe):
                kind = facts.get("informational", "vulnerable")
                yield f"{facts['package']} {its_version} is {kind}: {facts['id']}, {facts['date']}; safe: {', '.join(safe) or 'none'}"


def _licence(package: Message) -> str | None:
    """Give what a Python package says of its licence, as SPDX where that can be told."""
    if expression := package["License-Expression"]:
        return str(expression)
    for classifier in package.get_all("Classifier") or []:
        if (word := _CLASSIFIED.get(classifier.rpartition(" :: ")[2])) and classifier.startswith("License"):
            return word
    return package["License"]


def _needed(requirements: Iterable[str]) -> Iterator[Requirement]:
    """Read requirements; what is for another system, another Python or an extra is left out."""
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement


def closure(requirements: Iterable[str]) -> dict[NormalizedName, metadata.Distribution]:
    """Find the installed packages that these bring along, themselves included."""
    found: dict[NormalizedName, metadata.Distribution] = {}
    waiting = [canonicalize_name(needed.name) for needed in _needed(requirements)]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        waiting += [canonicalize_name(needed.name) for needed in _needed(found[name].requires or [])]
    return found


def python_faults(project: dict[str, Any], policy: dict[str, Any]) -> Iterator[str]:
    """Judge the `project` table of pyproject.toml and what is installed for it."""
    extras = project.get("optional-dependencies", {})
    for_users = [
        needed for name, extra in extras.items() if name not in policy["developers"] for needed in extra
    ]
    floors = policy["floors"]
    for needed in map(Requirement, [*project["dependencies"], *for_users]):
        name = canonicalize_name(needed.name)
        least = [version(bound.version) for bound in needed.specifier if bound.operator in (">=", "==", "~=")]
        if not least:
            yield f"{name} has no least version in pyproject.toml"
        elif name in floors and max(least) < version(floors[name]["least"]):
            yield f"pyproject.toml admits {name} below {floors[name]['least']}: {floors[name]['reason']}"
    everything = [*project["dependencies"], *(needed for extra in extras.values() for needed in extra)]
    for needed in map(Requirement, everything):
        if needed.url is not None:
            yield f"{needed.name} comes from {needed.url}, not from the package index"
    plain = closure(project["dependencies"])
    if len(plain) + 1 > policy["most_packages"]:
        yield f"a plain install has {len(plain) + 1} packages, not at most {policy['most_packages']}: {', '.join(sorted(plain))}"
    for name, package in sorted(closure([*project["dependencies"], *for_users]).items()):
        if name in floors and version(package.version) < version(floors[name]["least"]):
            yield f"{name} {package.version} is installed, below {floors[name]['least']}: {floors[name]['reason']}"
        licence = _licence(cast(Message, package.metadata))
        if licence is None or not licence_fits(licence, policy["licences"]):
            yield f"{name} {package.version} has the licence {licence or 'unknown'}, which python-dependencies.toml does not allow"


def _licences(manifest: Path) -> dict[tuple[str, str], str | None]:
    """Ask cargo for the licences of a workspace's packages, from what it has fetched."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--manifest-path", str(manifest)]
    described = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return {(package["name"], package["version"]): package["license"] for package in described["packages"]}


def _read(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Check everything."""
    parser = argparse.ArgumentParser(description="Holds what softlan depends on to its policy.")
    parser.add_argument("--advisories", type=Path, help="a checkout of the RustSec project's database")
    told = parser.parse_args(arguments)
    deny, python = _read(ROOT / "deny.toml"), _read(ROOT / "packaging" / "python-dependencies.toml")
    faults: list[str] = []
    crates: set[tuple[str, str]] = set()
    advisories = read_advisories(told.advisories) if told.advisories else []
    for lock in LOCKS:
        licences = _licences(lock.with_name("Cargo.toml"))
        crates |= set(licences)
        faults += rust_faults(_read(lock), licences, deny)
        faults += advised(_read(lock), advisories, deny["advisories"]["ignore"])
    faults += python_faults(_read(ROOT / "pyproject.toml")["project"], python)
    for fault in dict.fromkeys(faults):
        print(f"error: {fault}", file=sys.stderr)
    if not faults:
        print(f"{len(crates)} crates and the Python packages keep to the policy")
        if advisories:
            newest = max(each["advisory"]["date"] for each in advisories)
            print(
                f"none of {len(advisories)} advisories, the newest of {newest}, is about one of these crates"
            )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
