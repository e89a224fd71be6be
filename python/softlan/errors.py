"""Every error softlan raises on purpose, as types: what went wrong, what to do next, and how a command exits.

A command line prints `error: <message>` and, where there is one, `hint: <hint>`, and exits with `exit_code`:
1 for what went wrong while running, 2 for what was asked for wrongly, 4 for what a relay refuses until a person changes something
(3 is a grade of `softlan doctor`). Anything that is not a `SoftlanError` is a bug.
"""

from __future__ import annotations

from enum import StrEnum

from softlan.control.codes import Code, Retry

__all__ = [
    "ConfigError",
    "InterfaceError",
    "LocalProtocolError",
    "PrivilegeError",
    "ProtocolError",
    "RejectedError",
    "RelayUnreachableError",
    "RemoteProtocolError",
    "SoftlanError",
    "TrustError",
    "TrustFault",
    "UnsupportedPlatformError",
    "UnsupportedProtocolError",
]


class SoftlanError(Exception):
    """Base of all of them; `str()` is one sentence for a person, `hint` says what to do about it."""

    exit_code: int = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(SoftlanError):
    """An option, a setting or a file given by the user does not make sense."""

    exit_code = 2


class PrivilegeError(SoftlanError):
    """The operating system refuses what only an administrator (or a capability) may do."""


class InterfaceError(SoftlanError):
    """A network interface is missing, down, busy or of a kind that cannot be used."""


class UnsupportedPlatformError(SoftlanError):
    """The part asked for does not exist on this operating system."""


class RelayUnreachableError(SoftlanError):
    """No relay answered: the name does not resolve, nothing listens there, or the path is blocked."""


class TrustFault(StrEnum):
    """Why a relay's certificate was not believed."""

    WRONG_PIN = "wrong-pin"
    WRONG_NAME = "wrong-name"
    EXPIRED = "expired"
    OTHER = "other"


class TrustError(SoftlanError):
    """A relay answered, but its certificate is not the one this peer was told to trust."""

    def __init__(self, message: str, *, kind: TrustFault = TrustFault.OTHER, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.kind = kind


class RejectedError(SoftlanError):
    """The relay refused the hello or ended the session, and said why (docs/protocol.md, codes).

    From one that goes down: in how many seconds it is back, and which relay, `HOST:PORT`, takes its place.
    """

    FINAL = 4
    """The exit status where trying again does not help: the units of client and gateway stop at it."""

    def __init__(
        self,
        code: Code,
        reason: str,
        *,
        field: str | None = None,
        required_budget: int | None = None,
        back_in_s: float | None = None,
        relay: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(reason, hint=hint)
        self.code = code
        if code.retry is Retry.NO:
            self.exit_code = self.FINAL
        self.reason = reason
        self.field = field
        self.required_budget = required_budget
        self.back_in_s = back_in_s
        self.relay = relay

    @property
    def retryable(self) -> bool:
        """Whether the same hello may be accepted later without anyone changing anything."""
        return self.code.retry is Retry.LATER


class ProtocolError(SoftlanError):
    """The control protocol was broken by one of the two sides."""


class LocalProtocolError(ProtocolError):
    """Our side tried to say something the protocol does not allow: a bug here."""


class RemoteProtocolError(ProtocolError):
    """The other side sent what the protocol does not allow.

    `code` is the code to answer with, `field` the dotted path of the field at fault where one can be named.
    """

    def __init__(
        self,
        message: str,
        *,
        code: Code = Code.PROTOCOL_ERROR,
        field: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.field = field


class UnsupportedProtocolError(RemoteProtocolError):
    """The other side speaks another version of the protocol; `supported` is what is spoken here."""

    def __init__(self, offered: int, supported: tuple[int, ...]) -> None:
        spoken = ", ".join(map(str, supported))
        super().__init__(
            f"protocol: version {offered} is not spoken here, only {spoken}",
            code=Code.UNSUPPORTED_PROTOCOL,
            field="protocol",
            hint="install the same softlan version on both sides",
        )
        self.offered = offered
        self.supported = supported
