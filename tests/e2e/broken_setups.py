"""Set-ups that are broken in one way each, and the sentence in which softlan names it.

A case says what is broken, who is to name it and in which words; `build` breaks it, for real, on machines of its own, and gives what was
said. `test_broken_setups.py` runs them all and writes the table of docs/troubleshooting-cases.md.

In sentences `<number>` stands for digits, `<time>` for a date and time, `<pin>` for a pin, `<python>` for the Python that softlan runs in,
`<words>` for the system's own words.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from softlan.lab import Party, Program
from softlan.lab.emulator import Shape, UdpLink
from softlan.lab.host import Host, patch
from softlan.lab.party import RELAY_ADDRESS, Relay
from softlan.lab.testing import need, need_tun

PLACES = {
    "<number>": r"[0-9]+(?:\.[0-9]+)?",
    "<time>": r"20[0-9]{2}-[0-9]{2}-[0-9]{2}(?: [0-9]{2}:[0-9]{2})? UTC",
    "<python>": r"\S+python\S*",
    "<pin>": r"[A-Za-z0-9_-]{43}",
    "<words>": r"[A-Za-z ,.']+",
}

ROOMS = """
open-rooms = false
[[room]]
code = "PARTY1"
open = true
[[room]]
code = "KEYED"
key = "correct horse battery"
[[room]]
code = "FULL"
open = true
max-peers = 1
[[room]]
code = "NOLAN"
open = true
gateways = "none"
[[room]]
code = "INVITED"
"""

NO_PRIVILEGES = ("setpriv", "--inh-caps=-all", "--bounding-set=-all")
NO_TUN = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /dev/net && exec "$@"', "sh")
NO_AIOQUIC = (
    "import sys, runpy; sys.modules['aioquic'] = None; runpy.run_module('softlan', run_name='__main__')"
)
PROTOCOL_2 = (
    "import runpy, softlan.control.messages as m; m.PROTOCOL, m.SUPPORTED_PROTOCOLS = 2, (2,);"
    " runpy.run_module('softlan.relay', run_name='__main__')"
)
OTHER_PIN = "A" * 43


@dataclass(frozen=True)
class Said:
    """What somebody said about one matter."""

    who: str
    grade: str
    says: str
    hint: str | None = None


@dataclass
class World:
    """What the cases share: a relay with rooms, a LAN with a DHCP server's absence, peers that are there already."""

    party: Party
    directory: Path
    pin: str = ""
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    @property
    def relay(self) -> Relay:
        assert self.party.relay is not None
        return self.party.relay

    def machine(self, *, mtu: int = 1500) -> Host:
        return self.party.machine(f"box{next(self.numbers)}", mtu=mtu)

    def address(self, host: Host) -> str:
        return host.address_of("wan")

    async def run(
        self, host: Host, *words: str, before: Sequence[str] = (), script: str = "", within: float = 60.0
    ) -> Program:
        """Run `softlan WORDS` to its end on a machine, with a home and a runtime directory of its own."""
        home = self.directory / f"{host.name}-{next(self.numbers)}"
        home.mkdir(mode=0o700)
        start = ["-c", script] if script else ["-m", "softlan"]
        environment = {"SOFTLAN_RUNTIME_DIR": str(home), "XDG_CONFIG_HOME": str(home)}
        program = Program(host, host.name, [*before, sys.executable, *start, *words], environment)
        await program.start()
        try:
            await program.wait(within)
        finally:
            await program.stop()
        return program

    async def doctor(
        self,
        host: Host | None = None,
        *options: str,
        relay: str = f"{RELAY_ADDRESS}:443",
        room: str = "PARTY1",
        trust: Sequence[str] | None = None,
        adapter: Sequence[str] = ("--attach", "wan"),
        seconds: str = "0",
        **how: Any,
    ) -> list[Said]:
        """Give what the doctor found not to be good on a machine, a new one if none is given."""
        told = ["--relay", relay, *(("--pin", self.pin) if trust is None else trust)]
        told += ["--room", room] if room else []
        words = ["doctor", "--json", "--seconds", seconds, *told, *adapter, *options]
        program = await self.run(host or self.machine(), *words, **how)
        said = "\n".join(program.lines)
        assert "Traceback" not in said, said
        try:
            report = json.loads(said)
        except ValueError:
            return errors(program, "doctor")
        worst = report["worst"]
        assert program.returncode == {"good": 0, "skipped": 0, "bad": 1, "poor": 3}[worst], said
        return [
            Said(f"doctor: {f['check']}", f["grade"], f["says"], f["hint"])
            for f in report["findings"]
            if f["grade"] not in ("good", "skipped") or (worst == "good" and f["grade"] == "skipped")
        ]

    async def part(self, who: str, host: Host, *words: str, **how: Any) -> list[Said]:
        """Give the error with which a part ended."""
        return errors(await self.run(host, who, "--log-level", "error", *words, **how), who)

    def entrance(self, room: str = "PARTY1") -> list[str]:
        return ["--relay", f"{RELAY_ADDRESS}:443", "--pin", self.pin, "--room", room]

    def adapter(self) -> list[str]:
        return ["--attach", "wan"] if self.party.attach else ["--tap", "lan7"]


