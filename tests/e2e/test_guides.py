"""The guides, followed to the letter by somebody new: clean machines, softlan from the wheel, every command as it stands on the page.

`tests/docs/blocks.py` says how blocks are annotated, `newcomer/` what the machines are. The only words that are replaced are invites
(`pin=...`), by the last one the relay printed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

HERE = Path(__file__).parent
sys.path += [str(HERE / "newcomer"), str(HERE.parent / "docs")]

import enter  # noqa: E402
import wheelhouse  # noqa: E402
from blocks import DOCS, ROOT, Block, blocks, whole_invite  # noqa: E402

from softlan.lab import Party, Program  # noqa: E402
from softlan.lab.host import Host, patch  # noqa: E402
from softlan.lab.testing import skip  # noqa: E402

PYTHON = Path(sys.base_prefix) / "bin"
MANAGER = f"{sys.executable} -I -S {HERE / 'newcomer' / 'manager.py'}"
WITHIN_S = 240.0


class Machine:
    """A clean machine: a host of the lab with directories of its own, an empty home and no softlan."""

    def __init__(self, host: Host, directory: Path, wheels: Path, hosts: str) -> None:
        self.host = host
        self.desk = host
        """Where the adapter is: another host where clients cannot have TAPs."""
        self.directory = directory
        self.path = f"/usr/local/sbin:/usr/local/bin:{PYTHON}:/usr/sbin:/usr/bin:/sbin:/bin"
        for home in ("home", "root"):
            (directory / home).mkdir(parents=True)
        shims = {name: f'#!/bin/sh\nexec {MANAGER} {name} "$@"\n' for name in ("systemctl", "journalctl")}
        shims["sudo"] = f'#!/bin/sh\nHOME={directory / "root"} exec "$@"\n'
        files = {f"/usr/local/bin/{name}": script for name, script in shims.items()}
        files["/etc/hosts"] = hosts
        for path in ("/etc/systemd/system", "/etc/dhcp", "/var/lib/dhcp"):
            if Path(path).is_dir():  # Whoever follows a page has what packages brought, and no more.
                files[f"{path}/.own"] = ""
        enter.prepare(directory, files)
        self.environment = {
            "PATH": self.path,
            "HOME": str(directory / "home"),
            "LANG": "C.UTF-8",
            "TERM": "xterm",
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(wheels),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        self.running: list[Program] = [self.program("manager", f"exec {MANAGER} serve")]

    def own_words(self, text: str) -> str:
        """Name the end of a cable where the page names an adapter, if clients cannot have any."""
        return text if self.desk is self.host else text.replace('tap = "softlan0"', 'attach = "cable0"')

    def take_over(self, other: Machine) -> None:
        """Have what was installed on another machine, as if the same commands had been typed here."""
        for path in ("opt/softlan", "usr/local/bin/softlan"):
            if not os.path.lexists(self.directory / "own" / path):
                (self.directory / "own" / path).symlink_to(other.directory / "own" / path)

    def program(self, name: str, script: str) -> Program:
        """Give a shell on this machine that runs `script`, as pasted."""
        told = [f"{key}={value}" for key, value in self.environment.items()]
        command = [
            "env",
            "-i",
            *told,
            sys.executable,
            str(HERE / "newcomer" / "enter.py"),
            str(self.directory),
        ]
        words = ["--", "bash", "-euo", "pipefail", "-c", f'cd "$HOME"\n{script}']
        # Status is told over unix sockets, which are on the desk as well.
        host = (
            self.host
            if re.search(r"\bsoftlan (?:relay|gateway|join|doctor|ping)\b|manager", script)
            else self.desk
        )
        return Program(host, name, [*command, *words])


class Newcomers:
    """The people who follow the guides, one at each machine."""

    def __init__(self, party: Party, wheels: Path) -> None:
        self.party = party
        self.wheels = wheels
        self.machines: dict[str, Machine] = {}
        self.invites = {"player": "", "gateway": ""}
        """The last ones that were printed, anywhere."""

    async def machine(self, name: str, host: Host, hosts: str) -> Machine:
        """Set a machine up."""
        made = self.machines[name] = Machine(host, self.party.directory / name, self.wheels, hosts)
        await made.running[0].start()
        await heard(made.running[0], "ready")
        return made

    async def follow(self, block: Block) -> None:
        """Do what a block says, and see that it says what it should."""
        assert block.on is not None
        machine = self.machines["relay" if block.on == "everyone" else block.on]
        own = self.invites["gateway"] if block.on == "gateway" else ""
        text = machine.own_words(whole_invite(block.text, own or self.invites["player"]))
        program = machine.program(str(block), text)
        started = time.monotonic()
        await program.start()
        if block.how == "until":
            machine.running.append(program)
            await heard(program, block.words)
        else:
            try:
                status = await program.wait(WITHIN_S)
            finally:
                program.kill()
            assert status in ((0, 1, 3) if block.graded else (0,)), (
                f"{block}:\n{block.text}{program.tail(60)}"
            )
        said = "\n".join(program.lines)
        print(f"{block} on {block.on}, {time.monotonic() - started:.1f} s\n{block.text}{program.tail(60)}")
        assert block.words in said, f"{block} does not say {block.words!r}:\n{said}"
        assert "Traceback" not in said
        if block.on == "everyone":
            for other in self.machines.values():
                other.take_over(machine)
        if re.search(r"\bsoftlan invite\b", text):
            (invite,) = re.findall(r"^softlan://\S+$", said, re.MULTILINE)
            self.invites["gateway" if "softlan gateway" in said else "player"] = invite

    async def read(self, page: Path) -> int:
        """Follow a page from its beginning to its end; gives how many blocks were followed."""
        followed = [block for block in blocks(page) if block.on]
        for block in followed:
            await self.follow(block)
        return len(followed)

    async def interrupt(self, name: str) -> None:
        """Press Ctrl-C in the last window of a machine."""
        program = self.machines[name].running.pop()
        os.killpg(program.pid, signal.SIGINT)
        assert await program.wait(10) in (0, 130), program.tail()

    async def close(self) -> None:
        """End everything that runs on the machines, also what went into the background."""
        for machine in self.machines.values():
            for program in reversed(machine.running):
                await program.stop()
            for host in (machine.host, machine.desk):
                end_all(host)


async def heard(program: Program, words: str) -> None:
    """Wait until a program has written a line with these words."""
    async with asyncio.timeout(WITHIN_S):
        while not any(words in line for line in program.lines):
            assert program.running, f"{program.name} ended early:\n{program.tail()}"
            await asyncio.sleep(0.02)


def processes(host: Host) -> Iterator[Path]:
    """Give a host's processes, by their directories in /proc."""
    own = os.stat(f"/proc/self/fd/{host.namespace.fd}").st_ino
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit() and (process / "ns/net").stat().st_ino == own:
                yield process


