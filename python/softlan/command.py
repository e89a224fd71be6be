"""What the commands of softlan's parts have beyond click's: help in groups, settings from a file, and an invite in place of options.

A value counts in this order: the command line, the environment, the file, the default. An invite stands for the options it
answers, and counts where it was given; an option given in the same place counts more. What a place that counts less says of its own
relay, whom to believe and which key to prove, is for no other.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar

import click
from click.core import ParameterSource

from softlan.config import option_type, parse_host_port, parse_server_name
from softlan.errors import ConfigError, SoftlanError
from softlan.invite import Invite, parse_invite
from softlan.settings import Problem, first_default_file, read_settings
from softlan.trust import UNUSABLE, load_trusted_certificates, parse_pin, public_key_pin

__all__ = [
    "INVITE_ARGUMENT",
    "InvitedOption",
    "PartCommand",
    "SettingsError",
    "answered_by_invite",
    "config_option",
    "invite_options",
    "outranked",
    "settings_file",
]

F = TypeVar("F", bound=Callable[..., Any])

_FILE = "softlan.settings-file"
_INVITE = "softlan.invite"
_RANK = {
    ParameterSource.COMMANDLINE: 3,
    ParameterSource.ENVIRONMENT: 2,
    ParameterSource.DEFAULT_MAP: 1,
}
HELP_WIDTH = 100


class PartCommand(click.Command):
    """A command whose `--help` shows its options in groups: titles with the names of parameters; the rest comes last."""

    def __init__(self, *args: Any, groups: Mapping[str, Sequence[str]] | None = None, **kwargs: Any) -> None:
        settings = {"help_option_names": ["-h", "--help"], "max_content_width": HELP_WIDTH}
        kwargs["context_settings"] = {**settings, **(kwargs.get("context_settings") or {})}
        super().__init__(*args, **kwargs)
        self.groups = dict(groups or {})

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, group by group."""
        rest = {o.name: o for o in self.get_params(ctx) if isinstance(o, click.Option)}
        titled = {title: [rest.pop(n) for n in names if n in rest] for title, names in self.groups.items()}
        for title, options in [*titled.items(), ("More", list(rest.values()))]:
            records = [record for option in options if (record := option.get_help_record(ctx))]
            if records:
                with formatter.section(title):
                    formatter.write_dl([(names, _plainly(words, title)) for names, words in records])


def _plainly(words: str, title: str) -> str:
    """Put click's ranges into words, and do not repeat the group's title."""
    words = re.sub(r"(\d+)<=x<=(\d+)", r"\1 to \2", words)
    shorter = re.sub(rf"^{re.escape(title)}[:,] ", "", words)
    return shorter[:1].upper() + shorter[1:]


class SettingsError(click.ClickException):
    """A configuration file that cannot be used; every problem in it, one a line."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem], hint: str | None = None) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems
        self.hint = hint

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it the way softlan prints its errors."""
        for problem in self.problems:
            click.echo(f"error: {problem}", file=file or sys.stderr)
        if self.hint:
            click.echo(f"hint: {self.hint}", file=file or sys.stderr)


def config_option(part: str) -> Callable[[F], F]:
    """Add `--config FILE`; what the file says takes the place of the options' defaults."""

    def load(ctx: click.Context, _option: click.Parameter, given: Path | None) -> None:
        file = given or first_default_file(part)
        if file is None or ctx.resilient_parsing:
            return
        settings = read_settings(file, ctx.command)
        if settings.problems:
            hint = None if given else "it was read because it is there; --config /dev/null does without"
            raise SettingsError(settings.problems, hint)
        ctx.default_map = {**(ctx.default_map or {}), **settings.values}
        ctx.meta[_FILE] = file

    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        is_eager=True,
        expose_value=False,
        callback=load,
        help=f"Settings (TOML). If not given: {part}.toml in ~/.config/softlan or /etc/softlan, where there is one.",
    )


def settings_file(ctx: click.Context) -> Path | None:
    """Give the file a command's settings were read from, if there was one."""
    file = ctx.meta.get(_FILE)
    return file if isinstance(file, Path) else None


