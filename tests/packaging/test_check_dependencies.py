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
    assert check.main() == 0