def errors(program: Program, who: str) -> list[Said]:
    lines = list(program.lines)
    assert "Traceback" not in "\n".join(lines), lines
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    hints = [line.removeprefix("hint: ") for line in lines if line.startswith("hint: ")]
    assert len(said) == 1, lines
    return [Said(who, "bad", said[0].removeprefix("Error: "), hints[0] if hints else None)]


Build = Callable[[World], Awaitable[list[Said]]]


@dataclass(frozen=True)
class Case:
    """One broken set-up. `beside` are other lines that the same cause brings along."""

    name: str
    setup: str
    expected: Said
    build: Build
    beside: tuple[str, ...] = ()


CASES: list[Case] = []


def case(
    setup: str, who: str, grade: str, says: str, hint: str | None, *beside: str
) -> Callable[[Build], Build]:
    def add(build: Build) -> Build:
        CASES.append(Case(build.__name__, setup, Said(who, grade, says, hint), build, beside))
        return build

    return add


def fits(pattern: str | None, text: str | None) -> bool:
    """Tell whether a sentence is the one a case expects, its places filled."""
    if pattern is None or text is None:
        return pattern is text
    escaped = re.escape(pattern)
    for place, expression in PLACES.items():
        escaped = escaped.replace(re.escape(place), expression)
    return re.fullmatch(escaped, text) is not None


@contextlib.asynccontextmanager
async def world(directory: Path) -> AsyncIterator[World]:
    """Build what the cases share."""
    async with Party() as party:
        rooms = directory / "rooms.toml"
        rooms.write_text(ROOMS)
        relay = await party.start_relay("--rooms", str(rooms), "--public-host", RELAY_ADDRESS)
        made = World(party, directory)
        made.pin = (await relay.program.event("relay.listening")).fields["pin"]
        party.trust = ["--pin", made.pin]
        lan = party.add_lan("home")
        await asyncio.gather(
            party.start_gateway("gateway", lan),
            party.start_client("ann"),
            party.start_client("guest", room="FULL"),
        )
        yield made


# The way to the relay -----------------------------------------------------------------------------------------------------


@case(
    "the relay's name is misspelt",
    "doctor: name",
    "bad",
    "relay.invalid does not resolve to an address: <words>",
    "check the spelling, and this machine's name servers",
)
async def name_not_resolving(world: World) -> list[Said]:
    return await world.doctor(relay="relay.invalid:443")


@case(
    "the relay is stopped, or the port is another's",
    "doctor: udp",
    "bad",
    "nothing listens at 203.0.113.1:9: the machine there refused the packet",
    "check the port; the relay may be stopped, or a router forwards the port to the wrong machine",
)
async def port_refused(world: World) -> list[Said]:
    return await world.doctor(relay=f"{RELAY_ADDRESS}:9")