@dataclass(frozen=True, slots=True)
class _Answers:
    """What an invite says, by parameter name, and where it was given."""

    values: Mapping[str, Any]
    source: ParameterSource
    used: set[str] = field(default_factory=set)


_OF_ONE_RELAY = {"pins": "pins", "relay_ca_cert": "pins", "key": "key", "key_file": "key"}
"""Parameters that are for the relay which the same place names, and what of an invite takes their place."""


@dataclass(frozen=True, slots=True)
class _OwnRelay:
    """The relay that the environment or the file names: its name as certificates have it, and the pins it is known by there."""

    name: str
    pins: frozenset[bytes]

    def is_named(self, name: str) -> bool:
        """Say whether this is its name, too; both in ASCII."""
        return _folded(self.name) == _folded(name)

    def is_that_of(self, answers: _Answers) -> bool:
        """Say whether who is believed by the invite is this relay and no other.

        Any of an invite's pins is believed, under whatever name and port, so all must be known here. Without pins it is believed as these
        settings say, by its name, which is the same relay's at any port.
        """
        if pins := answers.values["pins"]:
            return self.pins.issuperset(map(parse_pin, pins))
        return self.is_named(answers.values["server_name"])


_UNREADABLE = "a relay whose name cannot be read"
"""In place of a name; nobody has it."""


def _own_relay(ctx: click.Context, place: ParameterSource) -> _OwnRelay | None:
    """Give the relay that the environment or the file is about; None when it names none."""
    for parameter, read in (
        ("server_name", parse_server_name),
        ("relay", _relay_name),
        ("invite", _invited_name),
    ):
        if said := _said(ctx, place, parameter):
            try:
                name = read(said)
            except ConfigError:
                name = _UNREADABLE
            return _OwnRelay(name, _own_pins(ctx, place))
    return None


def _own_pins(ctx: click.Context, place: ParameterSource) -> frozenset[bytes]:
    """Give the pins by which the environment or the file knows its relay: its own, its certificate's, or its invite's."""
    pins: Iterable[str] = ()
    with contextlib.suppress(SoftlanError, *UNUSABLE):
        if said := _said(ctx, place, "pins"):
            pins = said
        elif said := _said(ctx, place, "relay_ca_cert"):
            pins = map(public_key_pin, load_trusted_certificates(Path(said)))
        elif said := _said(ctx, place, "invite"):
            pins = parse_invite(said).pins
        return frozenset(map(parse_pin, pins))
    return frozenset()


def _said(ctx: click.Context, place: ParameterSource, name: str) -> Any:
    """Give what the environment or the file says of a parameter, as it stands there; None when it says nothing."""
    if place is ParameterSource.DEFAULT_MAP:
        return (ctx.default_map or {}).get(name)
    parameter = next((each for each in ctx.command.params if each.name == name), None)
    return None if parameter is None else parameter.value_from_envvar(ctx)


def _folded(name: str) -> str:
    return name.casefold().removesuffix(".")


def _relay_name(text: str) -> str:
    return parse_host_port(text).name


def _invited_name(text: str) -> str:
    return parse_invite(text).relay.name


