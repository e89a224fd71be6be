"""Text that somebody else wrote, made fit for a line of a log or a terminal. Pure."""

from __future__ import annotations

__all__ = ["MAX_SAID", "harmless", "one_line", "several", "unusable"]

MAX_SAID = 500
"""Characters of what another machine says to a person."""


def one_line(text: str) -> str:
    """Spell out what is not printable: line ends, escape sequences, marks that turn the direction of writing."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def harmless(text: str) -> str:
    """Put it on one line, of `MAX_SAID` characters at most."""
    line = one_line(text[: MAX_SAID + 1])
    return line if len(line) <= MAX_SAID else line[: MAX_SAID - 3] + "..."


def several(count: int, what: str) -> str:
    """Count things of a regular plural: `1 peer`, `2 peers`."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def unusable(error: ValueError) -> str:
    """Say why Python cannot use a value: a number of more digits than it prints, a NUL in a path; without its advice to programs."""
    return f"it cannot be used: {str(error).partition(';')[0]}"
