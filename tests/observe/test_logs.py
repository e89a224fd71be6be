"""Log lines: text and JSON."""

import io
import json
import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softlan._core import Mac
from softlan.control.codes import Code
from softlan.observe.events import Event
from softlan.observe.logs import JsonFormatter, LogFormat, TextFormatter, configure_logging, log_event


@pytest.fixture
def lines(monkeypatch):
    """Configure logging onto a list of lines, and put everything back."""
    root, own = logging.getLogger(), logging.getLogger("softlan")
    before = (root.handlers[:], root.level, own.level)
    stream = io.StringIO()

    def configure(log_format=LogFormat.TEXT, level=logging.INFO, **more):
        configure_logging(log_format, level, stream=stream, **more)
        return logging.getLogger("softlan.test")

    configure.read = lambda: stream.getvalue().splitlines()
    configure.stream = stream
    yield configure
    root.handlers[:], root.level = before[0], before[1]
    root.setLevel(before[1])
    own.setLevel(before[2])


class Rude:
    def __str__(self):
        raise RuntimeError("no")

    __repr__ = __str__


def test_event_names_are_unique_and_regular():
    names = [event.value for event in Event]
    assert len(set(names)) == len(Event)
    assert all(re.fullmatch(r"[a-z]+(\.[a-z]+)?", name) for name in names)
    assert {
        "relay.listening",
        "session.joined",
        "session.lost",
        "session.retry",
        "peer.joined",
        "peer.left",
        "adapter.ready",
    } <= set(names)


def test_text(lines):
    logger = lines()
    log_event(
        logger,
        Event.SESSION_JOINED,
        "joined room ROOM1",
        room="ROOM1",
        peer_id=2,
        mac=Mac("02:00:00:00:00:01"),
        code=Code.GOODBYE,
        note='two "words"',
        nothing=None,
        ratio=0.125,
    )
    (line,) = lines.read()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO  session\.joined joined room ROOM1 room=ROOM1 peer_id=2"
        r' mac=02:00:00:00:00:01 code=goodbye note="two \\"words\\"" nothing=- ratio=0.125',
        line,
    )


def test_plain_words(lines):
    logger = lines(LogFormat.PLAIN)
    log_event(logger, Event.SESSION_JOINED, "in room ROOM1 alone", room="ROOM1", hint="ask a friend")
    log_event(logger, Event.SESSION_LOST, "connection lost")
    first, hint, second = lines.read()
    assert re.fullmatch(r"\d\d:\d\d:\d\d  in room ROOM1 alone", first)
    assert hint == "          -> ask a friend"
    assert re.fullmatch(r"\d\d:\d\d:\d\d  warning: connection lost", second)


def test_auto_is_plain_at_a_terminal_alone(lines):
    logger = lines(LogFormat.AUTO)
    log_event(logger, Event.SESSION_LOST, "gone")
    assert "session.lost" in lines.read()[0]
    terminal = Terminal()
    configure_logging(LogFormat.AUTO, logging.INFO, stream=terminal)
    log_event(logger, Event.SESSION_LOST, "gone")
    assert "session.lost" not in terminal.getvalue()


def test_json(lines):
    logger = lines(LogFormat.JSON)
    log_event(
        logger,
        Event.SESSION_LOST,
        "gone",
        room="ROOM1",
        peer_id=2,
        mac=Mac("02:00:00:00:00:01"),
        code=Code.GOODBYE,
        counters={"a": 1},
        level="a field with a taken name",
    )
    (line,) = lines.read()
    entry = json.loads(line)
    assert list(entry)[:4] == ["ts", "level", "event", "message"]
    ts = entry.pop("ts")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", ts)
    assert entry == {
        "level": "warning",
        "event": "session.lost",
        "message": "gone",
        "room": "ROOM1",
        "peer_id": 2,
        "mac": "02:00:00:00:00:01",
        "code": "goodbye",
        "counters": {"a": 1},
        "level_": "a field with a taken name",
    }


def test_lines_of_others_name_their_logger(lines):
    lines(LogFormat.JSON)
    logging.getLogger("somebody.else").warning("100%% %s", "sure")
    assert json.loads(lines.read()[0]) | {"ts": ""} == {
        "ts": "",
        "level": "warning",
        "event": "log",
        "message": "100% sure",
        "logger": "somebody.else",
    }


def test_the_level_is_for_softlan_alone(lines):
    logger = lines(level=logging.DEBUG)
    logging.getLogger("somebody.else").info("chatter")
    log_event(logger, Event.STATUS_SOCKET, "here")
    logging.getLogger("softlan_link.pump").debug("from the core")
    assert len(lines.read()) == 2


def test_a_message_is_never_a_format(lines):
    log_event(lines(), Event.FAULT, "100% %s %d")
    assert "100% %s %d" in lines.read()[0]


@pytest.mark.parametrize("log_format", LogFormat)
def test_peers_cannot_forge_lines_or_move_the_cursor(lines, log_format):
    logger = lines(log_format)
    log_event(logger, Event.PEER_JOINED, "a\nb\x1b[2J\u2028", software="x\ny\x1b[2J")
    (line,) = lines.read()
    assert line.isprintable()


def test_an_exception_is_shown(lines):
    logger = lines()
    try:
        raise ValueError("the cause")
    except ValueError as error:
        log_event(logger, Event.FAULT, "it broke", exc_info=error)
    assert lines.read()[-1] == "ValueError: the cause"
    logger = lines(LogFormat.JSON)
    log_event(logger, Event.FAULT, "it broke", exc_info=ValueError("the cause"))
    assert "ValueError: the cause" in json.loads(lines.read()[-1])["exception"]


@pytest.mark.parametrize("log_format", LogFormat)
def test_what_cannot_be_printed_does_no_harm(lines, log_format):
    logger = lines(log_format)
    log_event(
        logger, Event.FAULT, "rude", value=Rude(), inside=[Rude()], mapping={("a",): 1}, loop=float("nan")
    )
    logger.warning("too few %s %s", 1)  # noqa: PLE1206 - the mistake is the point
    logger.warning(Rude())
    assert len(lines.read()) == 3


def test_a_stream_that_is_gone_does_no_harm(lines):
    logger = lines()
    lines.stream.close()
    log_event(logger, Event.FAULT, "nobody hears this")


@given(st.text(), st.dictionaries(st.text(min_size=1), st.text() | st.floats() | st.none() | st.binary()))
def test_any_fields_give_one_line(message, fields):
    record = logging.LogRecord("softlan", logging.INFO, __file__, 1, "%s", (message,), None)
    record.event, record.fields = Event.FAULT, fields
    assert TextFormatter().format(record).isprintable()
    line = JsonFormatter().format(record)
    assert line.isprintable()
    json.loads(line, parse_constant=pytest.fail)


def test_an_exception_cannot_move_the_cursor(lines):
    log_event(lines(), Event.FAULT, "it broke", exc_info=ValueError("\x1b[2J"))
    assert all(line.isprintable() for line in lines.read())


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("no_color", "coloured"), [(None, True), ("", True), ("1", False)])
def test_colour_is_for_terminals_that_want_it(lines, monkeypatch, no_color, coloured):
    logger = lines()
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)
    terminal = Terminal()
    configure_logging(LogFormat.TEXT, logging.INFO, stream=terminal)
    log_event(logger, Event.SESSION_LOST, "gone")
    assert ("\x1b[" in terminal.getvalue()) == coloured
