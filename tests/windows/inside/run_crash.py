"""Under Wine: a client that is terminated in the middle, and the next one that puts the machine right. `play`, or `next`."""

from __future__ import annotations

import ctypes
import json
import logging
import subprocess
import sys
from contextlib import ExitStack
from ipaddress import IPv4Network
from pathlib import Path

from scenarios import NOWHERE, RELAY, TAP
from standin_world import StandinWorld

from softlan.windows.ip import Route
from softlan.windows.machine import open_machine
from softlan.windows.pin import RelayPin
from softlan.windows.routes import (
    ScopedDefaultRouteSuppression,
    ScopedInterfaceMetric,
    ScopedInterfaceMtu,
    ScopedRoute,
)

logging.disable(logging.CRITICAL)


def play(directory: Path) -> None:
    """Change everything there is to change, let another softlan start beside, and be terminated."""
    world = StandinWorld()
    world.reset()
    before = world.state()
    with open_machine(directory) as machine, ExitStack() as stack:
        RelayPin(machine.ip, machine.journal, TAP).pin(RELAY)
        stack.enter_context(ScopedInterfaceMtu(machine.ip, machine.journal, TAP, 1416))
        stack.enter_context(ScopedInterfaceMetric(machine.ip, machine.journal, TAP, 1))
        stack.enter_context(ScopedDefaultRouteSuppression(machine.ip, machine.journal, TAP))
        route = Route(TAP, IPv4Network("224.0.0.0/4"), NOWHERE)
        stack.enter_context(ScopedRoute(machine.ip, machine.journal, route))
        changed = world.state()
        beside = subprocess.run(
            [sys.executable, __file__, "next", str(directory)],
            input="",
            capture_output=True,
            text=True,
            check=False,
        )
        report = {
            "before": before,
            "changed": changed,
            "beside": beside.stdout,
            "after_beside": world.state(),
            "records": len(machine.journal.records),
        }
        print("RESULT " + json.dumps(report), flush=True)
        kernel32 = ctypes.WinDLL("kernel32")
        kernel32.GetCurrentProcess.restype = ctypes.c_void_p
        kernel32.TerminateProcess.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
        # Nothing runs after this: no finally, no atexit, no handler.
        kernel32.TerminateProcess(kernel32.GetCurrentProcess(), 9)


def next_start(directory: Path) -> None:
    """Start as a client does."""
    with open_machine(directory) as machine:
        recovered = machine.recovered
    state = StandinWorld().state()
    left = [path.name for path in directory.iterdir()]
    print("RESULT " + json.dumps({"recovered": recovered, "state": state, "left": left}))


{"play": play, "next": next_start}[sys.argv[1]](Path(sys.argv[2]))
