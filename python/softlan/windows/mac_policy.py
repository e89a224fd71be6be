"""What to do when the adapter's MAC is not the MAC of the player's identity (row X5). Pure.

The relay takes frames only from the MAC a client said hello with, and TAP-Windows6 sends with its own: the two must be one before
anything is bridged.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from softlan._core import Mac
from softlan.errors import ConfigError, InterfaceError

__all__ = ["MacDecision", "MacPolicy", "check_configurable", "decide_mac"]


class MacPolicy(StrEnum):
    """What `--mac-policy` takes."""

    STRICT = "strict"
    """Stop if they differ."""
    ADOPT = "adopt"
    """Play with the adapter's MAC."""
    CONFIGURE = "configure"
    """Give the identity's MAC to the adapter."""


@dataclass(frozen=True, slots=True)
class MacDecision:
    """The MAC to say hello with, and whether the adapter must be given it first."""

    mac: Mac
    configure: bool = False


def decide_mac(policy: MacPolicy, identity: Mac, adapter: Mac) -> MacDecision:
    """Settle which MAC is played with.

    Raises:
        InterfaceError: strict, and they differ; or adopt, and the adapter's MAC is none a client may have.
        ConfigError: configure, and the identity's MAC is one the driver does not take.

    """
    if identity == adapter:
        return MacDecision(identity)
    match policy:
        case MacPolicy.STRICT:
            raise InterfaceError(
                f"the adapter's MAC is {adapter}, but this player's identity is {identity}",
                hint="let --mac-policy adopt play with the adapter's MAC,"
                " or --mac-policy configure give the identity's to the adapter",
            )
        case MacPolicy.ADOPT:
            try:
                adapter.check_client_identity()
            except ValueError as error:
                raise InterfaceError(
                    f"the adapter's MAC {adapter} cannot be a player's: {error}",
                    hint="--mac-policy configure gives it another",
                ) from error
            return MacDecision(adapter)
        case MacPolicy.CONFIGURE:
            check_configurable(identity)
            return MacDecision(identity, configure=True)


def check_configurable(mac: Mac) -> None:
    """Raise ConfigError for a MAC that TAP-Windows6 silently ignores: a group address, or one not locally administered."""
    if mac.is_group or not mac.is_locally_administered:
        raise ConfigError(
            f"the driver does not take the MAC {mac}: it must be a unicast and locally administered address",
            hint="the second hex digit must be 2, 6, a or e; choose such a one with --virtual-mac,"
            " or use --mac-policy adopt",
        )
