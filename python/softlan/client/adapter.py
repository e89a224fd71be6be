"""What a player's network adapter is to the client: something that carries frames, has a name and takes an MTU."""

from __future__ import annotations

from typing import Protocol

from softlan._core import PacketSocket, TapDevice

__all__ = ["Adapter"]


class Adapter(Protocol):
    """An adapter that is up. Everything it changed on the machine is undone by `close`."""

    @property
    def name(self) -> str:
        """The interface's name, as the system shows it."""

    @property
    def device(self) -> TapDevice | PacketSocket:
        """What a bridge takes."""

    def set_mtu(self, mtu: int) -> None:
        """Change the IP MTU, in bytes, of an adapter in use."""

    def close(self) -> None:
        """Give the machine back as it was; closing twice does no harm."""
