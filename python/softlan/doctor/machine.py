"""The machine's own side: the parts that run, the adapter a client would use and the rights for it.

The adapter is tried for real: made, and gone again before the line is printed.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from softlan._core import Mac
from softlan.doctor.findings import Check, Finding, Grade, from_error
from softlan.doctor.judge import judge_parts
from softlan.errors import SoftlanError
from softlan.observe.local import PartStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["look_at_adapter", "look_at_parts"]


def look_at_parts(parts: Sequence[PartStatus]) -> list[Finding]:
    """Say how the parts do that run here; nothing when none does."""
    return judge_parts([(part.part, part.pid, part.status) for part in parts])


def look_at_adapter(tap: str | None, attach: str | None, *, playing: bool) -> list[Finding]:
    """Try the adapter a client would use; `playing` says that a client runs here already, which may have it."""
    if sys.platform == "win32":
        from softlan.doctor.windows import look_at_windows

        return look_at_windows(tap, playing=playing)
    if sys.platform != "linux":
        return [Finding(Check.ADAPTER, Grade.BAD, f"softlan has no network adapter for {sys.platform} yet")]
    if playing and tap is not None:
        says = f"{tap} is not tried: a client runs here already"
        return [Finding(Check.ADAPTER, Grade.SKIPPED, says)]
    from softlan.client.linux import try_adapter

    try:
        name = try_adapter(tap, attach, Mac.random_local())
    except SoftlanError as error:
        return [from_error(Check.ADAPTER, error)]
    if attach is not None:
        return [Finding(Check.ADAPTER, Grade.GOOD, f"{attach} can be attached to, and this user may do so")]
    says = f"a virtual adapter ({name}) can be made, and this user may do so"
    return [Finding(Check.ADAPTER, Grade.GOOD, says, facts={"interface": name})]