def names_of_processes(host: Host) -> set[str]:
    """Say what runs on a host."""
    found = set()
    for process in processes(host):
        with contextlib.suppress(OSError):
            found.add((process / "comm").read_text().strip())
    return found


def end_all(host: Host) -> None:
    """End every process of a host."""
    for process in processes(host):
        if int(process.name) != os.getpid():
            with contextlib.suppress(OSError):
                os.kill(int(process.name), signal.SIGKILL)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pip finds."""
    directory = tmp_path_factory.mktemp("wheels") / "house"
    if reason := wheelhouse.make(directory):
        skip(reason)
    return directory


@pytest_asyncio.fixture(loop_scope="session")
async def newcomers(
    empty_party: Party, wheels: Path, needs: Callable[[str], None]
) -> AsyncIterator[Newcomers]:
    """A server on the internet; a home LAN with a router, a console and a Raspberry Pi on one cable; a player elsewhere."""
    needs("dnsmasq")
    needs("dhclient")
    party = empty_party
    lan = party.add_lan("home", hosts=("router", "console"))
    router = lan.hosts["router"].host
    party.internet.plug(router, "wan", "203.0.113.200/24")
    router.setting("ipv4/ip_forward", "1")
    relay, pi, ann, server = (party.machine(name) for name in ("relay", "pi", "ann", "server"))
    relay.ip("route add 192.168.88.0/24 via 203.0.113.200")
    pi.ip("link delete wan")
    lan.switch.plug(pi, "eth0", "192.168.88.3/24")
    pi.ip("route add default via 192.168.88.1")
    hosts = f"127.0.0.1 localhost\n{address_of(relay)} party.example.org\n"
    options = ["--no-daemon", "--conf-file=/dev/null", "--port=0", "--user=root", "--group=root"]
    options += ["--interface=lan0", "--bind-interfaces", "--dhcp-authoritative", "--no-ping", "--no-resolv"]
    options += ["--dhcp-range=192.168.88.150,192.168.88.199,1h", "--dhcp-option=3,192.168.88.1"]
    options += [f"--dhcp-leasefile={party.directory / 'leases'}"]
    dnsmasq = Program(router, "dnsmasq", ["dnsmasq", *options])
    made = Newcomers(party, wheels)
    try:
        await dnsmasq.start()
        for name, host in (("relay", relay), ("gateway", pi), ("ann", ann), ("server", server)):
            await made.machine(name, host, hosts)
        for number, name in enumerate(("ann", "server") if party.attach else (), 1):
            no_taps(made.machines[name], Host(name), f"02:50:4c:00:00:{number:02x}")
        yield made
    finally:
        await made.close()
        await dnsmasq.stop()


def address_of(host: Host) -> str:
    """Give a machine's address on the internet."""
    (told,) = json.loads(host.run("ip", "-4", "-json", "address", "show", "dev", "wan"))
    return str(told["addr_info"][0]["local"])


