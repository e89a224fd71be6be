"""`softlan client`: options in, a player in a room out."""

from __future__ import annotations

import _thread
import asyncio
import copy
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from softlan._core import Mac
from softlan.client.adapter import Adapter
from softlan.client.client import Client, ClientConfig, logger
from softlan.client.identity import Identity, default_identity_path, hold_identity
from softlan.client.windows_options import WindowsChoices, run_self_test, windows_options
from softlan.command import INVITE_ARGUMENT, PartCommand, config_option
from softlan.config import INTERFACE, VIRTUAL_MAC
from softlan.control.messages import Role
from softlan.errors import ConfigError, UnsupportedPlatformError
from softlan.observe.frames import follow_frame_log
from softlan.parts import (
    ROOM_OPTIONS,
    SETTINGS_OPTIONS,
    Part,
    frame_log_options,
    player_log_options,
    reported,
    run_session_part,
    session_config,
    session_options,
    version_option,
)
from softlan.windows.console import graceful_end
from softlan.windows.mac_policy import MacPolicy

__all__ = ["client", "join", "make_join"]

_SELF_TEST = "softlan.client.self-test"


HELP_GROUPS = {
    "Which room": ROOM_OPTIONS,
    "This player": ("identity", "virtual_mac", "tap", "attach", "congestion"),
    "Windows": (*(field.name for field in fields(WindowsChoices)), "self_test"),
    "Settings and logs": SETTINGS_OPTIONS,
}


class _ClientCommand(PartCommand):
    """`--self-test` stands alone; everything else needs to know relay and room."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Note whether the self-test is asked for before options are missed."""
        ctx.meta[_SELF_TEST] = "--self-test" in args
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Require nothing for the self-test."""
        parameters = super().get_params(ctx)
        if not ctx.meta.get(_SELF_TEST):
            return parameters
        parameters = [copy.copy(parameter) for parameter in parameters]
        for parameter in parameters:
            parameter.required = False
        return parameters


@click.command(cls=_ClientCommand, groups=HELP_GROUPS, short_help="Be a player in a room, said by options.")
@config_option("client")
@session_options
@click.option(
    "--virtual-mac", type=VIRTUAL_MAC, metavar="MAC", help="The MAC to play with, in place of the identity's."
)
@click.option(
    "--tap",
    type=INTERFACE,
    metavar="NAME",
    help="Linux: the name of the virtual adapter; softlan0, softlan1, ... if not given.",
)
@click.option(
    "--attach",
    type=INTERFACE,
    metavar="IF",
    help="Linux: use an existing interface in place of a virtual adapter, for containers without /dev/net/tun.",
)
@windows_options
@click.option(
    "--self-test",
    is_flag=True,
    help="Windows: try everything softlan changes on this machine, put it back, and say what works; no relay needed.",
)
@frame_log_options
@player_log_options
@version_option
@reported
def client(
    *,
    tap: str | None,
    attach: str | None,
    windows: WindowsChoices,
    self_test: bool = False,
    virtual_mac: Mac | None,
    identity: Path | None,
    frame_log: str,
    frame_log_sample: int,
    **session: Any,
) -> None:
    """Be a player: this machine gets a network adapter that is on the party's Ethernet.

    INVITE is the line you were given, softlan://..., in double quotes; the options do without it. Needs root or CAP_NET_ADMIN; on
    Windows administrator rights and a TAP-Windows6 adapter.
    """
    if self_test:
        sys.exit(run_self_test(windows))
    if tap is not None and attach is not None:
        raise ConfigError(
            "--tap and --attach exclude each other",
            hint="--tap makes an adapter, --attach uses one that is there",
        )
    _refuse_other_systems(tap, attach, windows)
    with ExitStack() as stack:
        held = stack.enter_context(
            hold_identity(
                identity or default_identity_path(Role.CLIENT), Role.CLIENT, virtual_mac=virtual_mac
            )
        )
        mac = held.identity.mac
        assert mac is not None
        ending = _Ending()
        stack.enter_context(graceful_end(ending.stop))
        mac, make_adapter = stack.enter_context(_adapters(tap, attach, windows, mac))
        config = ClientConfig(
            session=session_config(role=Role.CLIENT, identity=Identity(mac, held.identity.secret), **session),
            make_adapter=make_adapter,
            frame_log=frame_log,
            frame_log_sample=frame_log_sample,
        )

        def make() -> Client:
            return ending.watch(Client(config))

        async def follow(part: Part) -> None:
            if frame_log != "off" and isinstance(part, Client):
                await follow_frame_log(logger, part.frame_log, has_rooms=False)

        run_session_part("client", make, follow)


def make_join(platform: str) -> click.Command:
    """Make `softlan join`, which is `softlan client` with an invite.

    On Windows it plays with the adapter's MAC: one pasted line is to be enough, and a new adapter has a MAC that the identity cannot know.
    """
    options = [copy.copy(o) for o in client.params if o.name not in ("link", "self_test")]
    for option in options:
        if isinstance(option, click.Option) and option.name == "invite":
            # It is there for the file that `softlan client` reads too, which may hold one.
            option.hidden = True
    if platform == "win32":
        next(o for o in options if o.name == "mac_policy").default = MacPolicy.ADOPT.value
    return PartCommand(
        "join",
        callback=client.callback,
        params=[INVITE_ARGUMENT, *options],
        help="""Join a party: INVITE is the line you were given, softlan://..., in double quotes.

        This machine gets a network adapter that is on the party's Ethernet, until Ctrl-C. Needs root or CAP_NET_ADMIN; on Windows
        administrator rights and a TAP-Windows6 adapter. Options count more than what the invite says.
        """,
        short_help="Join a party by its invite.",
        groups={
            **{title: names for title, names in HELP_GROUPS.items() if names is not ROOM_OPTIONS},
            "In place of what the invite says": ROOM_OPTIONS,
        },
        context_settings={"auto_envvar_prefix": "SOFTLAN_CLIENT"},
    )


class _Ending:
    """Ends the client from another thread, as Windows' console does."""

    def __init__(self) -> None:
        self._client: Client | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def watch(self, client: Client) -> Client:
        """Take note of the client to end; called on its event loop."""
        self._client, self._loop = client, asyncio.get_running_loop()
        return client

    def stop(self) -> None:
        """End the client; before there is one, interrupt whatever is being prepared."""
        if self._client is None or self._loop is None:
            _thread.interrupt_main()
            return
        with suppress(RuntimeError):  # The loop has ended already.
            self._loop.call_soon_threadsafe(self._client.stop)


