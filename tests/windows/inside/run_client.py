"""Under Wine: sets up the stand-in's network cards and routes, runs the client, and tells what is left.

    python run_client.py MACHINE-JSON ARGUMENTS

One JSON object a line is printed, beside the client's log: `standin.before`, `standin.after`.
"""

from __future__ import annotations

import json
import sys

from standin_world import Standin

from softlan.client.cli import client


def tell(event: str, **fields: object) -> None:
    """Print a line that looks like one of the log's."""
    print(json.dumps({"event": event, **fields}), file=sys.stderr, flush=True)


def main() -> None:
    """Run it."""
    machine, arguments = json.loads(sys.argv[1]), sys.argv[2:]
    standin = Standin()
    if not machine["as_it_was_left"]:
        standin.reset()
        for interface in machine["interfaces"]:
            standin.add_interface(*interface)
        for route in machine["routes"]:
            standin.add_route(*route)
    tell("standin.before", state=standin.dump())
    code: object = 0
    try:
        client(arguments, prog_name="python -m softlan.client", auto_envvar_prefix="SOFTLAN_CLIENT")
    except SystemExit as end:
        code = end.code
    tell("standin.after", state=standin.dump(), calls=standin.journal(), code=code)


main()
