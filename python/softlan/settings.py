"""Configuration files: one TOML a part, whose keys are the names of the part's long options.

The options' own types judge the values, so a file and a command line mean the same. What is wrong is reported with file, line and
key, all of it at once. Relative paths in a file are relative to the file.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from softlan.files import user_directory
from softlan.texts import harmless, unusable

__all__ = [
    "Problem",
    "Settings",
    "default_files",
    "first_default_file",
    "key_lines",
    "read_settings",
    "settable_options",
]

_MAX_FILE = 1 << 20
_BARE_KEY = re.compile(r"""\s*(?:([A-Za-z0-9_-]+)|"([^"\\]*)"|'([^']*)')\s*[=.]""")
_TABLE = re.compile(r"\s*\[{1,2}\s*[\"']?([^\]\"'.]+)")
_TOML_PLACE = re.compile(r"(.*?) \(at (?:line (\d+), column \d+|end of document)\)", re.DOTALL)

NOT_IN_FILES = frozenset({"config", "help", "version", "self_test"})
"""Options that make no sense in a file, by parameter name."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a file; `line` counts from 1, 0 is the file as a whole."""

    file: Path
    line: int
    key: str | None
    message: str

    def __str__(self) -> str:
        """Print it the way compilers do, short and printable whatever the file holds."""
        place = f"{self.file}:{self.line}" if self.line else str(self.file)
        told = (self.message,) if self.key is None else (self.key, self.message)
        return ": ".join((place, *map(harmless, told)))


@dataclass(frozen=True, slots=True)
class Settings:
    """What a file says, by parameter name, and what is wrong with it; values are for `Context.default_map`."""

    file: Path
    values: Mapping[str, Any]
    problems: tuple[Problem, ...]


def default_files(part: str) -> list[Path]:
    """List where a part's file is looked for, in order; the first that exists is the one that counts."""
    own = user_directory()
    found = [] if own is None else [own / f"{part}.toml"]
    return found if sys.platform == "win32" else [*found, Path("/etc/softlan", f"{part}.toml")]


def first_default_file(part: str) -> Path | None:
    """Give the file a part reads when none is named; None when there is none."""
    return next((file for file in default_files(part) if os.path.lexists(file)), None)


def settable_options(command: click.Command) -> dict[str, click.Option]:
    """Give a command's options by the key they have in a file."""
    return {
        long.lstrip("-"): option
        for option in command.params
        if isinstance(option, click.Option) and option.name not in NOT_IN_FILES
        for long in option.opts[:1]
    }


def read_settings(file: Path, command: click.Command) -> Settings:
    """Read a file for a command. Wrong content is in the result's `problems`; nothing is raised."""
    try:
        with file.open("rb") as opened:
            data = opened.read(_MAX_FILE + 1)
    except OSError as error:
        return _bad(file, 0, f"cannot read it: {error.strerror or error}")
    if len(data) > _MAX_FILE:
        return _bad(file, 0, "it is larger than 1 MiB, no configuration is")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return _bad(file, data.count(b"\n", 0, error.start) + 1, "it is not UTF-8 text")
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        placed = _TOML_PLACE.fullmatch(str(error))
        line = int(placed[2] or text.rstrip("\n").count("\n") + 1) if placed else 0
        return _bad(file, line, f"not TOML: {placed[1] if placed else error}")
    except ValueError as error:
        return _bad(file, 0, f"not TOML: {unusable(error)}")
    except RecursionError:
        return _bad(file, 0, "not TOML: nested too deeply")
    return _judge(file, content, key_lines(text), command)


def _bad(file: Path, line: int, message: str) -> Settings:
    return Settings(file, {}, (Problem(file, line, None, message),))


def _judge(
    file: Path, content: Mapping[str, Any], lines: Mapping[str, int], command: click.Command
) -> Settings:
    options = settable_options(command)
    context = click.Context(command, info_name=command.name)
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for key, value in content.items():
        option = options.get(key)
        try:
            if option is None:
                raise _WrongError(_unknown(key, value, list(options)))
            assert option.name is not None
            values[option.name] = _value(option, value, file.parent, context)
        except _WrongError as wrong:
            problems.append(Problem(file, lines.get(key, 0), key, str(wrong)))
        except ValueError as error:
            problems.append(Problem(file, lines.get(key, 0), key, unusable(error)))
    return Settings(file, values, tuple(sorted(problems, key=lambda problem: problem.line)))


