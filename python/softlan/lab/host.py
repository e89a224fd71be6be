"""Machines of the lab: hosts (a namespace each), switches (a bridge in one of its own), stations (a host on a network).

    internet = Switch()
    relay, ann = Host("relay"), Host("ann")
    internet.plug(relay, "wan", "203.0.113.1/24")
    internet.plug(ann, "wan", "203.0.113.11/24")

Cables are veth pairs with the kernel's own offloads (on) and an MTU of 1500, as a fresh machine has them.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from .namespaces import LabError, Namespace

T = TypeVar("T")

_serial = itertools.count(1)


class Host:
    """A machine: a network namespace with a name for people to read."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.namespace = Namespace()

    def __repr__(self) -> str:
        return f"Host({self.name!r})"

    def socket(
        self,
        family: socket.AddressFamily = socket.AF_INET,
        kind: socket.SocketKind = socket.SOCK_DGRAM,
        protocol: int = 0,
    ) -> socket.socket:
        """Give a non-blocking socket on this machine, usable from any thread and asyncio loop."""

        def make() -> socket.socket:
            made = socket.socket(family, kind, protocol)
            made.setblocking(False)
            return made

        return self.namespace.call(make)

    def call(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread on this machine."""
        return self.namespace.call(work)

    def run(self, *command: str, check: bool = True, timeout: float = 20.0) -> str:
        """Run a short command on this machine and gives its output; `LabError` when it fails."""
        return self.namespace.run(command, check=check, timeout=timeout)

    def ip(self, *commands: str) -> None:
        """Run `ip` commands on this machine."""
        self.namespace.ip(*commands)

    def setting(self, path: str, value: str) -> None:
        """Write a network sysctl, by its path below /proc/sys/net ("ipv6/conf/lan0/disable_ipv6")."""
        setting(self.namespace, path, value)

    def address_of(self, interface: str) -> str:
        """Give the first IPv4 address of an interface."""
        return self.run("ip", "-4", "-o", "addr", "show", "dev", interface).split()[3].partition("/")[0]

    def interfaces(self) -> list[str]:
        """Give the names of this machine's interfaces."""
        return self.call(lambda: [name for _, name in socket.if_nameindex()])

    def close(self) -> None:
        """Switches the machine off."""
        self.namespace.close()


@dataclass
class Station:
    """A machine's place on an Ethernet: which interface, with which MAC and IPv4 address."""

    host: Host
    interface: str
    mac: bytes
    address: str = ""
    """IPv4 address without prefix length; empty until it has one."""
    route_mtu: int | None = None
    """IP MTU for what this station sends, where it differs from the interface's own."""

    @property
    def name(self) -> str:
        """What people call the machine."""
        return self.host.name

    def set_address(self, cidr: str) -> None:
        """Give the interface this IPv4 address ("192.168.88.20/24") in place of any other it had."""
        address, _, prefix = cidr.partition("/")
        self.host.ip(f"addr flush dev {self.interface} scope global")
        broadcast = f"broadcast + dev {self.interface}"
        if self.route_mtu is None:
            self.host.ip(f"addr add {cidr} {broadcast}")
        else:
            whole = _network(address, int(prefix))
            self.host.ip(
                f"addr add {cidr} {broadcast} noprefixroute",
                f"route replace {whole} dev {self.interface} src {address} mtu {self.route_mtu}",
            )
        self.address = address


class Switch:
    """An Ethernet switch: a bridge in a namespace of its own. It runs no spanning tree and snoops no multicast."""

    def __init__(self) -> None:
        self.namespace = Namespace()
        self._ports = itertools.count(1)
        # A switch passes frames on and says nothing itself: no IPv6 address, no router solicitation.
        setting(self.namespace, "ipv6/conf/default/disable_ipv6", "1")
        self.namespace.ip(
            "link add name switch type bridge mcast_snooping 0 forward_delay 0",
            "link set switch up",
        )

    def plug(self, host: Host, interface: str, cidr: str = "", *, mac: str = "", mtu: int = 1500) -> Station:
        """Run a cable to `host`, whose end is named `interface`, and gives it an address if one is told."""
        port = f"port{next(self._ports)}"
        near = f"sl{os.getpid() % 100_000}n{next(_serial)}"
        self.namespace.ip(
            f"link add name {port} mtu {mtu} type veth peer name {near} mtu {mtu}",
            f"link set {port} master switch up",
            f"link set {near} netns {host.namespace.path}",
        )
        host.ip(
            f"link set {near} name {interface}",
            *([f"link set {interface} address {mac}"] if mac else []),
            f"link set {interface} up",
        )
        station = Station(host, interface, mac_of(host, interface))
        if cidr:
            station.set_address(cidr)
        return station

    def close(self) -> None:
        """Take the switch and all its cables away."""
        self.namespace.close()


def patch(near: Host, near_name: str, far: Host, far_name: str, *, mtu: int = 1500) -> None:
    """Run one cable between two machines, without a switch; both ends come up without any address."""
    first, second = (f"sl{os.getpid() % 100_000}n{next(_serial)}" for _ in range(2))
    near.ip(
        f"link add name {first} mtu {mtu} type veth peer name {second} mtu {mtu}",
        f"link set {second} netns {far.namespace.path}",
        f"link set {first} name {near_name}",
        f"link set {near_name} up",
    )
    far.ip(f"link set {second} name {far_name}", f"link set {far_name} up")


def mac_of(host: Host, interface: str) -> bytes:
    """Give the 6 bytes of an interface's MAC. Raises `LabError` when the machine has no such interface."""

    def read() -> bytes:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as probe:
            probe.bind((interface, 0))
            name = probe.getsockname()
        hardware = name[4]
        return bytes(hardware)

    try:
        return host.call(read)
    except OSError as failure:
        raise LabError(f"{host.name} has no interface {interface}: {failure.strerror}") from None


def promiscuity(host: Host, interface: str) -> int:
    """How many on this machine keep the interface promiscuous (`ip -d link`)."""
    words: Sequence[str] = host.run("ip", "-d", "link", "show", "dev", interface).split()
    return int(words[words.index("promiscuity") + 1])


def setting(namespace: Namespace, path: str, value: str) -> None:
    """Write a network sysctl in a namespace; one this kernel does not have (no IPv6) is left alone."""

    def write() -> None:
        with contextlib.suppress(FileNotFoundError):
            Path("/proc/sys/net", path).write_text(value, encoding="ascii")

    namespace.call(write)


def _network(address: str, prefix: int) -> str:
    bits = int.from_bytes(socket.inet_aton(address), "big")
    mask = (0xFFFF_FFFF << (32 - prefix)) & 0xFFFF_FFFF
    return f"{socket.inet_ntoa((bits & mask).to_bytes(4, 'big'))}/{prefix}"