@case(
    "a player joins, and the relay is stopped or the port another's",
    "client",
    "bad",
    "nothing listens at 203.0.113.1:9: the machine there refused the packet",
    "check the port; the relay may be stopped, or a router forwards the port to the wrong machine",
)
async def joining_a_refused_port(world: World) -> list[Said]:
    where = ["--relay", f"{RELAY_ADDRESS}:9", "--pin", world.pin, "--room", "PARTY1"]
    return await world.part("client", world.machine(), *where, *world.adapter())


@case(
    "a player joins, and this machine has no route to the relay",
    "client",
    "bad",
    "there is no way from here to 198.51.100.7:443 (Network is unreachable)",
    "check this machine's network connection and routes (Linux: `ip route get ADDRESS`)",
)
async def joining_without_a_route(world: World) -> list[Said]:
    where = ["--relay", "198.51.100.7:443", "--pin", world.pin, "--room", "PARTY1"]
    return await world.part("client", world.machine(), *where, *world.adapter())


NO_ANSWER = (
    "a firewall or router on the way drops UDP, or nothing runs there: try another network (a phone's), and ask the host whether the"
    " relay runs and its UDP port is open and forwarded"
)


@case(
    "a firewall on the way drops UDP without a word",
    "doctor: udp",
    "bad",
    "no answer from 203.0.113.1:443 over UDP within 2.5 s",
    NO_ANSWER,
)
async def udp_dropped_on_the_way(world: World) -> list[Said]:
    need("nft")
    host = world.machine()
    rules = f"add rule inet cases in ip saddr {world.address(host)} drop"
    chain = "add chain inet cases in { type filter hook input priority 0 ; }"
    world.relay.host.run("nft", f"add table inet cases; {chain}; {rules}")
    return await world.doctor(host)


@case(
    "this machine's own firewall keeps UDP in",
    "doctor: udp",
    "bad",
    "this machine's own firewall keeps packets to 203.0.113.1:443 back (Operation not permitted)",
    "let outgoing UDP to that port through (Linux: `nft list ruleset` or `iptables -S OUTPUT` shows the rule)",
)
async def udp_kept_in(world: World) -> list[Said]:
    need("nft")
    host = world.machine()
    chain = "add chain inet cases out { type filter hook output priority 0 ; }"
    host.run("nft", f"add table inet cases; {chain}; add rule inet cases out udp dport 443 drop")
    return await world.doctor(host)


@case(
    "there is no route to the relay",
    "doctor: udp",
    "bad",
    "there is no way from here to 198.51.100.7:443 (Network is unreachable)",
    "check this machine's network connection and routes (Linux: `ip route get ADDRESS`)",
)
async def no_route(world: World) -> list[Said]:
    return await world.doctor(relay="198.51.100.7:443")


@case(
    "another program has the port",
    "doctor: udp",
    "bad",
    "something answers at 203.0.113.<number>:443, but it does not speak QUIC",
    "check the port: another program has it",
)
async def another_program(world: World) -> list[Said]:
    host = world.machine()
    address = world.address(host)

    class Parrot(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, sender: Any) -> None:
            self.transport.sendto(b"hello " + data[:20], sender)

    made = host.socket()
    made.bind((address, 443))
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Parrot, sock=made)
    try:
        return await world.doctor(relay=f"{address}:443")
    finally:
        transport.close()


@case(
    "the path carries packets of 1280 bytes only",
    "doctor: mtu",
    "poor",
    "the path carries packets of 1280 bytes, so frames above <number> bytes travel in pieces",
    "it works as it is; a VPN, tunnel or mobile link on the way is the usual cause",
)
async def small_path(world: World) -> list[Said]:
    return await world.doctor(world.machine(mtu=1280))


@case(
    "the path carries less than QUIC needs",
    "doctor: mtu",
    "bad",
    "this machine's interface does not carry packets of 1228 bytes, which QUIC needs",
    "a VPN or tunnel on the way has too small an MTU: raise it, or go round it",
)
async def path_below_the_floor(world: World) -> list[Said]:
    host = world.machine()
    host.ip("link set wan mtu 1100")
    return await world.doctor(host)


