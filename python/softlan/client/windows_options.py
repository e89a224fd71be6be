"""The client's options for Windows: in every `--help`, refused where there is no Windows."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

import click

from softlan.errors import UnsupportedPlatformError
from softlan.options import grouped
from softlan.windows.mac_policy import MacPolicy

if TYPE_CHECKING:
    from softlan.client.windows import WindowsOptions

__all__ = ["WindowsChoices", "run_self_test", "windows_options"]

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowsChoices:
    """The options as given; None or False: not given."""

    adapter: str | None
    mac_policy: str | None
    allow_default_route: bool
    lowest_metric: bool
    broadcast_routes: bool
    private_network: bool
    game_mode: bool

    def options(self) -> WindowsOptions:
        """Put them together; `--game-mode` is all the switches for games."""
        from softlan.client.windows import WindowsOptions

        return WindowsOptions(
            adapter=self.adapter,
            mac_policy=MacPolicy(self.mac_policy or MacPolicy.STRICT),
            allow_default_route=self.allow_default_route,
            lowest_metric=self.lowest_metric or self.game_mode,
            broadcast_routes=self.broadcast_routes or self.game_mode,
            private_network=self.private_network or self.game_mode,
        )

    def refuse(self) -> None:
        """Raise UnsupportedPlatformError if any was given: this is no Windows."""
        given = [field.name for field in fields(self) if getattr(self, field.name)]
        if given:
            raise UnsupportedPlatformError(
                f"--{given[0].replace('_', '-')} works on Windows only; this is {sys.platform}",
                hint="leave it out: on Linux the adapter is softlan's own, with the player's MAC",
            )


windows_options = grouped(
    WindowsChoices,
    "windows",
    click.option(
        "--adapter",
        metavar="NAME",
        help="Windows: the TAP-Windows6 adapter, by name or GUID; the only one there is, or the one called softlan,"
        " if not given.",
    ),
    click.option(
        "--mac-policy",
        type=click.Choice([policy.value for policy in MacPolicy]),
        help="Windows, when the adapter's MAC is not the identity's: strict stops (the default), adopt plays with the"
        " adapter's (the default of join), configure gives the adapter the identity's.",
    ),
    click.option(
        "--allow-default-route",
        is_flag=True,
        help="Windows: let a router on the LAN carry this machine's internet traffic.",
    ),
    click.option(
        "--lowest-metric",
        is_flag=True,
        help="Windows, for games: prefer the adapter, so that a game's broadcasts go there.",
    ),
    click.option(
        "--broadcast-routes",
        is_flag=True,
        help="Windows, for games: routes for 255.255.255.255 and 224.0.0.0/4 through the adapter.",
    ),
    click.option(
        "--private-network",
        is_flag=True,
        help="Windows, for games: make the party's network private, so that the firewall lets players in.",
    ),
    click.option(
        "--game-mode", is_flag=True, help="Windows: all three of the above. All are put back in the end."
    ),
)


def run_self_test(windows: WindowsChoices) -> int:
    """Run the self-test; gives the exit status. Raises UnsupportedPlatformError where there is no Windows."""
    if sys.platform != "win32":
        raise UnsupportedPlatformError(
            f"--self-test tries out Windows' adapters and routes; this is {sys.platform}",
            hint="`softlan demo` tries out everything on Linux",
        )
    from softlan.windows.selftest import self_test

    return self_test(windows.adapter)
