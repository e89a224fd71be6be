"""A QR code in a terminal, for the phone or the other machine across the table. Needs the extra `qr`."""

from __future__ import annotations

import io

from softlan.errors import SoftlanError
from softlan.installing import pip_install

__all__ = ["qr_code"]


def qr_code(text: str) -> str:
    """Draw a text as a QR code of half-block characters, for a terminal.

    Raises SoftlanError: the library for it is not installed, or the text is too long for any QR code.
    """
    try:
        import segno
    except ImportError as error:
        raise SoftlanError(
            "a QR code takes the library segno, which is not installed",
            hint=f"install it with: {pip_install('softlan[qr]')}",
        ) from error
    try:
        # The lowest error correction: a screen has no scratches, and fewer modules fit more terminals.
        code = segno.make(text, error="l", micro=False, boost_error=False)
    except ValueError as error:
        raise SoftlanError(f"{len(text)} characters are too many for a QR code") from error
    drawn = io.StringIO()
    code.terminal(drawn, compact=True)
    return drawn.getvalue()
