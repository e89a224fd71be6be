"""A LAN party on one machine: relay, gateways, clients and LANs in network namespaces, run as the real programs.

    async with Party() as party:
        lan = party.add_lan("home", hosts=("router", "server"))
        await party.start_relay()
        await party.start_gateway("gateway", lan)
        ann = await party.start_client("ann")
        await ann.lease()
        print(await ann.ping(party.player("server")))

The internet is 203.0.113.0/24 (TEST-NET-3, RFC 5737) and 2001:db8:5050::/64 (RFC 3849), the LANs are 192.168.88.0/24.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from .host import Host, Station, Switch, patch
from .namespaces import LabError
from .packets import mac_bytes
from .players import Player
from .programs import Program

RELAY_ADDRESS: Final = "203.0.113.1"
RELAY_ADDRESS_V6: Final = "2001:db8:5050::1"
RELAY_PORT: Final = 443
SERVER_NAME: Final = "lanparty-relay.local"
ROOM: Final = "PARTY1"
ADAPTER: Final = "lan0"
"""The name of the interface players play on, and of a gateway's interface to its LAN."""


def tap_allowed() -> bool:
    """Tell whether this user may open /dev/net/tun; without it clients attach to one end of a cable instead."""
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True


class Part:
    """One running softlan program: its log, its status, its counters."""

    def __init__(self, party: Party, host: Host, name: str, module: str, options: Sequence[str]) -> None:
        self.name = name
        self.host = host
        self.directory = party.directory / name
        self.directory.mkdir(mode=0o700)
        # Every part has a place of its own for its status socket, so that `softlan status` finds it alone.
        self.environment = {"SOFTLAN_RUNTIME_DIR": str(self.directory), "PYTHONUNBUFFERED": "1"}
        # The settings of this machine's own parts are none of the party's.
        self.environment |= {f"SOFTLAN_{p}_CONFIG": os.devnull for p in ("RELAY", "GATEWAY", "CLIENT")}
        command = [sys.executable, "-m", *module.split(), "--log-format", "json", *options]
        self.program = Program(host, name, command, self.environment)

    async def status(self) -> Mapping[str, Any]:
        """Ask the part itself how it is, at the socket `softlan status` asks. Raises `LabError` without an answer."""
        told: Mapping[str, Any] = (await self._talk("status"))["status"]
        return told

    async def status_socket(self) -> Path:
        """Find the socket at which the process that runs now answers, waited for."""
        return await self._socket("status")

    async def capture_socket(self) -> Path:
        """Find the socket at which it hands over frames, waited for."""
        return await self._socket("capture")

    async def _socket(self, kind: str) -> Path:
        while True:
            # Named after the process: one that was killed leaves its own behind.
            if found := list(self.directory.glob(f"*-{self.program.pid}.{kind}")):
                return found[0]
            await asyncio.sleep(0.02)

    async def _talk(self, kind: str, words: bytes = b"") -> Mapping[str, Any]:
        try:
            async with asyncio.timeout(5):
                reader, writer = await asyncio.open_unix_connection(await self._socket(kind))
                writer.write(words)
                told: Mapping[str, Any] = json.loads(await reader.read())
                writer.close()
        except (OSError, ValueError) as failure:
            raise LabError(
                f"{self.name} does not answer at its {kind} socket ({failure}); its log:\n{self.program.tail()}"
            ) from None
        return told

    async def counters(self) -> dict[str, int]:
        """Read its tunnel counters by name (`frames_received`, ..., `drop_<reason>`)."""
        return _counters(await self.status())

    async def stop(self) -> int | None:
        """End it as a user would (SIGTERM) and give its exit status."""
        return await self.program.stop()


