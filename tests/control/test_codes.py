"""The codes, and that docs/protocol.md lists just these."""

import re
from pathlib import Path

import pytest

from softlan.control.codes import Code, Retry

PROTOCOL = Path(__file__).parents[2] / "docs" / "protocol.md"


def documented():
    section = PROTOCOL.read_text().split("### Codes", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d+) \| (\S+) \| (.+) \|$", section, re.MULTILINE)
    return [(name, int(number), retry, meaning) for name, number, retry, meaning in rows]


def test_the_table_of_the_protocol_is_this_list():
    assert documented() == [(code.value, code.number, code.retry.value, code.meaning) for code in Code]


def test_numbers_are_unique():
    assert len({code.number for code in Code}) == len(Code)


@pytest.mark.parametrize("code", Code)
def test_names_and_numbers_read_back(code):
    assert Code(code.value) is code
    assert Code.from_number(code.number) is code


def test_a_newer_peers_code_reads_as_an_internal_error():
    assert Code("out-of-pizza") is Code.INTERNAL_ERROR
    assert Code.from_number(4711) is Code.INTERNAL_ERROR
    assert Code.INTERNAL_ERROR.retry is Retry.LATER


def test_something_else_than_a_name_is_no_code():
    with pytest.raises(ValueError, match="3"):
        Code(3)
