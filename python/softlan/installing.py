"""What to type to have pip add to this installation: its own Python, wherever that is, and `sudo` where it takes that.

A bare `pip install` is another environment's on most machines, and refused by Debian's own Python.
"""

from __future__ import annotations

import os
import sys

__all__ = ["pip_install"]


def pip_install(*words: str) -> str:
    """Give the command that has pip install `words` here: `softlan[page]`, or `--upgrade softlan`."""
    # Double quotes, which Windows' shells know too.
    quoted = [f'"{word}"' if set(word) & set('[]<>= "') else word for word in (sys.executable, "-m", "pip")]
    quoted += ["install", *(f'"{word}"' if "[" in word else word for word in words)]
    alone = os.access(sys.prefix, os.W_OK) or sys.platform == "win32"
    return " ".join(quoted if alone else ["sudo", *quoted])
