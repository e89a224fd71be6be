"""A few hundred inputs for everything on the Python side that reads what others wrote; `./dev fuzz control SECONDS` goes on for longer."""

import inspect
from collections.abc import Iterator

import click
import pytest
from hypothesis import HealthCheck, given, settings
from targets import PARSERS, TARGETS

from softlan.cli import main
from softlan.config import option_type
from softlan.invite import parse_invite


@pytest.mark.parametrize("name", TARGETS)
def test_any_input(name):
    strategy, check = TARGETS[name]
    settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))(
        given(strategy)(check)
    )()


def _parameters(command: click.Command) -> Iterator[click.Parameter]:
    yield from command.params
    for each in command.commands.values() if isinstance(command, click.Group) else ():
        yield from _parameters(each)


def test_what_options_take_is_fuzzed():
    """An invite has a target of its own."""
    made = option_type("x", str).__qualname__
    types = [getattr(parameter.type, "func", None) for parameter in _parameters(main)]
    ours = [convert for convert in types if getattr(convert, "__qualname__", None) == made]
    parsers = {inspect.getclosurevars(convert).nonlocals["parse"] for convert in ours}
    assert len(parsers) > 10
    assert parsers - {parse_invite} <= set(PARSERS)