@case(
    "the relay is 300 ms away",
    "doctor: line",
    "bad",
    "the way is very long: <number> ms there and back, jitter <number> ms, 0 % lost in 2 s",
    "a relay nearer to the players helps; a VPN on this machine may take the traffic a long way round",
)
async def long_way(world: World) -> list[Said]:
    return await through_a_line(world, Shape(delay=0.15))


@case(
    "5 % of the packets get lost",
    "doctor: line",
    "bad",
    "many packets get lost: <number> ms there and back, jitter <number> ms, <number> % lost in 4 s",
    "use a cable in place of Wi-Fi, and stop uploads on this line; if it stays, try another provider or relay",
)
async def lossy_line(world: World) -> list[Said]:
    return await through_a_line(world, Shape(delay=0.01, loss=0.05), "4")


async def through_a_line(world: World, shape: Shape, seconds: str = "2") -> list[Said]:
    line = world.machine()
    address = world.address(line)
    with UdpLink(near=line, listen=(address, 443), far=line, target=(RELAY_ADDRESS, 443), up=shape, seed=4):
        return await world.doctor(relay=f"{address}:443", seconds=seconds)


# The relay ----------------------------------------------------------------------------------------------------------------


@case(
    "a QUIC server of another kind has the port",
    "doctor: handshake",
    "bad",
    "203.0.113.<number>:443 speaks QUIC, but not softlan/1: it is no softlan relay, or one of another version",
    "check the port with the host, and that both run the same version of softlan",
)
async def another_quic_server(world: World) -> list[Said]:
    from aioquic.asyncio.server import QuicServer
    from aioquic.quic.configuration import QuicConfiguration

    host = world.machine()
    address = world.address(host)
    configuration = QuicConfiguration(is_client=False, alpn_protocols=["h3"])
    pem = world.relay.certificate_state.read_bytes()
    configuration.certificate = x509.load_pem_x509_certificate(pem)
    configuration.private_key = load_pem_private_key(pem[pem.index(b"-----BEGIN PRIVATE") :], None)
    made = host.socket()
    made.bind((address, 443))
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: QuicServer(configuration=configuration), sock=made
    )
    try:
        return await world.doctor(relay=f"{address}:443")
    finally:
        transport.close()


@case(
    "the pin is another relay's",
    "doctor: certificate",
    "bad",
    "203.0.113.1:443 answered, but it is not the relay whose certificate or pin you were given (the pin of its key is <pin>)",
    "ask the host for a new invite (or the current pin or certificate file): the relay may have been restarted without keeping its key,"
    " as --state does",
)
async def wrong_pin(world: World) -> list[Said]:
    return await world.doctor(trust=["--pin", OTHER_PIN])


@case(
    "the certificate is for another name",
    "doctor: certificate",
    "bad",
    '203.0.113.1:443 answered, but its certificate is for another name (certificate not valid for name "relay.example.org";'
    ' certificate is only valid for DnsName("lanparty-relay.local"))',
    "give the name the certificate was made for with --server-name",
)
async def wrong_name(world: World) -> list[Said]:
    certificate = str(world.relay.certificate)
    return await world.doctor(trust=["--relay-ca-cert", certificate, "--server-name", "relay.example.org"])


@case(
    "neither pin nor certificate was given",
    "doctor: certificate",
    "bad",
    "203.0.113.1:443 answered, but its certificate is of no authority this machine trusts (UnknownIssuer)",
    "give the relay's own certificate with --relay-ca-cert FILE; its operator has it; or ask whether its pin is <pin>, and give it with"
    " --pin",
)
async def no_trust(world: World) -> list[Said]:
    return await world.doctor(trust=[])


@case(
    "this machine's clock is years behind",
    "doctor: clock",
    "bad",
    "this machine's clock says 2020-01-01 00:00 UTC, and the relay's certificate begins on <time>",
    "set this machine's clock: it is behind (or the relay's was ahead when it made the certificate)",
    "doctor: certificate",
)
async def clock_behind(world: World) -> list[Said]:
    need("faketime")
    trust = ["--relay-ca-cert", str(world.relay.certificate), "--server-name", "lanparty-relay.local"]
    return await world.doctor(trust=trust, before=["env", "TZ=UTC", "faketime", "2020-01-01 00:00:00"])