def no_taps(machine: Machine, desk: Host, mac: str) -> None:
    """Have the client use one end of a cable whose other end is the adapter of the page."""
    machine.desk = desk
    patch(machine.host, "cable0", desk, "softlan0")
    desk.ip(f"link set softlan0 address {mac}")
    machine.host.setting("ipv6/conf/cable0/disable_ipv6", "1")
    machine.host.ip("link set cable0 arp off")
    machine.environment |= {"SOFTLAN_CLIENT_ATTACH": "cable0", "SOFTLAN_CLIENT_VIRTUAL_MAC": mac}


@pytest.mark.timeout(900)
async def test_the_guides_lead_to_a_party(newcomers: Newcomers) -> None:
    """A relay on a server, a gateway beside a router, a player with one pasted line; then what troubleshooting says."""
    for name in ("relay", "gateway", "linux"):  # Windows has tests/windows
        assert await newcomers.read(DOCS / "guides" / f"{name}.md") >= 3
    ann = newcomers.machines["ann"].desk
    assert "softlan0" not in ann.run("ip", "route", "show", "default"), (
        "the internet does not go through the party"
    )
    assert "dhclient" not in names_of_processes(ann), "what the guide starts, it ends"
    await newcomers.read(DOCS / "troubleshooting.md")
    await newcomers.read(DOCS / "doctor.md")
    await newcomers.interrupt("ann")
    if ann is newcomers.machines["ann"].host:
        assert "softlan0" not in ann.interfaces(), "the adapter is gone with the client"
    await newcomers.read(DOCS / "service.md")
    await newcomers.read(DOCS / "operations.md")


@pytest.mark.timeout(300)
async def test_the_readme_leads_to_a_party(newcomers: Newcomers) -> None:
    assert await newcomers.read(ROOT / "README.md") >= 3