def _refuse_other_systems(tap: str | None, attach: str | None, windows: WindowsChoices) -> None:
    """Raise UnsupportedPlatformError for an option this system has no use for, or a system there is no adapter for."""
    if sys.platform == "win32":
        for name, value in (("--tap", tap), ("--attach", attach)):
            if value is not None:
                raise UnsupportedPlatformError(
                    f"{name} works on Linux only", hint="on Windows, choose with --adapter"
                )
    elif sys.platform == "linux":
        windows.refuse()
    else:
        raise UnsupportedPlatformError(f"softlan has no network adapter for {sys.platform} yet")


@contextmanager
def _adapters(
    tap: str | None, attach: str | None, windows: WindowsChoices, mac: Mac
) -> Iterator[tuple[Mac, Callable[[int, str], Adapter]]]:
    """Give the MAC to play with, and what makes the adapter once the room is entered.

    Whether that can be made is found out first: once the room is entered, an invite for a single use is this identity's, and who comes
    back as root has another. See `prepare` and `try_adapter` for what it raises.
    """
    if sys.platform == "win32":
        from softlan.client.windows import prepare

        with prepare(windows.options(), mac) as prepared:
            yield prepared.mac, prepared.make
    else:
        from softlan.client.linux import AttachedAdapter, TapAdapter, try_adapter

        try_adapter(tap, attach, mac)

        def make(mtu: int, _relay: str) -> Adapter:
            return AttachedAdapter(attach) if attach is not None else TapAdapter(tap, mac, mtu)

        yield mac, make


join = make_join(sys.platform)
