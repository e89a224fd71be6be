"""Options by the group: what the command line, the environment or a file says becomes one value of a dataclass for the command.

`settings.py` and `command.py` say where values come from, the types in `config.py` judge them; this only puts options together.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from softlan.config import CONGESTION_CONTROLLERS

__all__ = ["Decorator", "congestion_option", "count_option", "grouped", "path_option"]

F = TypeVar("F", bound=Callable[..., Any])

Decorator = Callable[[Any], Any]


def grouped(choices: type[Any], parameter: str, *options: Decorator) -> Callable[[F], F]:
    """Add options whose names are the fields of `choices`; the command gets one such value as `parameter`."""

    def add(command: F) -> F:
        @functools.wraps(command)
        def wrapped(*args: Any, **given: Any) -> Any:
            chosen = {entry.name: given.pop(entry.name) for entry in dataclasses.fields(choices)}
            return command(*args, **{parameter: choices(**chosen)}, **given)

        decorated: Any = wrapped
        for option in reversed(options):
            decorated = option(decorated)
        return decorated  # type: ignore[no-any-return]

    return add


def path_option(
    name: str, words: str, *, metavar: str = "FILE", cls: type[click.Option] = click.Option
) -> Decorator:
    """Make an option that names a file; `words` are its help."""
    return click.option(name, cls=cls, type=click.Path(path_type=Path), metavar=metavar, help=words)


def count_option(
    name: str, default: int, words: str, *, least: int = 1, most: int = 65535, metavar: str = "N"
) -> Decorator:
    """Make an option that is a number from `least` to `most`; `words` are its help."""
    return click.option(
        name,
        type=click.IntRange(least, most),
        default=default,
        metavar=metavar,
        help=words,
        show_default=True,
    )


congestion_option: Decorator = click.option(
    "--congestion",
    type=click.Choice(CONGESTION_CONTROLLERS),
    default="calm",
    show_default=True,
    help="Congestion control: by delay (calm, for tunnels), or cubic, or bbr.",
)
