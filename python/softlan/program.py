"""How a softlan program ends: with its exit status, and without tearing the interpreter down around threads that are still at work.

The core hands results to asyncio from threads of its own. One that does so while the interpreter finalizes crashes the process
(PyGILState_Ensure, "Caution" in the C API's documentation), after all the work was done. Programs of others are spared that by waiting
for such threads (rust/python/src/awaits.rs); one of ours that is done is over at once.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
from typing import Any, NoReturn

import click

__all__ = ["run_program"]


def run_program(command: click.Command, **context: Any) -> NoReturn:
    """Run a command as a process of its own; `context` is for `click.Command.main`. What the command cleans up is cleaned up by then."""
    _put_streams_in_place()
    status: int
    try:
        command.main(**context)
        status = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            # What softlan itself keeps in files is told where that is done: this is what it says.
            print(f"error: the output cannot be written: {error.strerror}", file=sys.stderr)
        else:  # as the interpreter itself would show it
            sys.excepthook(type(error), error, error.__traceback__)
        status = 1
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        # Whoever read it may be gone.
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def _put_streams_in_place() -> None:
    """Let what is written to a missing stream go nowhere: Python has None for one that a shell closed, and for all three under pythonw."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - for as long as the process lasts
