"""What a player's network adapter is to the client: something that carries frames, has a name and takes an MTU."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    if sys.platform == "win32":
        from softlan._core import WindowsTap

        Device: TypeAlias = WindowsTap
    else:
        from softlan._core import PacketSocket, TapDevice

        Device: TypeAlias = TapDevice | PacketSocket

__all__ = ["Adapter"]


class Adapter(Protocol):
    """An adapter that is up. Everything it changed on the machine is undone by `close`."""

    @property
    def name(self) -> str:
        """The interface's name, as the system shows it."""

    @property
    def device(self) -> Device:
        """What a bridge takes."""

    @property
    def next_step(self) -> str | None:
        """What is left for the player to do once it is there, None if nothing."""

    def set_mtu(self, mtu: int) -> None:
        """Change the IP MTU, in bytes, of an adapter in use."""

    def relay_moved(self, relay: str) -> None:
        """Take note of the relay's address, `IP:PORT`, each time the room is entered again."""

    def close(self) -> None:
        """Give the machine back as it was; closing twice does no harm."""