class InvitedOption(click.Option):
    """An option that an invite can answer, or that is for no relay but its own."""

    def consume_value(self, ctx: click.Context, opts: Mapping[str, Any]) -> tuple[Any, ParameterSource]:
        """Take the invite's answer unless the option was given in the same place or one that counts more."""
        value, source = super().consume_value(ctx, opts)
        answers = ctx.meta.get(_INVITE)
        name = self.name or ""
        if not isinstance(answers, _Answers) or _RANK.get(source, 0) >= _RANK.get(answers.source, 0):
            return value, source
        if answers.values.get(name) is not None:
            answers.used.add(name)
            return answers.values[name], answers.source
        if name not in _OF_ONE_RELAY or source not in _RANK:
            return value, source
        own = _own_relay(ctx, source)
        if own is None or own.is_that_of(answers):
            return value, source
        if answers.values[_OF_ONE_RELAY[name]] is None:
            click.echo(
                f"note: the {self.opts[0].lstrip('-')} in your settings is {self._unused(own, answers)}",
                err=True,
            )
        return () if self.multiple else None, ParameterSource.DEFAULT

    def _unused(self, own: _OwnRelay, answers: _Answers) -> str:
        invited = answers.values["server_name"]
        if not own.is_named(invited):
            return f"for {own.name}, and not used for {invited}"
        return (
            f"not used: the invite, though for {invited}, has a pin that is not in them;"
            f" if you trust it with the key, give {self.opts[0]} as well"
        )

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        """Say, when it is missing, that an invite would do."""
        try:
            return super().process_value(ctx, value)
        except click.MissingParameter as error:
            words = 'Paste an invite, "softlan://..." in double quotes, or give --relay and --room.'
            raise click.MissingParameter(words, ctx, self) from error

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Do not call it required: with an invite it is not."""
        record = super().get_help_record(ctx)
        return None if record is None else (record[0], record[1].replace("  [required]", ""))


def answered_by_invite(ctx: click.Context, name: str | None) -> bool:
    """Tell whether an option got its value from an invite; asked after it was processed."""
    answers = ctx.meta.get(_INVITE)
    return isinstance(answers, _Answers) and name in answers.used


def outranked(first: str, second: str) -> str | None:
    """Say which of two parameters that exclude each other gives way in the command that runs; None: they count the same.

    It is the one that was given in a place that counts less; in the same place, what an invite says.
    """
    ctx = click.get_current_context(silent=True)
    if ctx is None:
        return None
    ranks = {name: _rank(ctx, name) for name in (first, second)}
    return None if ranks[first] == ranks[second] else min(ranks, key=ranks.__getitem__)


def _rank(ctx: click.Context, name: str) -> tuple[int, bool]:
    source = ctx.get_parameter_source(name)
    return 0 if source is None else _RANK.get(source, 0), not answered_by_invite(ctx, name)


INVITE = option_type("invite", parse_invite)


def invite_options(command: F) -> F:
    """Add the argument `[INVITE]`, and `--invite` for files and the environment; `InvitedOption`s take their values from it."""
    command = click.option(
        "--invite",
        type=INVITE,
        metavar="INVITE",
        is_eager=True,
        expose_value=False,
        callback=_take_invite,
        help="The same as an option, for settings files and scripts.",
    )(command)
    return click.argument("link", metavar="[INVITE]", required=False, **_ARGUMENT)(command)


def _take_invite(ctx: click.Context, parameter: click.Parameter, invite: Invite | None) -> None:
    if invite is None:
        return
    assert parameter.name is not None
    source = ctx.get_parameter_source(parameter.name) or ParameterSource.COMMANDLINE
    former = ctx.meta.get(_INVITE)
    if isinstance(former, _Answers) and _RANK.get(former.source, 0) > _RANK.get(source, 0):
        return
    for note in invite.notes:
        click.echo(f"note: {note}", err=True)
    values = {
        "relay": str(invite.relay),
        # Whatever way leads to it, as --relay may say: it is the relay by this name, to its certificate and to who was in before.
        "server_name": invite.relay.name,
        "room": invite.room,
        "pins": invite.pins or None,
        "key": invite.key,
    }
    ctx.meta[_INVITE] = _Answers(values, source)


_ARGUMENT: dict[str, Any] = {
    "type": INVITE,
    "is_eager": True,
    "expose_value": False,
    "callback": _take_invite,
}


class _InviteArgument(click.Argument):
    """The invite, where nothing goes without one."""

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        """Say, when it is missing, what is."""
        try:
            return super().process_value(ctx, value)
        except click.MissingParameter as error:
            words = 'Paste the line you were given, "softlan://...", in double quotes.'
            raise click.MissingParameter(words, ctx, self) from error


INVITE_ARGUMENT = _InviteArgument(["link"], metavar="INVITE", required=True, **_ARGUMENT)
"""For a command that takes nothing but an invite."""
