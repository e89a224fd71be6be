"""Everything softlan is measured beside, each behind one small class of the same shape (`system.System`)."""

from __future__ import annotations

from .bare_udp import BareUdp, BareUdpOffloads
from .fastd import Fastd
from .kernel_bridge import KernelBridge, KernelBridgePlain
from .n2n import N2n
from .openvpn import OpenVpn
from .site import Line, Site
from .softlan import Softlan
from .system import System
from .tinc import Tinc

SYSTEMS: tuple[System, ...] = (
    Softlan(),
    OpenVpn(),
    Tinc(),
    Fastd(),
    N2n(),
    BareUdp(),
    BareUdpOffloads(),
    KernelBridgePlain(),
    KernelBridge(),
)

__all__ = ["SYSTEMS", "Line", "Site", "System"]
