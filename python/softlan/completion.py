"""`softlan completion`: the script that lets a shell complete softlan's commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

__all__ = ["completion"]


@click.command(
    short_help="Print what lets bash, zsh or fish complete softlan.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, *, shell: str) -> None:
    """Print the completion script for SHELL.

    \b
    bash:  softlan completion bash > ~/.local/share/bash-completion/completions/softlan
    zsh:   softlan completion zsh > ~/.zfunc/_softlan       (with fpath+=~/.zfunc before compinit)
    fish:  softlan completion fish > ~/.config/fish/completions/softlan.fish
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped
    chosen = get_completion_class(shell)
    assert chosen is not None
    click.echo(chosen(ctx.find_root().command, {}, "softlan", "_SOFTLAN_COMPLETE").source())
