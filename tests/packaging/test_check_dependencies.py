"""The policy on dependencies: what it lets through and what it stops."""

import importlib.util
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_SPEC = importlib.util.spec_from_file_location(
    "check_dependencies", ROOT / "packaging" / "check_dependencies.py"
)
check = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(check)

DENY = tomllib.loads((ROOT / "deny.toml").read_text())
POLICY = tomllib.loads((ROOT / "packaging" / "python-dependencies.toml").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize(
    ("expression", "fits"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("MIT OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("MIT/Apache-2.0", True),
        ("(MIT OR GPL-3.0-only) AND ISC", True),
        ("MIT OR GPL-3.0-only AND GPL-2.0-only", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0 OR MIT", True),
        ("Apache-2.0 WITH Some-exception", False),
    ],
)
def test_a_licence_fits_when_the_allowed_ones_satisfy_it(expression, fits):
    assert check.licence_fits(expression, DENY["licenses"]["allow"]) is fits


@pytest.mark.parametrize("expression", ["", "MIT OR", "(MIT", "MIT)", "AND MIT", "MIT ISC"])
def test_what_is_no_expression_is_not_taken_for_one(expression):
    with pytest.raises(ValueError, match="SPDX"):
        check.licence_fits(expression, ["MIT", "ISC"])


def crate(name, version, source=check.REGISTRY):
    return {"name": name, "version": version, "source": source}


def faults(*packages, licence="MIT"):
    licences = {(package["name"], package["version"]): licence for package in packages}
    return list(check.rust_faults({"package": list(packages)}, licences, DENY))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("quinn-proto", "0.11.17", "0.11.18"),
        ("rustls", "0.23.44", "0.23.45"),
        ("rustls-webpki", "0.103.12", "0.103.13"),
        ("bytes", "1.11.0", "1.11.1"),
        ("pyo3", "0.28.9", "0.29.0"),
        ("ring", "0.17.11", "0.17.12"),
    ],
)
def test_the_floors_hold(name, old, new):
    (fault,) = faults(crate(name, old))
    assert name in fault
    assert new in fault
    assert faults(crate(name, new)) == []


def test_other_sources_other_licences_and_other_tls_are_stopped():
    assert "not from crates.io" in faults(crate("x", "1.0.0", "git+https://example.org/x#abc"))[0]
    assert "GPL-3.0-only" in faults(crate("x", "1.0.0"), licence="GPL-3.0-only")[0]
    assert "unknown" in faults(crate("x", "1.0.0"), licence=None)[0]
    assert "rustls with ring" in faults(crate("openssl-sys", "0.9.0"))[0]
    assert faults({"name": "softlan-wire", "version": "0.1.0"}) == []


def test_python_requirements_have_floors_and_come_from_the_index():
    spoilt = PROJECT | {
        "dependencies": ["click", "cryptography>=43", "msgspec>=0.19", "other @ git+https://example.org/x"]
    }
    found = "\n".join(check.python_faults(spoilt, POLICY))
    assert "click has no least version" in found
    assert "admits cryptography below 44.0.1" in found
    assert "other comes from" in found


def test_a_plain_install_is_counted():
    many = PROJECT | {"dependencies": [*PROJECT["dependencies"], "pytest>=8"]}
    assert any("packages, not at most 6" in fault for fault in check.python_faults(many, POLICY))


def test_softlan_keeps_to_its_policy():
    assert check.main([]) == 0


@pytest.mark.parametrize(
    ("version", "requirement", "fits"),
    [
        ("0.11.15", ">= 0.11.15", True),
        ("0.11.14", ">= 0.11.15", False),
        ("1.2.0", ">= 1.1, < 1.2", False),
        ("1.1.9", ">= 1.1, < 1.2", True),
        ("0.9.3", "^0.9.2", True),
        ("0.10.0", "^0.9.2", False),
        ("2.0.0", "^1.4", False),
        ("1.9.0", "1.4", True),
        ("0.0.4", "^0.0.3", False),
        ("1.4.9", "~1.4.2", True),
        ("1.5.0", "~1.4.2", False),
        ("1.0", "=1.0.0", True),
        ("1.2.5", "=1.2", True),
        ("1.2.5", "<= 1.2", True),
        ("1.3.0", "<= 1.2", False),
        ("1.2.5", "> 1.2", False),
        ("1.3.0", "> 1.2", True),
        ("1.0.0-rc.1", ">= 1.0.0", False),
        ("1.0.0", "> 1.0.0-rc.1", True),
        ("0.17.14+build", "<= 0.17.14", True),
    ],
)
def test_a_requirement_is_read_as_cargo_reads_it(version, requirement, fits):
    assert check.meets(version, requirement) is fits


@pytest.mark.parametrize("requirement", ["", "newer", ">= 1.2.3.4", "1.x", ">> 1"])
def test_what_is_no_requirement_is_not_passed_over(requirement):
    with pytest.raises(ValueError, match="requirement"):
        check.meets("1.0.0", requirement)


def write_advisory(directory, name, **facts):
    path = directory / "crates" / "sieve" / f"{name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        f'{key} = "{value}"'
        for key, value in {"id": name, "package": "sieve", "date": "2026-01-02", **facts}.items()
    ]
    versions = '[versions]\npatched = [">= 1.4.2"]\nunaffected = ["< 1.1.0"]'
    path.write_text("```toml\n[advisory]\n" + "\n".join(lines) + f"\n\n{versions}\n```\n\n# What is wrong\n")


def test_a_crate_that_an_advisory_is_about_is_named(tmp_path):
    write_advisory(tmp_path, "RUSTSEC-2026-0001")
    write_advisory(tmp_path, "RUSTSEC-2026-0002", informational="unmaintained")
    write_advisory(tmp_path, "RUSTSEC-2026-0003", withdrawn="2026-02-01")
    advisories = check.read_advisories(tmp_path)
    found = list(check.advised({"package": [crate("sieve", "1.4.1")]}, advisories, []))
    assert [line.partition(" is ")[2].partition(",")[0] for line in found] == [
        "vulnerable: RUSTSEC-2026-0001",
        "unmaintained: RUSTSEC-2026-0002",
    ]
    assert (
        len(list(check.advised({"package": [crate("sieve", "1.4.1")]}, advisories, ["RUSTSEC-2026-0002"])))
        == 1
    )
    for safe in ("1.4.2", "1.0.9"):
        assert list(check.advised({"package": [crate("sieve", safe)]}, advisories, [])) == []
    own = {"name": "sieve", "version": "1.4.1"}
    assert list(check.advised({"package": [own, crate("other", "1.4.1")]}, advisories, [])) == []


def test_what_is_no_database_is_not_taken_for_a_clean_one(tmp_path):
    with pytest.raises(ValueError, match="advisory-db"):
        check.read_advisories(tmp_path)
