"""What the LAN and Windows look like to the doctor, without either."""

from __future__ import annotations

import pytest

from softlan.doctor.findings import Finding, Grade
from softlan.doctor.lan import judge_dhcp, judge_interface
from softlan.doctor.windows import judge_firewall, judge_profile


@pytest.mark.parametrize(
    ("found", "grade", "words"),
    [
        (judge_interface("eth0", True, "1000"), Grade.GOOD, "1000 Mbit/s"),
        (judge_interface("eth0", True, "-1"), Grade.GOOD, "with a link,"),
        (judge_interface("eth0", False, ""), Grade.BAD, "no link"),
        (judge_dhcp("eth0", ["192.168.1.1"], 0.1), Grade.GOOD, "192.168.1.1"),
        (judge_dhcp("eth0", [], 2.4), Grade.POOR, "no DHCP server"),
        (judge_dhcp("eth0", ["192.168.1.1", "192.168.1.2"], 0.1), Grade.POOR, "several"),
        (judge_profile(None), Grade.SKIPPED, "on no network now"),
        (judge_profile(0), Grade.POOR, "public"),
        (judge_profile(1), Grade.GOOD, "private"),
        (judge_profile(2), Grade.GOOD, "private"),
        (judge_firewall(None, None), Grade.SKIPPED, "does not say"),
        (judge_firewall(False, None), Grade.GOOD, "off on public"),
        (judge_firewall(True, 1), Grade.GOOD, "private networks"),
        (judge_firewall(True, 0), Grade.POOR, "public network"),
        (judge_firewall(True, None), Grade.POOR, "public network"),
    ],
)
def test_verdicts(found: Finding, grade: Grade, words: str) -> None:
    assert found.grade is grade
    assert words in found.says
    assert found.hint or grade in (Grade.GOOD, Grade.SKIPPED)
