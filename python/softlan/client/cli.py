"""`softlan client`: options in, a player in a room out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from softlan._core import Mac
from softlan.client.adapter import Adapter
from softlan.client.client import Client, ClientConfig, logger
from softlan.client.identity import default_identity_path, hold_identity
from softlan.config import VIRTUAL_MAC
from softlan.control.messages import Role
from softlan.errors import ConfigError, UnsupportedPlatformError
from softlan.observe.frames import follow_frame_log
from softlan.parts import (
    Part,
    frame_log_options,
    log_options,
    reported,
    run_session_part,
    session_config,
    session_options,
    version_option,
)

__all__ = ["client"]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@session_options
@click.option(
    "--tap", metavar="NAME", help="The name of the virtual adapter; softlan0, softlan1, ... if not given."
)
@click.option(
    "--attach",
    metavar="IF",
    help="Use an existing interface in place of a virtual adapter, for containers without /dev/net/tun.",
)
@click.option(
    "--virtual-mac", type=VIRTUAL_MAC, metavar="MAC", help="The MAC to play with, in place of the identity's."
)
@frame_log_options
@log_options
@version_option
@reported
def client(
    *,
    tap: str | None,
    attach: str | None,
    virtual_mac: Mac | None,
    identity: Path | None,
    frame_log: str,
    frame_log_sample: int,
    **session: Any,
) -> None:
    """Join a room: this machine gets a network adapter that is on the party's Ethernet. Needs root or CAP_NET_ADMIN."""
    if tap is not None and attach is not None:
        raise ConfigError(
            "--tap and --attach exclude each other",
            hint="--tap makes an adapter, --attach uses one that is there",
        )
    with hold_identity(
        identity or default_identity_path(Role.CLIENT), Role.CLIENT, virtual_mac=virtual_mac
    ) as held:
        mac = held.identity.mac
        assert mac is not None

        def make_adapter(mtu: int) -> Adapter:
            return _make_adapter(tap, attach, mac, mtu)

        config = ClientConfig(
            session=session_config(role=Role.CLIENT, identity=held.identity, **session),
            make_adapter=make_adapter,
            frame_log=frame_log,
            frame_log_sample=frame_log_sample,
        )

        def make() -> Client:
            return Client(config)

        async def follow(part: Part) -> None:
            if frame_log != "off" and isinstance(part, Client):
                await follow_frame_log(logger, part.frame_log, has_rooms=False)

        run_session_part("client", make, follow)


def _make_adapter(tap: str | None, attach: str | None, mac: Mac, mtu: int) -> Adapter:
    if sys.platform != "linux":
        raise UnsupportedPlatformError(f"softlan has no network adapter for {sys.platform} yet")
    from softlan.client.linux import AttachedAdapter, TapAdapter

    if attach is not None:
        return AttachedAdapter(attach)
    return TapAdapter(tap, mac, mtu)
