"""`softlan gateway`: options in, a running gateway out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from softlan.client.identity import default_identity_path, hold_identity
from softlan.command import PartCommand, config_option
from softlan.config import INTERFACE, SECONDS
from softlan.control.messages import Role
from softlan.gateway.gateway import Gateway, GatewayConfig, logger
from softlan.observe.frames import follow_frame_log
from softlan.parts import (
    ROOM_OPTIONS,
    SETTINGS_OPTIONS,
    Part,
    frame_log_options,
    log_options,
    reported,
    run_session_part,
    session_config,
    session_options,
    version_option,
)

__all__ = ["gateway"]


HELP_GROUPS = {
    "Which room": ROOM_OPTIONS,
    "This gateway": ("interface", "cam_refresh", "identity", "congestion"),
    "Settings and logs": SETTINGS_OPTIONS,
}


@click.command(
    cls=PartCommand, groups=HELP_GROUPS, short_help="Bring the LAN behind an interface into a room."
)
@config_option("gateway")
@session_options
@click.option(
    "--interface",
    type=INTERFACE,
    required=True,
    metavar="IF",
    help="The LAN's network interface: wired Ethernet, a bridge or a veth.",
)
@click.option(
    "--cam-refresh",
    type=SECONDS,
    default="60",
    show_default=True,
    metavar="SECONDS",
    help="Speak for a player's MAC on the LAN after so long a silence, so that switches keep it; 0 for never.",
)
@frame_log_options
@log_options
@version_option
@reported
def gateway(
    *,
    interface: str,
    cam_refresh: float,
    identity: Path | None,
    frame_log: str,
    frame_log_sample: int,
    **session: Any,
) -> None:
    """Run the gateway: bring the LAN behind an interface into a room.

    INVITE is the line you were given, softlan://..., in double quotes; the options do without it. Needs root or CAP_NET_RAW.
    """
    with hold_identity(identity or default_identity_path(Role.GATEWAY), Role.GATEWAY) as held:
        config = GatewayConfig(
            session=session_config(role=Role.GATEWAY, identity=held.identity, **session),
            interface=interface,
            cam_refresh_s=cam_refresh or None,
            frame_log=frame_log,
            frame_log_sample=frame_log_sample,
        )

        def make() -> Gateway:
            return Gateway(config)

        async def follow(part: Part) -> None:
            if frame_log != "off" and isinstance(part, Gateway):
                await follow_frame_log(logger, part.frame_log, has_rooms=False)

        run_session_part("gateway", make, follow)
