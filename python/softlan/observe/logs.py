"""Log lines as text for people, in plain words for players, or as JSON for machines, on the standard `logging`.

Text:  2026-11-23T20:45:22.123Z INFO  session.joined joined room ROOM1 room=ROOM1 peer_id=2 tap_mtu=1416 JSON:
{"ts":"2026-11-23T20:45:22.123Z","level":"info","event":"session.joined","message":"joined room ROOM1",...}

Plain: 21:45:22  in room ROOM1 with the gateway

One line a record whatever is in it, and in plain words one more for a hint: control characters, which peers may have chosen, never
reach a terminal. Formatting never raises; a value that cannot be printed is replaced by a word about that.
"""

from __future__ import annotations

import datetime
import json
import logging
import math
import os
import sys
from collections.abc import Mapping
from enum import Enum, StrEnum
from typing import Any, TextIO

from softlan.observe.events import Event
from softlan.texts import one_line

__all__ = [
    "JsonFormatter",
    "LogFormat",
    "PlainFormatter",
    "TextFormatter",
    "configure_logging",
    "log_event",
    "tell_plain_socket",
]

_RESERVED = frozenset({"ts", "level", "event", "message", "logger", "exception"})
_OWN_LOGGERS = ("softlan", "softlan_link", "softlan_port", "softlan_switch", "softlan_wire", "softlan_python")
_COLOURS = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[31m"}
_RESET = "\x1b[0m"


class LogFormat(StrEnum):
    """What `--log-format` takes."""

    AUTO = "auto"
    """Plain at a terminal, text elsewhere."""
    PLAIN = "plain"
    TEXT = "text"
    JSON = "json"


def log_event(
    logger: logging.Logger,
    event: Event,
    message: str,
    /,
    *,
    exc_info: object = None,
    **fields: object,
) -> None:
    """Log one event with its fields, at the event's own level; `exc_info` may be an exception to show."""
    if logger.isEnabledFor(event.level):
        shown = exc_info if isinstance(exc_info, BaseException) else None
        extra = {"event": event, "fields": fields}
        logger.log(event.level, "%s", message, extra=extra, exc_info=shown, stacklevel=2)


def tell_plain_socket(logger: logging.Logger, reason: str | None) -> None:
    """Log that an endpoint goes without ECN marks and offloads, if there is a reason for it."""
    if reason is not None:
        words = f"the UDP socket goes without ECN marks and offloads, and is slower: {reason}"
        log_event(logger, Event.SOCKET_PLAIN, words, reason=reason)


def configure_logging(
    log_format: LogFormat, level: int, *, stream: TextIO | None = None, colour: bool | None = None
) -> None:
    """Send all logging of this process to one stream, stderr by default.

    `level` is for softlan itself; other libraries speak from WARNING on. Colour is used on terminals, unless
    NO_COLOR is set (no-color.org).
    """
    stream = sys.stderr if stream is None else stream
    if colour is None:
        colour = stream.isatty() and not os.environ.get("NO_COLOR")
    handler = _QuietHandler(stream)
    if log_format is LogFormat.AUTO:
        log_format = LogFormat.PLAIN if stream.isatty() else LogFormat.TEXT
    handler.setFormatter(_formatter(log_format, colour=colour))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(max(level, logging.WARNING))
    for name in _OWN_LOGGERS:
        logging.getLogger(name).setLevel(level)


def _formatter(log_format: LogFormat, *, colour: bool) -> logging.Formatter:
    match log_format:
        case LogFormat.JSON:
            return JsonFormatter()
        case LogFormat.PLAIN:
            return PlainFormatter(colour=colour)
        case _:
            return TextFormatter(colour=colour)


class PlainFormatter(logging.Formatter):
    """What happened, for a player at a terminal: the time on the wall, a sentence, and what to do about it on a line of its own.

    Names of events and fields are for those who search logs; a warning or an error is called one.
    """

    def __init__(self, *, colour: bool = False) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """Print a record; a hint and a traceback follow on lines of their own."""
        told = one_line(_message(record))
        if record.levelno >= logging.WARNING:
            name = "error" if record.levelno >= logging.ERROR else "warning"
            told = f"{name}: {told}"
            if self._colour:
                told = f"{_COLOURS.get(record.levelno, '')}{told}{_RESET}"
        lines = [f"{datetime.datetime.fromtimestamp(record.created).astimezone():%H:%M:%S}  {told}"]
        if (hint := _fields(record).get("hint")) is not None:
            lines.append(f"{'':10}-> {one_line(_safe_str(hint))}")
        lines += map(one_line, (_exception(record) or "").splitlines())
        return "\n".join(lines)


class TextFormatter(logging.Formatter):
    """One line for a person: time, level, event, message, then the fields as `name=value`."""

    def __init__(self, *, colour: bool = False) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """Print a record; a traceback follows on lines of its own."""
        level = f"{record.levelname:<5}"
        if self._colour and record.levelno in _COLOURS:
            level = f"{_COLOURS[record.levelno]}{level}{_RESET}"
        parts = [_timestamp(record), level, _event_name(record) or record.name, one_line(_message(record))]
        parts += (f"{one_line(name)}={_text_value(value)}" for name, value in _fields(record).items())
        line = " ".join(parts)
        trace = (_exception(record) or "").splitlines()
        return "\n".join([line, *map(one_line, trace)])


class JsonFormatter(logging.Formatter):
    """One JSON object: ts, level, event, message, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Print a record; a traceback is its field `exception`."""
        event = _event_name(record)
        line: dict[str, object] = {
            "ts": _timestamp(record),
            "level": record.levelname.lower(),
            "event": event or "log",
            "message": _message(record),
        }
        if event is None:
            line["logger"] = record.name
        for name, value in _fields(record).items():
            line[f"{name}_" if name in _RESERVED else name] = _finite(value)
        exception = _exception(record)
        if exception is not None:
            line["exception"] = exception
        try:
            return json.dumps(line, separators=(",", ":"), default=_plain, allow_nan=False)
        except Exception:  # a log line must come out whatever a field holds
            return json.dumps({name: _safe_str(value) for name, value in line.items()})


class _QuietHandler(logging.StreamHandler[TextIO]):
    """Loses a line that cannot be written, rather than print a traceback about it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Let go of the record."""


def _timestamp(record: logging.LogRecord) -> str:
    moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _event_name(record: logging.LogRecord) -> str | None:
    event = getattr(record, "event", None)
    return str(event) if isinstance(event, str) else None


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    fields = getattr(record, "fields", None)
    return fields if isinstance(fields, Mapping) else {}


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # a mistake in a log call must not become a second one here
        return _safe_str(record.msg)


def _exception(record: logging.LogRecord) -> str | None:
    if not record.exc_info or record.exc_info[0] is None:
        return None
    try:
        return logging.Formatter().formatException(record.exc_info)
    except Exception:  # an exception whose own str() fails
        return record.exc_info[0].__name__


def _plain(value: object) -> Any:  # json's hook is typed like this
    """Turn what JSON does not know into what it does."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, set | frozenset):
        return sorted(map(_safe_str, value))
    return _safe_str(value)


def _finite(value: object) -> object:
    """Keep out of JSON the numbers it has no words for (RFC 8259, section 6)."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _text_value(value: object) -> str:
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, float):
        return f"{value:.6g}"
    if value is None:
        return "-"
    text = _safe_str(value)
    if text and text.isascii() and text.isprintable() and not set(text) & set(" =\"'"):
        return text
    return json.dumps(text, ensure_ascii=False) if text.isprintable() else json.dumps(text)


def _safe_str(value: object) -> str:
    try:
        return str(value)
    except Exception:  # somebody else's __str__
        return f"<unprintable {type(value).__name__}>"