class Relay(Part):
    """The relay, with the certificate it made for itself."""

    @property
    def certificate(self) -> Path:
        """The DER file of its development certificate."""
        return self.directory / "relay-cert.der"

    @property
    def certificate_state(self) -> Path:
        """The PEM file in which it keeps that certificate and its key."""
        return self.directory / "certificate.state"

    async def start(self, within: float = 15.0) -> None:
        """Start it and wait, `within` seconds, until it listens."""
        since = self.program.mark()
        await self.program.start()
        await self.program.event("relay.listening", within, since=since)

    async def admin(self, *words: str) -> Mapping[str, Any]:
        """Run `softlan admin` on it and give its answer. Raises `LabError` when it fails."""
        command = [sys.executable, "-m", "softlan", "admin", "--json", *words]
        process = await asyncio.create_subprocess_exec(
            *command,
            env={**os.environ, **self.environment},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        said, problem = await process.communicate()
        if process.returncode:
            raise LabError(f"softlan admin {' '.join(words)}: {problem.decode()}")
        told: Mapping[str, Any] = json.loads(said)
        return told

    async def ask(self, what: str, **fields: object) -> Mapping[str, Any]:
        """Ask at its operator's socket, as `softlan admin` does. Raises `LabError` when it refuses."""
        told = await self._talk("admin", json.dumps({"ask": what, **fields}).encode() + b"\n")
        if "done" not in told:
            raise LabError(f"{self.name} does not {what}: {told}")
        done: Mapping[str, Any] = told["done"]
        return done

    async def peers(self) -> list[Mapping[str, Any]]:
        """Ask it for the peers of all rooms: `peer_id`, `role`, `mac`, `address`, `counters`, and their `room`."""
        rooms = (await self.status())["rooms"]
        return [{**peer, "room": room["code"]} for room in rooms for peer in room["peers"]]

    async def peer_counters(self, peer_id: int) -> dict[str, int]:
        """Read what it counted of one peer."""
        for peer in await self.peers():
            if peer["peer_id"] == peer_id:
                return _counters(peer)
        raise LabError(f"the relay knows no peer {peer_id}")

    async def peer_counters_in(self, room: str, peer_id: int) -> dict[str, int]:
        """Read what it counted of one peer of one room."""
        for peer in await self.peers():
            if (peer["room"], peer["peer_id"]) == (room, peer_id):
                return _counters(peer)
        raise LabError(f"the relay knows no peer {peer_id} in {room}")

    async def counters(self) -> dict[str, int]:
        """Add up what it counted of all peers."""
        total: dict[str, int] = {}
        for peer in await self.peers():
            for name, value in _counters(peer).items():
                total[name] = total.get(name, 0) + value
        return total

    async def restart(self) -> None:
        """Start it again after it ended or was killed."""
        await self.program.stop()
        await self.start()


class Gateway(Part):
    """A gateway, with one interface on the internet and one on a LAN."""

    async def start(self, within: float = 15.0) -> None:
        """Start it and wait, `within` seconds, until it is in its room."""
        since = self.program.mark()
        await self.program.start()
        await self.program.event("session.joined", within, since=since)


class Client(Player):
    """A client and the player behind it."""

    def __init__(self, station: Station, part: Part, machine: Host) -> None:
        super().__init__(station)
        self.part = part
        self.machine = machine
        """Where the softlan client runs; with a TAP that is the player's own machine."""
        self.peer_id = 0
        self.tap_mtu = 0

    @property
    def name(self) -> str:
        """What people call the player."""
        return self.part.name

    @property
    def program(self) -> Program:
        """The client's program."""
        return self.part.program

    @property
    def attached(self) -> bool:
        """Whether it uses one end of a cable in place of a TAP."""
        return self.machine is not self.host

    async def start(self, within: float = 15.0) -> None:
        """Start the client and wait, `within` seconds, until it is in its room and the player's interface is ready."""
        since = self.program.mark()
        await self.program.start()
        await self.joined(since, within)
        await self.program.event("adapter.ready", since=since)
        if self.attached:
            # A route's MTU rather than the interface's: this end of a cable would refuse the LAN's own 1500 bytes.
            self.station.route_mtu = self.tap_mtu

    async def joined(self, since: int, within: float = 15.0) -> None:
        """Wait for the next `session.joined` in its log after `since` and take over what it tells."""
        event = await self.program.event("session.joined", within, since=since)
        self.peer_id = int(event.fields["peer_id"])
        self.tap_mtu = int(event.fields["tap_mtu"])

    def move(self, address: str) -> None:
        """Give the client's machine another address on the internet, as a changed network does."""
        self.machine.ip("addr flush dev wan scope global", f"addr add {address}/24 broadcast + dev wan")


class Lan:
    """A LAN: a switch with hosts on it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.switch = Switch()
        self.hosts: dict[str, Player] = {}


class Party:
    """Everything together; an asynchronous context manager that takes all of it away in the end."""

    def __init__(self, *, attach: bool | None = None) -> None:
        """Build the internet. `attach` makes clients do without TAPs; None: if /dev/net/tun cannot be opened."""
        self.attach = not tap_allowed() if attach is None else attach
        self._stack = contextlib.ExitStack()
        self.directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="softlan-lab-")))
        self.internet = Switch()
        self._stack.callback(self.internet.close)
        self._next_host = 2
        self._next_mac = 1
        self.relay: Relay | None = None
        self.more_relays: list[Relay] = []
        self.trust: Sequence[str] | None = None
        """Options by which gateways and clients made from now on believe the relay; None: its certificate and name."""
        self.lans: dict[str, Lan] = {}
        self.gateways: dict[str, Gateway] = {}
        self.clients: dict[str, Client] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: object, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop every program, then take machines and cables away."""
        parts = self.parts()
        await asyncio.gather(
            *(part.stop() for part in parts if part is not self.relay), return_exceptions=True
        )
        if self.relay is not None:
            await self.relay.stop()
        self._stack.close()

    def parts(self) -> list[Part]:
        """Give all programs of the party, the relay first."""
        relay: list[Part] = [self.relay] if self.relay else []
        return [
            *relay,
            *self.more_relays,
            *self.gateways.values(),
            *(client.part for client in self.clients.values()),
        ]

    def client(self, name: str) -> Client:
        """Give a client by its name."""
        return self.clients[name]

    def player(self, name: str) -> Player:
        """Give a player by name, on the LAN or behind a client."""
        for lan in self.lans.values():
            if name in lan.hosts:
                return lan.hosts[name]
        return self.clients[name]

    def machine(self, name: str, *, mtu: int = 1500) -> Host:
        """Add a machine to the internet, with the next address there on its interface `wan`."""
        number = self._next_host
        self._next_host += 1
        return self._machine(name, number, mtu)

    def _machine(self, name: str, number: int, mtu: int = 1500) -> Host:
        host = Host(name)
        self._stack.callback(host.close)
        self.internet.plug(host, "wan", f"203.0.113.{number}/24", mtu=mtu)
        if "ipv6" in _ip_families():
            host.ip(f"addr add 2001:db8:5050::{number:x}/64 dev wan nodad")
        return host

    def add_lan(self, name: str, hosts: Sequence[str] = ("router", "server")) -> Lan:
        """Add a LAN with these hosts, at 192.168.88.1, .2, ..."""
        lan = Lan(name)
        self._stack.callback(lan.switch.close)
        for number, host_name in enumerate(hosts, start=1):
            host = Host(host_name)
            self._stack.callback(host.close)
            lan.hosts[host_name] = Player(lan.switch.plug(host, ADAPTER, f"192.168.88.{number}/24"))
        self.lans[name] = lan
        return lan

    def make_relay(self, *options: str, listen: str = f"{RELAY_ADDRESS}:{RELAY_PORT}") -> Relay:
        """Add the relay's machine without starting the relay."""
        self.relay = self._relay("relay", self._machine("relay", 1), listen, *options)
        return self.relay

    def another_relay(self, name: str, listen: str, *options: str) -> Relay:
        """Add a relay on the machine of the first, without starting it."""
        assert self.relay is not None
        self.more_relays.append(self._relay(name, self.relay.host, listen, *options))
        return self.more_relays[-1]

    def _relay(self, name: str, host: Host, listen: str, *options: str) -> Relay:
        files = self.directory / name
        told = ["--listen", listen, "--dev-cert-der-out", str(files / "relay-cert.der")]
        told += ["--dev-cert-state", str(files / "certificate.state")]
        return Relay(self, host, name, "softlan.relay", [*told, *options])

    async def start_relay(self, *options: str, listen: str = f"{RELAY_ADDRESS}:{RELAY_PORT}") -> Relay:
        """Add the relay and start it."""
        relay = self.make_relay(*options, listen=listen)
        await relay.start()
        return relay

    def entrance(self, room: str, relay: str = "") -> list[str]:
        """Give the options that lead a gateway or client to the party's relay, or to `relay` ("IP:PORT")."""
        if self.relay is None:
            raise LabError("the party has no relay yet")
        where = relay or f"{RELAY_ADDRESS}:{RELAY_PORT}"
        usual = ["--server-name", SERVER_NAME, "--relay-ca-cert", str(self.relay.certificate)]
        return ["--relay", where, *(usual if self.trust is None else self.trust), "--room", room]

    def make_gateway(
        self, name: str, lan: Lan, *options: str, room: str = ROOM, relay: str = "", invite: str = ""
    ) -> Gateway:
        """Add a gateway's machine, its interface `lan0` on `lan`, without starting the gateway; for `invite` see `make_client`."""
        host = self.machine(name)
        lan.switch.plug(host, ADAPTER)
        told = [*([invite] if invite else self.entrance(room, relay)), "--interface", ADAPTER]
        told += ["--identity", str(self.directory / name / "identity.json")]
        self.gateways[name] = Gateway(self, host, name, "softlan.gateway", [*told, *options])
        return self.gateways[name]

    async def start_gateway(
        self, name: str, lan: Lan, *options: str, room: str = ROOM, relay: str = ""
    ) -> Gateway:
        """Add a gateway and start it."""
        gateway = self.make_gateway(name, lan, *options, room=room, relay=relay)
        await gateway.start()
        return gateway

    def make_client(
        self, name: str, *options: str, room: str = ROOM, relay: str = "", mac: str = "", invite: str = ""
    ) -> Client:
        """Add a client's machine (and, without TAPs, the player's machine) without starting the client.

        With an `invite` it is `softlan join`, and neither room nor relay nor the relay's certificate is told besides.
        """
        machine = self.machine(name)
        if not mac:
            mac = f"02:50:4c:00:00:{self._next_mac:02x}"
            self._next_mac += 1
        told = [*([invite] if invite else self.entrance(room, relay)), "--virtual-mac", mac]
        told += ["--identity", str(self.directory / name / "identity.json")]
        if self.attach:
            desk = Host(name)
            self._stack.callback(desk.close)
            patch(machine, "cable0", desk, ADAPTER)
            desk.ip(f"link set {ADAPTER} address {mac}")
            # The client's end passes frames on; the machine itself must not answer on it.
            machine.setting("ipv6/conf/cable0/disable_ipv6", "1")
            machine.ip("link set cable0 arp off")
            told += ["--attach", "cable0"]
        else:
            desk = machine
            told += ["--tap", ADAPTER]
        module = "softlan join" if invite else "softlan.client"
        part = Part(self, machine, name, module, [*told, *options])
        self.clients[name] = Client(Station(desk, ADAPTER, mac_bytes(mac)), part, machine)
        return self.clients[name]

    async def start_client(
        self, name: str, *options: str, room: str = ROOM, relay: str = "", mac: str = "", address: str = ""
    ) -> Client:
        """Add a client and start it; `address` ("192.168.88.51") is set on the player's interface."""
        client = self.make_client(name, *options, room=room, relay=relay, mac=mac)
        await client.start()
        if address:
            client.station.set_address(f"{address}/24")
        return client

    def logs(self, count: int = 25) -> str:
        """Give the last lines of every part's log."""
        return "\n".join(part.program.tail(count) for part in self.parts())


@contextlib.asynccontextmanager
async def usual_party(*, relay_options: Sequence[str] = ()) -> AsyncIterator[Party]:
    """Build the party most tests want: one LAN with `router` and `server`, a gateway, clients `ann` and `ben`."""
    async with Party() as party:
        lan = party.add_lan("home")
        await party.start_relay(*relay_options)
        await party.start_gateway("gateway", lan)
        await party.start_client("ann", address="192.168.88.51")
        await party.start_client("ben", address="192.168.88.52")
        yield party


def _ip_families() -> set[str]:
    return {"ipv4"} | ({"ipv6"} if Path("/proc/sys/net/ipv6").exists() else set())


def _counters(status: Mapping[str, Any]) -> dict[str, int]:
    told = status.get("counters")
    if not isinstance(told, dict):
        raise LabError(f"the status holds no counters: {json.dumps(status)[:400]}")
    return {str(name): int(value) for name, value in told.items()}