class _WrongError(Exception):
    """Why a key or its value cannot be used, in words."""


def _unknown(key: str, value: object, known: list[str]) -> str:
    dashed = key.replace("_", "-")
    if dashed != key and dashed in known:
        return f"write it with dashes: {dashed}"
    if isinstance(value, dict):
        return "there are no tables in this file: put the keys at its top, without [brackets]"
    close = difflib.get_close_matches(dashed.lower().lstrip("-"), known, n=1)
    return "no such option" + (f"; did you mean {close[0]}?" if close else "")


def _value(option: click.Option, value: object, directory: Path, context: click.Context) -> object:
    """Check one value; gives what to put into the default map."""
    if not option.multiple:
        return _single(option, value, directory, context)
    if not isinstance(value, list):
        raise _WrongError(f'expected a list, like ["{value}"], got {_kind(value)}')
    return [_single(option, item, directory, context) for item in value]


def _single(option: click.Option, value: object, directory: Path, context: click.Context) -> object:
    wanted, kinds = _wanted(option)
    # In Python a bool is an int too; in TOML it is not.
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise _WrongError(f"expected {wanted}, got {_kind(value)}")
    if isinstance(option.type, click.Path) and isinstance(value, str):
        value = str(directory / value)
    try:
        option.type.convert(value, option, context)
    except click.BadParameter as error:
        raise _WrongError(error.message) from error
    return value


def _wanted(option: click.Option) -> tuple[str, tuple[type, ...]]:
    if option.is_flag:
        return "true or false", (bool,)
    if isinstance(option.type, click.types.IntParamType):
        return "a whole number", (int,)
    if option.type.name == "seconds":
        return "a time, like 2.5 or '500ms'", (str, int, float)
    return "text in quotes", (str,)


def _kind(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value}"
        case str():
            return "text"
        case list():
            return "a list"
        case dict():
            return "a table"
    return "a date or time"


def key_lines(text: str) -> dict[str, int]:
    """Find the lines, counted from 1, on which the top-level keys of a TOML text begin (tomllib does not tell).

    The text must be valid TOML. A table's name counts as a key; keys within tables do not.
    """
    found: dict[str, int] = {}
    in_table = False
    for number, line in _statements(text):
        if table := _TABLE.match(line):
            in_table = True
            found.setdefault(table[1].strip(), number)
        elif not in_table and (key := _BARE_KEY.match(line)):
            found.setdefault(next(name for name in key.groups() if name is not None), number)
    return found


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines on which something begins: not those within a long string or a list."""
    quote, depth = "", 0
    for number, line in enumerate(text.split("\n"), 1):
        if not quote and not depth:
            yield number, line
        quote, depth = _after(line, quote, depth)


_TOKEN = re.compile(r"\"\"\"|'''|\\.|[\"'#\[\]{}]")


def _after(line: str, quote: str, depth: int) -> tuple[str, int]:
    """Say what is open after a line: a long string's quotes, and how many brackets."""
    position = 0
    while token := _TOKEN.search(line, position):
        position = token.end()
        match token[0]:
            case '"""' | "'''" as long if quote in ("", long):
                if quote:
                    # Up to two more quotes belong to the string (TOML, multi-line strings).
                    while position < len(line) and line[position] == long[0]:
                        position += 1
                quote = "" if quote else long
            case '"' | "'" as short if not quote:
                position = _end_of_string(line, position, short)
            case "\\" | "#" | "[" | "]" | "{" | "}" as mark if not quote:
                if mark == "#":
                    break
                depth += (mark in "[{") - (mark in "]}")
            case escape if escape.startswith("\\") and quote == "'''":
                # No escapes in there: what follows the backslash is looked at by itself.
                position = token.start() + 1
    return quote, depth


def _end_of_string(line: str, position: int, quote: str) -> int:
    """Skip a string on one line; gives where it ends."""
    pattern = r'(?:\\.|[^"\\])*"' if quote == '"' else r"[^']*'"
    closed = re.compile(pattern).match(line, position)
    return closed.end() if closed else len(line)