@case(
    "the relay's certificate is past its end (or the clock far ahead)",
    "doctor: clock",
    "poor",
    "this machine's clock says 2050-01-01 00:00 UTC, and the relay's certificate ended on <time>; the pin makes up for it here, but"
    " other programs will trip over it",
    "check this machine's clock; if it is right, the relay's operator must renew the certificate",
)
async def certificate_ended(world: World) -> list[Said]:
    need("faketime")
    return await world.doctor(before=["env", "TZ=UTC", "faketime", "2050-01-01 00:00:00"])


@case(
    "the relay runs a newer softlan with another protocol",
    "doctor: protocol",
    "bad",
    "the relay speaks version 2 of softlan's protocol, this softlan version 1",
    "update softlan here: <python> -m pip install --upgrade softlan",
)
async def other_protocol(world: World) -> list[Said]:
    relay = world.party.another_relay("newer", f"{RELAY_ADDRESS}:4402")
    command = list(relay.program.command)
    relay.program.command = [command[0], "-c", PROTOCOL_2, *command[3:]]
    await relay.start()
    pin = relay.program.found("relay.listening")[0].fields["pin"]
    return await world.doctor(relay=f"{RELAY_ADDRESS}:4402", trust=["--pin", pin])


@case(
    "the relay is about to stop and lets nobody in any more",
    "doctor: room",
    "bad",
    "the relay refused: the relay is stopping or restarting",
    "the relay is being stopped or restarted; try again in a moment",
)
async def relay_draining(world: World) -> list[Said]:
    relay = world.party.another_relay("draining", f"{RELAY_ADDRESS}:4403", "--drain", "60")
    await relay.start()
    pin = relay.program.found("relay.listening")[0].fields["pin"]
    world.party.trust = ["--pin", pin]
    stays = world.party.make_client("stays", relay=f"{RELAY_ADDRESS}:4403")
    world.party.trust = ["--pin", world.pin]
    await stays.start()
    relay.program.send_signal(signal.SIGTERM)
    await stays.program.event("session.ending")
    return await world.doctor(relay=f"{RELAY_ADDRESS}:4403", trust=["--pin", pin])


NO_KEY = (
    "check the room code and ask the host for an invite, or give the room's key with --key or --key-file; an invite without double"
    " quotes around it is cut at its & by the shell"
)


# The room -----------------------------------------------------------------------------------------------------------------


@case(
    "the room is full",
    "doctor: room",
    "bad",
    "the relay refused: room FULL is full: it holds 1 peer",
    "wait until somebody leaves, or ask the relay's operator for more places",
)
async def room_full(world: World) -> list[Said]:
    return await world.doctor(room="FULL")


@case(
    "the room asks for a key, and none was given (an invite cut at its &)",
    "doctor: room",
    "bad",
    "the relay refused: room KEYED needs a key",
    NO_KEY,
)
async def key_missing(world: World) -> list[Said]:
    return await world.doctor(room="KEYED")


@case(
    "the room's key is wrong",
    "doctor: room",
    "bad",
    "the relay refused: that is not the key of room KEYED",
    "check the key and the room code with the one who invited you",
)
async def key_wrong(world: World) -> list[Said]:
    return await world.doctor(None, "--key", "correct horse batteru", room="KEYED")


@case(
    "the room's code is misspelt, or the relay does not serve it",
    "doctor: room",
    "bad",
    "the relay refused: room PARTY2 needs a key",
    NO_KEY,
)
async def room_not_served(world: World) -> list[Said]:
    return await world.doctor(room="PARTY2")


@case(
    "the invite's time is over",
    "doctor: room",
    "bad",
    "the relay refused: the invite's time is over",
    "ask the host for a new invite",
)
async def invite_expired(world: World) -> list[Said]:
    made = await world.relay.admin("invite", "INVITED", "--expires", "1s")
    await asyncio.sleep(2.5)
    return await world.doctor(None, "--key", made["key"], room="INVITED")


