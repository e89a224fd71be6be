"""What test suites on the lab share: going on inside a user namespace, and what a thing that is missing means to a test run."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any, NoReturn

from softlan.lab.namespaces import LabError, ensure_namespaces

__all__ = ["go_on_in_namespaces", "must_have_all", "need", "need_tun", "skip"]


def must_have_all() -> bool:
    """Tell whether a missing tool or right is a failure and no reason to skip (SOFTLAN_REQUIRE_ALL=1, as in CI)."""
    return os.environ.get("SOFTLAN_REQUIRE_ALL") == "1"


def skip(reason: str) -> NoReturn:
    """Skip this test, or fail it where nothing may be missing; `reason` says what is. For pytest, which no package brings along."""
    import pytest

    if must_have_all():
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def need(program: str) -> None:
    """Go on where `program` is installed, or `skip`."""
    if shutil.which(program) is None:
        skip(f"{program} is not installed")


def need_tun(attach: bool) -> None:
    """Go on where clients have TAPs of their own, which they have not on a party with `attach`, or `skip`."""
    if attach:
        skip("/dev/net/tun cannot be opened here")


def go_on_in_namespaces(config: Any) -> str | None:
    """Run this pytest again in a user namespace where that is needed; `config` is pytest's.

    Gives the reason, with a hint, when the machine refuses; else it returns None, or not at all.
    """
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.suspend_global_capture(in_=True)
    try:
        ensure_namespaces([sys.executable, "-m", "pytest", *config.invocation_params.args])
    except LabError as refusal:
        return f"{refusal} (hint: {refusal.hint})"
    finally:
        if capture is not None:
            capture.resume_global_capture()
    return None
