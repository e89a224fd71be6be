"""What a missing thing means to a test run."""

import re
from pathlib import Path

import pytest

from softlan.lab.testing import need, need_tun, skip

TESTS = Path(__file__).parents[1]
MISSING = [lambda: skip("gone"), lambda: need("no-such-program"), lambda: need_tun(attach=True)]


@pytest.mark.parametrize("missing", MISSING)
def test_what_is_missing_is_a_reason_to_skip(monkeypatch, missing):
    monkeypatch.delenv("SOFTLAN_REQUIRE_ALL", raising=False)
    with pytest.raises(pytest.skip.Exception):
        missing()


@pytest.mark.parametrize("missing", MISSING)
def test_and_a_failure_where_nothing_may_be_missing(monkeypatch, missing):
    monkeypatch.setenv("SOFTLAN_REQUIRE_ALL", "1")
    with pytest.raises(pytest.fail.Exception):
        missing()


def test_what_is_there_is_gone_on_with():
    need("sh")
    need_tun(attach=False)


def test_no_test_skips_in_another_way():
    """But for what this system is not made for at all."""
    for path in TESTS.rglob("*.py"):
        if path != Path(__file__):
            found = re.findall(
                r"(?:pytest|mark)\.(?:skip|importorskip)\w*(?!.*sys\.platform).*", path.read_text()
            )
            assert not found, f"{path.relative_to(TESTS)}: softlan.lab.testing has skip: {found}"
