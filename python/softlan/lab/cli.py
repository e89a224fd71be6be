"""`softlan demo` on the command line."""

from __future__ import annotations

import asyncio
import json
import signal
import sys

import click

from softlan.parts import reported, version_option

from . import demo
from .namespaces import ensure_namespaces


@click.command(
    "demo",
    short_help="Hold a whole LAN party on this machine.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object in the end instead of a table.")
@version_option
@reported
def command(*, as_json: bool) -> None:
    """Hold a LAN party on this machine: a relay, a gateway with a LAN, two players, and a verdict for each thing.

    Needs Linux and either root or unprivileged user namespaces; leaves nothing behind.
    """
    ensure_namespaces([sys.executable, "-m", "softlan", *sys.argv[1:]])
    try:
        result = asyncio.run(_run(quiet=as_json))
    except (KeyboardInterrupt, asyncio.CancelledError):
        click.echo("stopped", err=True)
        sys.exit(130)
    if as_json:
        click.echo(json.dumps(result.as_json(), indent=2))
    else:
        click.echo(f"\n{result.passed} of {result.planned} good, in {result.seconds:.1f} s")
    sys.exit(0 if result.good else 1)


async def _run(*, quiet: bool) -> demo.Result:
    task = asyncio.current_task()
    assert task is not None
    # SIGTERM ends the demo as ^C does: by way of all the clean-up. asyncio.run sees to SIGINT itself.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await demo.run(quiet=quiet)