@case(
    "the invite was for one, and another has used it",
    "doctor: room",
    "bad",
    "the relay refused: the invite was for one peer, and another has used it",
    "ask the host for an invite of your own",
)
async def invite_used(world: World) -> list[Said]:
    made = await world.relay.admin("invite", "INVITED", "--single-use")
    options = ["--key", made["key"]]
    assert await world.doctor(None, *options, room="INVITED") == [
        Said("doctor: echo", "skipped", "not tried: it takes two visitors, and the invite is for one")
    ]
    return await world.doctor(None, *options, room="INVITED")


@case(
    "the relay's operator has banned this address",
    "doctor: room",
    "bad",
    "the relay refused: the relay's operator does not let this peer in",
    "talk to the relay's operator",
)
async def banned(world: World) -> list[Said]:
    host = world.machine()
    await world.relay.admin("ban", "*", world.address(host))
    return await world.doctor(host)


@case(
    "the same identity plays already, elsewhere",
    "client",
    "bad",
    "the relay refused: another client in room PARTY1 has the MAC 02:50:4c:00:00:01",
    (
        "is softlan running twice with the same identity? Stop the other one, or give this one --identity or --virtual-mac of its own."
        " If a machine on the LAN has the MAC, choose another, and take softlan's adapter out of any bridge with that LAN"
    ),
)
async def duplicate_identity(world: World) -> list[Said]:
    mac = world.party.client("ann").mac.hex(":")
    return await world.part(
        "client", world.machine(), *world.entrance(), *world.adapter(), "--virtual-mac", mac
    )


@case(
    "the room has a gateway already",
    "doctor: room",
    "bad",
    "the relay refused: room PARTY1 has a gateway already",
    "stop the other gateway, or choose another room with --room",
)
async def second_gateway(world: World) -> list[Said]:
    return [said for said in await world.doctor(None, "--interface", "wan") if said.who != "doctor: dhcp"]


@case(
    "the room takes no gateways",
    "doctor: room",
    "bad",
    "the relay refused: room NOLAN takes no gateways",
    "ask the host for the gateway's key, or for an invite for a gateway",
)
async def gateway_not_allowed(world: World) -> list[Said]:
    found = await world.doctor(None, "--interface", "wan", room="NOLAN")
    return [said for said in found if said.who != "doctor: dhcp"]


@case(
    "the invite was damaged on its way",
    "doctor",
    "bad",
    "Invalid value for '[INVITE]': the pin is cut off: it has 30 characters in place of 43; copy it again from the message, all of it,"
    " and put it into double quotes",
    None,
)
async def damaged_invite(world: World) -> list[Said]:
    program = await world.run(
        world.machine(), "doctor", f"softlan://{RELAY_ADDRESS}/PARTY1?pin={world.pin[:30]}"
    )
    assert program.returncode == 2
    line = next(line for line in program.lines if line.startswith("Error: "))
    return [Said("doctor", "bad", line.removeprefix("Error: "))]


# This machine -------------------------------------------------------------------------------------------------------------


@case(
    "softlan may not make a network adapter",
    "doctor: adapter",
    "bad",
    "no privilege to create a TAP adapter",
    "run it as root (sudo), or give it the capabilities CAP_NET_ADMIN and CAP_NET_RAW",
)
async def no_rights(world: World) -> list[Said]:
    need("setpriv")
    need_tun(world.party.attach)
    return await world.doctor(adapter=[], before=NO_PRIVILEGES)


@case(
    "there is no /dev/net/tun (a container)",
    "doctor: adapter",
    "bad",
    "this machine has no /dev/net/tun",
    "load the tun module (`modprobe tun`); in a container, pass /dev/net/tun in, or use --attach",
)
async def no_tun(world: World) -> list[Said]:
    need_tun(world.party.attach)
    return await world.doctor(adapter=[], before=NO_TUN)


@case(
    "another interface has the adapter's name",
    "doctor: adapter",
    "bad",
    "interface name wan is taken",
    "another program has an interface of that name: choose another with --tap",
)
async def tap_busy(world: World) -> list[Said]:
    need_tun(world.party.attach)
    return await world.doctor(adapter=["--tap", "wan"])


