"""What others wrote does nothing to a terminal, and stays on its line."""

from __future__ import annotations

from collections.abc import Callable

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softlan._core import Mac
from softlan.config import option_type, parse_invite_time, parse_listen, parse_virtual_mac
from softlan.control.codes import Code
from softlan.control.messages import Disconnect, GoingDown, Hello, Notice, Reject, Role, decode_answer, encode
from softlan.errors import ConfigError
from softlan.parts import reported
from softlan.texts import MAX_SAID, harmless, one_line

NASTY = "\x1b[2J\x1b]0;owned\x07\nnew line\u202etxet"


@given(st.text())
def test_any_text_is_one_printable_line(text: str) -> None:
    assert one_line(text).isprintable()
    assert harmless(text).isprintable()
    assert len(harmless(text)) <= MAX_SAID
    assert len(harmless(text + "\x1b" * MAX_SAID)) == MAX_SAID
    assert one_line(one_line(text)) == one_line(text)


def test_what_is_printable_stays() -> None:
    assert one_line('the relay is "full": Grüße, \\o/ 日本') == 'the relay is "full": Grüße, \\o/ 日本'
    assert harmless("x" * MAX_SAID) == "x" * MAX_SAID
    assert harmless("x" * 5000) == "x" * (MAX_SAID - 3) + "..."


@pytest.mark.parametrize(
    "words",
    [
        Reject(code=Code.ROOM_FULL, reason=NASTY).reason,
        Reject(code=Code.ROOM_FULL, reason="", field=NASTY).field,
        Disconnect(code=Code.KICKED, reason=NASTY).reason,
        Disconnect(code=Code.KICKED, reason="", relay=NASTY).relay,
        GoingDown(reason=NASTY, in_s=1).reason,
        Notice(topic="loop", reason=NASTY).reason,
        Hello(
            protocol=1,
            role=Role.CLIENT,
            room="R",
            datagram_budget=1200,
            mac=Mac("02:00:5e:10:00:01"),
            software=NASTY,
        ).software,
    ],
)
def test_no_message_carries_it_raw(words: str | None) -> None:
    assert words is not None
    assert words.isprintable()
    assert "owned" in words


def test_what_comes_over_the_line_is_cut() -> None:
    body = b'{"type": "reject", "code": "room-full", "reason": "' + b"x" * 5000 + b'\\u001b"}'
    answer = decode_answer(body)
    assert isinstance(answer, Reject)
    assert len(answer.reason) == MAX_SAID
    assert decode_answer(encode(answer)) == answer


def refuse(_text: object) -> None:
    """Show what was pasted, as no parser should."""
    raise ConfigError(NASTY, hint=NASTY)


def test_a_command_s_error_and_hint_do_nothing_to_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        reported(refuse)("anything")
    told = capsys.readouterr().err.splitlines()
    assert all(line.isprintable() for line in told)
    assert told[0].startswith("error: ")
    assert told[-1].startswith("hint: ")
    assert sum("owned" in line for line in told) == 2


def test_an_option_s_error_is_one_line() -> None:
    with pytest.raises(click.BadParameter) as refused:
        option_type("any", refuse)("anything")
    assert refused.value.message.isprintable()
    assert refused.value.message.count("owned") == 2


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_listen, "\x1b[2J/tcp"),
        (parse_virtual_mac, "\nff:ff:ff:ff:ff:ff"),
        (parse_invite_time, "9999\nd"),
    ],
)
def test_what_was_typed_is_repeated_as_printable_text(parse: Callable[[str], object], text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(text)
    assert str(refused.value).isprintable()
    assert (refused.value.hint or "").isprintable()
