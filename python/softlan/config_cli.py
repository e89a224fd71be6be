"""`softlan config`: judges a configuration file, shows which value counts and where it came from, and hands out examples."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from softlan.command import SettingsError, answered_by_invite, settings_file
from softlan.errors import ConfigError
from softlan.parts import reported
from softlan.settings import key_lines, read_settings, settable_options
from softlan.texts import several

__all__ = ["config_group"]

_SECRET = frozenset({"key", "invite"})
"""Parameters of client and gateway whose values are not shown."""


def config_group(parts: Mapping[str, click.Command]) -> click.Group:
    """Make the command for these parts."""

    @click.group(
        short_help="Check and show settings; print examples and systemd units.",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    def config() -> None:
        """Check configuration files, show what settings come to, and print examples and units for systemd."""

    @config.command()
    @click.argument("file", type=click.Path(path_type=Path))
    @click.option(
        "--part", type=click.Choice(list(parts)), help="Whose file it is, if its name does not say."
    )
    @reported
    def check(*, file: Path, part: str | None) -> None:
        """Judge FILE: every wrong key and value, with its line. Exit status 0: it can be used."""
        part = part or _part_of(file, parts)
        settings = read_settings(file, parts[part])
        if settings.problems:
            raise SettingsError(settings.problems)
        click.echo(f"{file}: good, {several(len(settings.values), 'setting')} for the {part}")

    @config.command(
        context_settings={
            "ignore_unknown_options": True,
            "allow_interspersed_args": False,
            "help_option_names": ["-h", "--help"],
        }
    )
    @click.option("--json", "as_json", is_flag=True, help="Print JSON: a list with one object an option.")
    @click.argument("part", type=click.Choice(list(parts)))
    @click.argument("options", nargs=-1, type=click.UNPROCESSED)
    def show(*, as_json: bool, part: str, options: tuple[str, ...]) -> None:
        """Show the values PART would run with if it were given OPTIONS, and where each came from.

        What it prints can be used as a configuration file. Keys and invites are not shown: put them in again.
        """
        effective = list(_effective(part, parts[part], options))
        if as_json:
            told = [{"option": e.key, "value": e.value, "from": e.origin} for e in effective]
            click.echo(json.dumps(told, indent=2, default=str))
            return
        click.echo(f"# softlan {part}")
        width = max(len(e.line) for e in effective)
        for e in effective:
            click.echo(f"{e.line:<{min(width, 60)}}  # {e.origin}")

    @config.command()
    @click.argument("part", type=click.Choice(list(parts)))
    def example(*, part: str) -> None:
        """Print PART's annotated settings, each with its default: to be kept as /etc/softlan/PART.toml."""
        click.echo(_shared(f"{part}.toml"), nl=False)

    @config.command(epilog="Files: softlan-relay.service, softlan-gateway@.service, softlan-client.service.")
    @click.argument("part", type=click.Choice(list(parts)))
    def unit(*, part: str) -> None:
        """Print the systemd unit that runs PART with this installation: to be kept in /etc/systemd/system."""
        name = f"softlan-{part}{'@' if part == 'gateway' else ''}.service"
        program = Path(sys.executable).with_name("softlan")
        text = _shared(name)
        if not program.exists():
            click.echo(text, nl=False)
            return
        click.echo(text.replace(_INSTALLED, str(program)), nl=False)
        for file in (program, Path(sys.executable).resolve()):
            if _is_hidden(file):
                click.echo(
                    f"hint: this unit cannot start {file}, as services do not see home directories: install softlan into /opt/softlan"
                    " (docs/service.md), and print it from there",
                    err=True,
                )
                break

    return config


def _is_hidden(file: Path) -> bool:
    """Whether it lies where `ProtectHome=yes` hides it from a service (systemd.exec(5))."""
    return any(file.is_relative_to(home) for home in ("/home", "/root", "/run/user"))


_INSTALLED = "/opt/softlan/bin/softlan"
"""Where the units in `packaging/systemd` expect the program."""