@case(
    "aioquic is not installed",
    "doctor: handshake",
    "skipped",
    "a second look at the relay takes the library aioquic, which is not installed",
    'install it with: <python> -m pip install "softlan[doctor]"',
)
async def no_aioquic(world: World) -> list[Said]:
    return await world.doctor(script=NO_AIOQUIC)


# The gateway's LAN --------------------------------------------------------------------------------------------------------


async def lan(world: World, host: Host, interface: str, before: Sequence[str] = ()) -> list[Said]:
    program = await world.run(host, "doctor", "--json", "--interface", interface, before=before)
    report = json.loads("\n".join(program.lines))
    return [
        Said(f"doctor: {f['check']}", f["grade"], f["says"], f["hint"])
        for f in report["findings"]
        if f["grade"] not in ("good", "skipped")
    ]


@case(
    "the gateway's interface does not exist",
    "doctor: interface",
    "bad",
    "there is no interface eth7",
    "`ip link` lists the interfaces of this machine",
)
async def interface_missing(world: World) -> list[Said]:
    return await lan(world, world.machine(), "eth7")


@case(
    "the gateway's interface is down",
    "doctor: interface",
    "bad",
    "interface asleep0 is down",
    "bring it up first: `ip link set dev NAME up`",
)
async def interface_down(world: World) -> list[Said]:
    host = world.machine()
    host.ip("link add name asleep0 type veth peer name asleep1")
    return await lan(world, host, "asleep0")


@case(
    "the gateway's cable is not plugged in",
    "doctor: interface",
    "bad",
    "eth0 is up, but has no link: no cable, or the other end is off",
    "plug the LAN's cable in, or choose another interface",
)
async def no_cable(world: World) -> list[Said]:
    host, other = world.machine(), world.machine()
    patch(host, "eth0", other, "eth0")
    other.ip("link set eth0 down")
    return await lan(world, host, "eth0")


@case(
    "the gateway's interface is no Ethernet",
    "doctor: interface",
    "bad",
    "interface lo is not an Ethernet interface (link type 772)",
    "choose a wired Ethernet interface, a bridge or a veth",
)
async def no_ethernet(world: World) -> list[Said]:
    return await lan(world, world.machine(), "lo")


@case(
    "the gateway may not listen on its interface",
    "doctor: interface",
    "bad",
    "no privilege to open a packet socket",
    "run it as root (sudo), or give it the capabilities CAP_NET_ADMIN and CAP_NET_RAW",
)
async def gateway_no_rights(world: World) -> list[Said]:
    need("setpriv")
    return await lan(world, world.machine(), "wan", NO_PRIVILEGES)


@case(
    "nobody gives out addresses on the LAN",
    "doctor: dhcp",
    "poor",
    "no DHCP server answered on eth0 within <number> s: players get no address of this LAN by themselves",
    "switch on the router's DHCP server, or have players set addresses of this LAN by hand",
)
async def no_dhcp(world: World) -> list[Said]:
    host = world.machine()
    world.party.lans["home"].switch.plug(host, "eth0")
    return await lan(world, host, "eth0")


@case(
    "another program has the relay's port",
    "relay",
    "bad",
    "cannot listen on 203.0.113.1:443/udp: Address already in use (os error 98)",
    "another program has that UDP port: stop it, or choose another with --listen",
)
async def relay_port_taken(world: World) -> list[Said]:
    return await world.part("relay", world.relay.host, "--listen", f"{RELAY_ADDRESS}:443")


@case(
    "a player is pinged whose softlan is gone",
    "ping",
    "bad",
    "192.168.88.77 does not answer",
    "nobody in the room has this address: check it, and that its owner (or the gateway) is there: `softlan status`",
)
async def ping_nobody(world: World) -> list[Said]:
    program = await world.run(
        world.machine(), "ping", "192.168.88.77", *world.entrance(), "-c", "3", "-i", "100ms"
    )
    assert program.returncode == 1
    hint = next(line for line in program.lines if line.startswith("hint: "))
    return [Said("ping", "bad", program.lines[1], hint.removeprefix("hint: "))]
