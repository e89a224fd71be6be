"""The annotated examples: every option is in them, nothing else is, and what they say is true."""

import re
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from softlan.cli import main
from softlan.client.cli import client
from softlan.gateway.cli import gateway
from softlan.relay.cli import relay
from softlan.settings import read_settings, settable_options

EXAMPLES = Path(__file__).parents[2] / "packaging" / "config"
PARTS = {"relay": relay, "gateway": gateway, "client": client}
NO_DEFAULT = {"open-rooms", "mac-policy", "back-in"}
"""Options whose default is a word in their help: the example shows what it comes to."""


def active(part: str) -> str:
    """Give the example with every commented setting switched on; prose has a space behind its #."""
    text = (EXAMPLES / f"{part}.toml").read_text()
    return re.sub(r"^#(?=[a-z])", "", text, flags=re.MULTILINE)


@pytest.mark.parametrize("part", PARTS)
def test_every_option_is_in_the_example_and_nothing_else(part):
    assert set(tomllib.loads(active(part))) == set(settable_options(PARTS[part]))


@pytest.mark.parametrize("part", PARTS)
def test_the_example_is_good_as_it_is_and_with_everything_switched_on(part, tmp_path):
    assert read_settings(EXAMPLES / f"{part}.toml", PARTS[part]).problems == ()
    file = tmp_path / f"{part}.toml"
    file.write_text(active(part))
    assert read_settings(file, PARTS[part]).problems == ()


@pytest.mark.parametrize("part", PARTS)
def test_defaults_in_the_example_are_the_defaults(part):
    context = click.Context(PARTS[part])
    written = tomllib.loads(active(part))
    for key, option in settable_options(PARTS[part]).items():
        default = option.get_default(context)
        if isinstance(default, str | int | float) and key not in NO_DEFAULT:
            assert option.type_cast_value(context, written[key]) == option.type_cast_value(
                context, default
            ), key


@pytest.mark.parametrize("part", PARTS)
def test_an_installed_softlan_prints_the_example(part):
    done = CliRunner().invoke(main, ["config", "example", part])
    assert (done.exit_code, done.output) == (0, (EXAMPLES / f"{part}.toml").read_text())
