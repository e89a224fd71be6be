"""Text that somebody else wrote, made fit for a line of a log or a terminal. Pure."""

from __future__ import annotations

__all__ = ["MAX_SAID", "harmless", "one_line"]

MAX_SAID = 500
"""Characters of what another machine says to a person."""


def one_line(text: str) -> str:
    """Spell out what is not printable: line ends, escape sequences, marks that turn the direction of writing."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def harmless(text: str) -> str:
    """Cut what is longer than `MAX_SAID` characters, and put it on one line."""
    return one_line(text if len(text) <= MAX_SAID else text[: MAX_SAID - 3] + "...")
