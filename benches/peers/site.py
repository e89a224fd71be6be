"""The place a system is measured at: an internet, a LAN with one host, and machines for relay, gateway and client.

Client and gateway reach the relay and not each other, as behind two NATs: every system has to relay. A bad line, where
one is asked for, is the client's only cable to the internet.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from types import TracebackType
from typing import Self

from softlan.lab import LabError, Party, Player, Program, probes
from softlan.lab.host import Host, Switch
from softlan.lab.party import ADAPTER

from .yardsticks import YARDSTICKS, until_said

CLIENT_ADDRESS = "192.168.88.51"
CLIENT_MAC = "02:50:4c:00:00:51"
LAN_TAP = "tap0"
"""The name of a gateway's end of a tunnel that is bridged with its LAN."""
_serial = itertools.count(1)


class Site:
    """The machines; an asynchronous context manager that takes everything away in the end, programs included."""

    def __init__(self, line: Line | None = None, seed: int = 7) -> None:
        self.line = line
        self.seed = seed
        self.party = Party()
        self.lan = self.party.add_lan("home", hosts=("server",))
        self.server = self.lan.hosts["server"]
        self.directory = self.party.directory
        self._programs: list[Program] = []
        self._line_program: Program | None = None
        self._hosts: list[Host] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: object, trace: TracebackType | None
    ) -> None:
        for program in reversed(self._programs):
            await program.stop()
        await self.party.close()
        for host in self._hosts:
            host.close()

    def own(self, host: Host) -> None:
        """Take a machine along that is not on the internet; it ends with the site."""
        self._hosts.append(host)

    async def program(self, host: Host | Switch, name: str, *command: str) -> Program:
        """Start a program that ends with the site."""
        made = Program(host, name, list(command))  # type: ignore[arg-type]
        self._programs.append(made)
        await made.start()
        return made

    def gateway(self) -> Host:
        """Add the gateway's machine, with a cable to the LAN."""
        host = self.party.machine("gateway")
        self.lan.switch.plug(host, ADAPTER)
        return host

    def bridge(self, host: Host) -> None:
        """Bridge a gateway's end of the tunnel with its LAN."""
        host.setting("ipv6/conf/default/disable_ipv6", "1")
        host.ip(
            "link add name br0 type bridge mcast_snooping 0 forward_delay 0",
            f"link set {LAN_TAP} master br0 up",
            f"link set {ADAPTER} master br0 up",
            "link set br0 up",
        )

    async def lay_line(self, host: Host) -> None:
        """Put the bad line, if there is one, in place of a machine's cable to the internet."""
        if self.line is None:
            return
        address = wan_address(host)
        host.ip("link del wan")
        near = await self.run_line(self.party.internet)
        self.party.internet.namespace.ip(f"link set {near} netns {host.namespace.path}")
        host.ip(f"link set {near} name wan", "link set wan up", f"addr add {address}/24 dev wan")

    async def run_line(self, switch: Switch) -> str:
        """Start the bad line with its far end in a switch, and give the name of the near one."""
        if self.line is None:
            raise LabError("the site has no bad line")
        number = f"{os.getpid() % 100_000}n{next(_serial)}"
        near, far = f"sn{number}", f"sf{number}"
        command = [str(YARDSTICKS), "line", near, far, str(self.seed), *self.line.arguments()]
        self._line_program = await self.program(switch, "line", *command)
        await until_said(self._line_program)
        switch.namespace.ip(
            f"link set {far} mtu 1500 txqueuelen 10000 master switch up",
            f"link set {near} mtu 1500 txqueuelen 10000",
        )
        return near

    def carried(self) -> tuple[float, int, int]:
        """Tell what the bad line had carried lately: at which of its seconds, IP bytes up, IP bytes down."""
        told = self._line_program.lines[-1].split() if self._line_program is not None else []
        if len(told) < 4 or told[0] != "carried":
            return 0.0, 0, 0
        return float(told[1]), int(told[2]), int(told[3])

    def isolate(self) -> None:
        """Let all machines on the internet reach the first one, the relay, and no other."""
        told = self.party.internet.namespace.run(["ip", "-o", "link", "show", "master", "switch"])
        names = [line.split()[1].partition("@")[0].rstrip(":") for line in told.splitlines()]
        for name in names:
            if name != "port1":
                self.party.internet.namespace.ip(f"link set {name} type bridge_slave isolated on")

    async def reached(self, client: Player, within: float = 25.0) -> None:
        """Wait until the client reaches the LAN's host. Raises `LabError` with all logs when it does not."""
        if await probes.first_reply(client.station, self.server.address, within) is None:
            raise LabError(f"no way to the LAN within {within:g} s; the logs:\n{self.logs()}")

    async def appeared(self, host: Host, interface: str, within: float = 10.0) -> None:
        """Wait until a machine has an interface. Raises `LabError` with all logs when it does not come."""
        deadline = time.monotonic() + within
        while interface not in host.interfaces():
            if time.monotonic() > deadline:
                raise LabError(f"{host.name} got no interface {interface}; the logs:\n{self.logs()}")
            await asyncio.sleep(0.05)

    def logs(self, count: int = 15) -> str:
        """Give the last lines of every program's log."""
        return "\n".join([*(program.tail(count) for program in self._programs), self.party.logs(count)])


class Line:
    """What a bad line does, the same both ways: bits a second, seconds of round trip, bytes of buffer, loss."""

    def __init__(self, name: str, *, rate: float, rtt: float, buffer: int, loss: float = 0.0) -> None:
        self.name = name
        self.rate = rate
        self.rtt = rtt
        self.buffer = buffer
        self.loss = loss

    def arguments(self) -> list[str]:
        """Give the shape as the yardsticks' command line wants it."""
        return [f"{self.rate:.0f}", f"{self.rtt / 2 * 1e6:.0f}", f"{self.buffer}", f"{self.loss}"]


def wan_address(host: Host) -> str:
    """Give a machine's IPv4 address on the internet."""
    return host.address_of("wan")
