"""What the targets make their inputs of, and what they ask of a refusal.

Structured inputs are built by `Picks` out of one string of bytes: hypothesis draws that a few times faster than the many small choices it
stands for, and makes it smaller just as well. A byte of 0, and whatever comes after the end, picks the first and plainest of what there is.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from hypothesis import strategies as st

from softlan.errors import SoftlanError
from softlan.texts import MAX_SAID

__all__ = [
    "DIRECTORY",
    "ODD_JSON",
    "ODD_TOML",
    "Picks",
    "built",
    "json_object",
    "refused_well",
    "spoil",
    "spoilt",
    "toml",
]

T = TypeVar("T")

# In memory where that can be: targets write and read files all the time.
_MEMORY = Path("/dev/shm")
_MADE = tempfile.TemporaryDirectory(prefix="softlan-fuzz-", dir=_MEMORY if _MEMORY.is_dir() else None)
DIRECTORY = Path(_MADE.name)

# What is told in the log is not for the terminal of whoever fuzzes.
logging.getLogger("softlan").addHandler(logging.NullHandler())

_LONG = "A" * 3000
_WIDE = [
    '"\\u001b[2J"',
    '"a\\u0000b"',
    '"\\u007f\\u202e"',
    f'"{_LONG}"',
    '"\\n"',
    '"\U0001f600 é"',
    '""',
    '" A "',
]
_NUMBERS = [
    "0",
    "1",
    "-1",
    "64",
    "65536",
    "-0.0",
    "1e308",
    "1e400",
    "9" * 19,
    "9" * 30,
    "9" * 4000,
    "9" * 5000,
]
_DEEP = "[" * 2000

ODD_JSON: list[str] = [
    *("null", "true", "false", "[]", "{}", '[1,"x"]', '{"a":{"b":[]}}', "NaN", "-", '"', _DEEP),
    *('"\\ud800"', '"\\ud83d\\ude00"', '"\\x"', *_NUMBERS, *_WIDE),
]
ODD_TOML: list[str] = [
    *("true", "false", "[]", "{}", '["A", "B"]', "[[1], []]", "{ a.b = 1 }", "", '"', _DEEP, "inf", "-nan"),
    *("1979-05-27", "07:32:00", "1979-05-27T07:32:00-08:00", "0x" + "f" * 5000, "0o17", "1_000", "+7"),
    *("'a\\b'", '"""\nlong\n"""', "'''\n[x]\n'''", "[\n 1, # one\n]", '"\\U0001F600"', '"\\ud800"'),
    *(*_NUMBERS, *_WIDE),
]


class Picks:
    """Choices by the bytes of an input, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._left = iter(data)

    def number(self, below: int) -> int:
        """Pick a number, of 256 at most."""
        return next(self._left, 0) % below

    def of(self, options: Sequence[T]) -> T:
        """Pick one."""
        return options[self.number(len(options))]

    def mostly(self, usual: Sequence[T], odd: Sequence[T]) -> T:
        """Pick of what is usual, and once in sixteen times of what is not."""
        return self.of(odd if self.number(16) == 15 else usual)

    def some(self, options: Sequence[T], most: int) -> list[T]:
        """Pick a few, in any order, also twice."""
        return [self.of(options) for _ in range(self.number(most + 1))]


def built(build: Callable[[Picks], T], size: int = 48) -> st.SearchStrategy[T]:
    """Inputs that `build` makes of about `size` picks."""
    return st.binary(min_size=size // 2, max_size=2 * size).map(lambda data: build(Picks(data)))


def spoil(data: bytes, script: bytes) -> bytes:
    """Cut out, change or put in a few bytes, as the script says; nothing where it says nothing."""
    changed, picks = bytearray(data), iter(script)
    # Three bytes say where and how much, the next ones what comes there.
    for high in picks:
        place = (high << 8 | next(picks, 0)) % (len(changed) + 1)
        cut = next(picks, 0)
        # Most of it is text, and mostly stays so.
        kept = 0xFF if cut & 0xC0 == 0xC0 else 0x7F
        changed[place : place + (cut & 7)] = bytes(next(picks, 0) & kept for _ in range(cut >> 3 & 7))
    return bytes(changed)


def spoilt(base: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Bytes as they are, or with a few cut out, changed or put in."""
    return st.builds(spoil, base, st.binary(max_size=24))


def json_object(picks: Picks, usual: Mapping[str, Sequence[str]], always: Sequence[str] = ()) -> str:
    """A JSON object, mostly of these fields with these values."""
    names = list(dict.fromkeys([*always, *picks.some(list(usual), 5)]))
    fields = [f'"{name}":{picks.mostly(usual[name], ODD_JSON)}' for name in names]
    if picks.number(16) == 15:
        fields.append(f"{picks.of(_WIDE)}:{picks.of(ODD_JSON)}")
    if fields and picks.number(16) == 15:
        fields.pop(picks.number(len(fields)))
    return "{" + ",".join(fields) + "}"


def toml(picks: Picks, usual: Mapping[str, Sequence[str]], always: Sequence[str] = ()) -> str:
    """Lines of TOML, mostly of these keys with these values, each key once but for now and then."""
    names = [*always, *picks.some(list(usual), 5)]
    if picks.number(16) != 15:
        names = list(dict.fromkeys(names))
    lines = [f"{name} = {picks.mostly(usual[name], ODD_TOML)}" for name in names]
    if picks.number(16) == 15:
        lines.append(f"{picks.of(_WIDE)} = {picks.of(ODD_TOML)}")
    if lines and picks.number(16) == 15:
        lines[picks.number(len(lines))] += " # so"
    return "\n".join(lines) + "\n"


def refused_well(error: SoftlanError, *names: object) -> str:
    """Hold a refusal to what a person can use: it names what is wrong, short and printable whatever was in there. Gives its words."""
    for text in (str(error), error.hint or ""):
        assert text.isprintable(), f"not printable: {text!r}"
        assert len(text) <= 2 * MAX_SAID, f"{len(text)} characters"
    for name in names:
        assert str(name) in str(error), f"{name} is not named: {error}"
    return str(error)
