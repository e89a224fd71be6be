"""Win32 calls that failed, as errors a person can use: which call, which code, what it means, what to do.

Codes are those of winerror.h.
"""

from __future__ import annotations

import ctypes
import sys

from softlan.errors import PrivilegeError, SoftlanError, UnsupportedPlatformError

__all__ = [
    "ERROR_ACCESS_DENIED",
    "ERROR_FILE_NOT_FOUND",
    "ERROR_GEN_FAILURE",
    "ERROR_INVALID_PARAMETER",
    "ERROR_NOT_FOUND",
    "ERROR_OBJECT_ALREADY_EXISTS",
    "MISSING_CODES",
    "WindowsCallError",
    "WindowsPrivilegeError",
    "call_error",
    "require_windows",
]

ERROR_FILE_NOT_FOUND = 2
ERROR_ACCESS_DENIED = 5
ERROR_GEN_FAILURE = 31
ERROR_NOT_SUPPORTED = 50
ERROR_INVALID_PARAMETER = 87
ERROR_NOT_FOUND = 1168
ERROR_NETWORK_UNREACHABLE = 1231
ERROR_OBJECT_ALREADY_EXISTS = 5010

MISSING_CODES = frozenset({ERROR_FILE_NOT_FOUND, ERROR_NOT_FOUND})
"""What IP Helper says of an interface or route that is not there, or not there yet."""

_TEXTS = {
    ERROR_FILE_NOT_FOUND: "The system cannot find the file specified.",
    ERROR_ACCESS_DENIED: "Access is denied.",
    ERROR_GEN_FAILURE: "A device attached to the system is not functioning.",
    ERROR_NOT_SUPPORTED: "The request is not supported.",
    ERROR_INVALID_PARAMETER: "The parameter is incorrect.",
    ERROR_NOT_FOUND: "Element not found.",
    ERROR_NETWORK_UNREACHABLE: "The network location cannot be reached.",
    ERROR_OBJECT_ALREADY_EXISTS: "The object already exists.",
}
"""What Windows itself says, for tests and reports made elsewhere."""

_HINTS = {
    ERROR_FILE_NOT_FOUND: "the network adapter is not there (any more): is it disabled, or being restarted?",
    ERROR_ACCESS_DENIED: "start softlan from a terminal that was opened with `Run as administrator`",
    ERROR_NOT_FOUND: "the network adapter has no such protocol, or is still starting: check that Internet Protocol"
    " Version 4 is ticked in its properties, then try again",
    ERROR_NETWORK_UNREACHABLE: "this machine has no network connection at the moment",
}


class WindowsCallError(SoftlanError):
    """A Win32 call said no. `call` is its name, `code` the Win32 error."""

    def __init__(self, call: str, code: int, doing: str, *, hint: str | None = None) -> None:
        text = error_text(code)
        super().__init__(
            f"cannot {doing}: {call} failed with error {code} ({text})", hint=hint or _HINTS.get(code)
        )
        self.call = call
        self.code = code


class WindowsPrivilegeError(WindowsCallError, PrivilegeError):
    """A Win32 call wants administrator rights."""


def call_error(call: str, code: int, doing: str, *, hint: str | None = None) -> WindowsCallError:
    """Make the error for a call that failed; `doing` completes "cannot ..."."""
    kind = WindowsPrivilegeError if code == ERROR_ACCESS_DENIED else WindowsCallError
    return kind(call, code, doing, hint=hint)


def error_text(code: int) -> str:
    """Say what a Win32 error means, without a full stop, in the system's language."""
    if sys.platform == "win32":
        # An HRESULT, such as COM gives, goes in as the signed number it is.
        return ctypes.FormatError(code - (1 << 32) if code >> 31 else code).strip().rstrip(".")
    return _TEXTS.get(code, "unknown error").rstrip(".")


def require_windows(what: str) -> None:
    """Raise UnsupportedPlatformError anywhere but on Windows (row R7)."""
    if sys.platform != "win32":
        raise UnsupportedPlatformError(
            f"{what} exists on Windows only; this is {sys.platform}",
            hint="on Linux, `softlan client` makes its own adapter and needs none of this",
        )