def _shared(name: str) -> str:
    """Read one of the files in `packaging/` that the package carries along."""
    return (resources.files("softlan") / "share" / name).read_text(encoding="utf-8")


def _part_of(file: Path, parts: Mapping[str, click.Command]) -> str:
    named = [part for part in parts if part in file.stem.lower()]
    if len(named) == 1:
        return named[0]
    raise ConfigError(
        f"the name {file.name!r} does not say whose file it is", hint=f"add --part {'|'.join(parts)}"
    )


@dataclass(frozen=True, slots=True)
class _Effective:
    """One option's value; None: none. A `secret` one's is not shown, nor held here."""

    key: str
    value: Any
    origin: str
    secret: bool = False

    @property
    def line(self) -> str:
        """Print it as in a file; what has no value, or a secret one, is a comment."""
        if self.value is None:
            return f"# {self.key} ="
        if self.secret:
            return f"# {self.key} = {self.value}"
        # JSON leaves DEL as it is, TOML wants it spelt out (section String), and so does a terminal with more than that.
        printed = json.dumps(self.value, ensure_ascii=False)
        return f"{self.key} = {''.join(c if c.isprintable() else _escaped(c) for c in printed)}"


def _escaped(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


def _effective(part: str, command: click.Command, arguments: Sequence[str]) -> Iterator[_Effective]:
    """Resolve every option as the command would."""
    prefix = f"SOFTLAN_{part.upper()}"
    ctx = click.Context(command, info_name=f"softlan {part}", auto_envvar_prefix=prefix)
    given, left, _ = command.make_parser(ctx).parse_args(list(arguments))
    lines: Mapping[str, int] = {}
    for early in ("config", "invite", "link"):
        for parameter in command.params:
            if parameter.name == early:
                parameter.handle_parse_result(ctx, given, left)
    if (file := settings_file(ctx)) is not None:
        lines = key_lines(file.read_text(encoding="utf-8-sig"))
    for key, option in settable_options(command).items():
        value, source = option.consume_value(ctx, given)
        is_set = source is not ParameterSource.DEFAULT or option.default is not None
        try:
            option.process_value(ctx, value)
        except click.MissingParameter:
            yield _Effective(key, None, "needed, and not set")
            continue
        shown = _plain(option, value) if is_set else None
        secret = option.name in _SECRET and part != "relay" and shown is not None
        if secret:
            shown = "(not shown)"
        if shown is None or shown == []:
            yield _Effective(key, None, "not set")
            continue
        origin = _origin(source, _variable(option, prefix), file, lines.get(key))
        yield _Effective(key, shown, "the invite" if answered_by_invite(ctx, option.name) else origin, secret)


def _variable(option: click.Option, prefix: str) -> str:
    """Name the environment variable that counts for an option: one of its own before the one made of its name, as click looks."""
    own = option.envvar if isinstance(option.envvar, str) else None
    return own if own and os.environ.get(own) else f"{prefix}_{option.name}".upper()


def _origin(source: ParameterSource, variable: str, file: Path | None, line: int | None) -> str:
    match source:
        case ParameterSource.COMMANDLINE:
            return "command line"
        case ParameterSource.ENVIRONMENT:
            return variable
        case ParameterSource.DEFAULT_MAP:
            return f"{file}:{line}" if line else str(file)
    return "default"


def _plain(option: click.Option, value: object) -> Any:
    """Turn a value into what TOML and JSON can hold, and that means the same wherever it stands; None for click's word for no value."""
    if isinstance(value, list | tuple):
        return [_plain(option, item) for item in value]
    if isinstance(option.type, click.types.IntParamType) and isinstance(value, str):
        return int(value)
    if isinstance(value, str) and option.is_flag:
        return bool(option.type.convert(value, option, None))
    if isinstance(value, str) and isinstance(option.type, click.Path):
        return str(Path(value).absolute())
    return value if isinstance(value, bool | int | float | str) else None
