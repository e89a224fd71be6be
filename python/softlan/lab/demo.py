"""`softlan demo`: a LAN party on one machine, and a verdict with a figure for everything a party needs.

Each check is one method of `Demo`; it gives a figure to show, or raises `Failed` (or any error of the lab) with what
went wrong. A failed check does not stop the ones after it, only one that all others stand on does.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from . import dhcp, probes
from .namespaces import LabError
from .packets import BROADCAST, ETH_IPV4
from .party import ROOM, Client, Lan, Party, Relay
from .players import Player
from .screen import Row, Screen

_CHECK_LIMIT_S: Final = 25.0
_PICTURE: Final = (
    "A LAN party on this machine, in network namespaces:",
    "",
    "  ann ─┐                                    ┌─ router (gives addresses by DHCP)",
    "       ├── internet ── relay ── gateway ── LAN",
    "  ben ─┘                                    └─ server",
    "",
)


class Failed(Exception):
    """A check did not see what it wanted; the message says what it saw."""


@dataclass(frozen=True)
class Verdict:
    """What came of one check."""

    name: str
    title: str
    good: bool
    figure: str
    seconds: float


@dataclass(frozen=True)
class Check:
    """One thing a party needs; `vital`: without it the others make no sense."""

    name: str
    title: str
    run: Callable[[], Awaitable[str]]
    vital: bool = False


class Demo:
    """The party and its checks; `run` does them in order."""

    def __init__(self, party: Party) -> None:
        self.party = party
        self.lan: Lan
        self.relay: Relay
        self.ann: Client
        self.ben: Client
        self._dhcp: dhcp.DhcpServer | None = None

    def checks(self) -> list[Check]:
        """List the checks in the order they are run."""
        return [
            Check("relay", "The relay listens", self.start_relay, vital=True),
            Check("join", "Gateway, ann and ben join a room", self.join, vital=True),
            Check("dhcp", "Both get addresses from the LAN", self.addresses, vital=True),
            Check("ping", "Everyone pings everyone", self.ping_matrix),
            Check("full-size", "1500-byte packets arrive whole", self.full_size),
            Check("broadcast", "Games find each other by broadcast", self.games),
            Check("tcp-up", "TCP from ann to the LAN", self.upload),
            Check("tcp-down", "TCP from the LAN to ann", self.download),
            Check("tcp-players", "TCP from ann to ben", self.between),
            Check("filter", "A rogue DHCP server is kept out", self.rogue_server),
            Check("return", "The relay is killed and comes back", self.relay_returns),
            Check("goodbye", "Everyone leaves in good order", self.goodbye),
        ]

    @property
    def everyone(self) -> list[Player]:
        """The players and the LAN's hosts."""
        return [self.ann, self.ben, *self.lan.hosts.values()]

    async def close(self) -> None:
        """Stop what the demo itself runs."""
        if self._dhcp is not None:
            await self._dhcp.stop()

    async def traffic(self) -> list[list[str]]:
        """Ask the relay what it carried, as a table of words."""
        names = {client.peer_id: client.name for client in (self.ann, self.ben)}
        lines = [["at the relay", "frames in", "frames out", "MB in", "MB out", "dropped"]]
        for peer in sorted(await self.relay.peers(), key=lambda peer: int(peer["peer_id"])):
            told: Mapping[str, int] = peer["counters"]
            dropped = sum(value for name, value in told.items() if name.startswith("drop_"))
            name = names.get(peer["peer_id"], str(peer["role"]))
            bytes_in, bytes_out = told["bytes_received"] / 1e6, told["bytes_sent"] / 1e6
            frames = f"{told['frames_received']}", f"{told['frames_sent']}"
            lines.append([name, *frames, f"{bytes_in:.1f}", f"{bytes_out:.1f}", f"{dropped}"])
        return lines

    async def start_relay(self) -> str:
        """Build the LAN and start the relay."""
        self.lan = self.party.add_lan("home")
        self._dhcp = dhcp.DhcpServer(self.lan.hosts["router"].station)
        self._dhcp.start()
        start = time.monotonic()
        self.relay = await self.party.start_relay()
        return f"up in {time.monotonic() - start:.2f} s"

    async def join(self) -> str:
        """Start the gateway and both clients at once."""
        gateway = self.party.make_gateway("gateway", self.lan)
        self.ann, self.ben = self.party.make_client("ann"), self.party.make_client("ben")
        await asyncio.gather(gateway.start(), self.ann.start(), self.ben.start())
        return f"room {ROOM}, MTU {self.ann.tap_mtu}"

    async def addresses(self) -> str:
        """Let both players ask the LAN's DHCP server for an address."""
        leases = []
        for client in (self.ann, self.ben):
            lease = await client.lease()
            if lease is None:
                raise Failed(f"{client.name} got no answer")
            leases.append(lease)
        slowest = max(lease.seconds for lease in leases) * 1000
        return f"{', '.join(lease.address for lease in leases)} in {slowest:.0f} ms"

    async def ping_matrix(self) -> str:
        """Ping in every direction between players and LAN hosts, one pair after the other."""
        trips: list[float] = []
        sent = 0
        for source in self.everyone:
            for target in self.everyone:
                if source is target or {source, target} <= set(self.lan.hosts.values()):
                    continue
                result = await source.ping(target, 10, interval=0.02)
                sent += result.sent
                trips += result.round_trips
                if not result.good:
                    raise Failed(f"{source.name} to {target.name}: {result}")
        trips.sort()
        return f"{len(trips)} of {sent}, median {trips[len(trips) // 2] * 1000:.2f} ms"

    async def full_size(self) -> str:
        """Send packets of the LAN's own MTU to both players, unfragmented by IP."""
        server = self.lan.hosts["server"]
        told = []
        for client in (self.ann, self.ben):
            result = await server.ping(client, 5, size=1472, whole=True)
            if not result.good:
                raise Failed(f"to {client.name}: {result}")
            told.append(f"{client.name} {result}")
        return ", ".join(told)

    async def games(self) -> str:
        """Look for games from each seat."""
        slowest = 0.0
        for seeker in self.everyone:
            others = [other for other in self.everyone if other is not seeker]
            found = await seeker.find_games(others)
            if missing := sorted({other.name for other in others} - set(found)):
                raise Failed(f"{seeker.name} did not find {', '.join(missing)}")
            slowest = max(slowest, *found.values())
        return f"all {len(self.everyone)} see each other, in {slowest * 1000:.1f} ms"

    async def upload(self) -> str:
        """Send from a player to the LAN."""
        return str(await self.ann.send_to(self.lan.hosts["server"]))

    async def download(self) -> str:
        """Send from the LAN to a player."""
        return str(await self.lan.hosts["server"].send_to(self.ann))

    async def between(self) -> str:
        """Send from player to player."""
        return str(await self.ann.send_to(self.ben))

    async def rogue_server(self) -> str:
        """Let ben answer as a DHCP server, and see that nobody hears it while his other broadcasts pass."""
        name = "drop_dhcp_server"
        before = (await self.relay.peer_counters(self.ben.peer_id))[name]
        harmless = BROADCAST + self.ben.mac + b"\x88\xb5" + b"softlan-lab, after the rogue offers".ljust(46)
        offers = 5
        with contextlib.ExitStack() as stack:
            sender = stack.enter_context(self.ben.frames())
            ears = [
                stack.enter_context(player.frames()) for player in self.everyone if player is not self.ben
            ]
            for _ in range(offers):
                sender.send(dhcp.rogue_offer(self.ben.station))
            sender.send(harmless)
            for ear in ears:
                async for frame in ear.frames(3.0):
                    if _is_dhcp_answer(frame, self.ben.mac):
                        raise Failed(f"{ear.station.name} heard it")
                    if frame == harmless:
                        break
                else:
                    raise Failed(f"{ear.station.name} did not hear the harmless frame after it")
        dropped = (await self.relay.peer_counters(self.ben.peer_id))[name] - before
        if dropped != offers:
            raise Failed(f"{dropped} of {offers} counted as dropped")
        return f"{dropped} of {offers} dropped ({name})"

    async def relay_returns(self) -> str:
        """Kill the relay without a word, start it again, and wait until all is as before."""
        marks = [client.program.mark() for client in (self.ann, self.ben)]
        self.relay.program.kill()
        await self.relay.program.wait(5)
        await asyncio.sleep(1.0)
        await self.relay.start()
        back = time.monotonic()
        server = self.lan.hosts["server"]
        gaps = await asyncio.gather(
            *(probes.first_reply(client.station, server.address, 15.0) for client in (self.ann, self.ben))
        )
        if None in gaps:
            raise Failed("a player did not come back within 15 s")
        took = time.monotonic() - back
        for client, mark in zip((self.ann, self.ben), marks, strict=True):
            await client.joined(mark)
        return f"ping works {took:.2f} s after its return"

    async def goodbye(self) -> str:
        """Stop all programs as a user would; each must end with 0 and take its interface with it."""
        start = time.monotonic()
        for part in reversed(self.party.parts()):
            status = await part.stop()
            if status != 0:
                raise Failed(f"{part.name} ended with {status}")
        for client in (self.ann, self.ben):
            if not client.attached and client.station.interface in client.host.interfaces():
                raise Failed(f"{client.name}'s adapter is still there")
        return f"4 programs ended in {time.monotonic() - start:.2f} s"


@dataclass(frozen=True)
class Result:
    """All verdicts; `planned` is how many checks there are, so that one cut short is not taken for a good one."""

    planned: int
    verdicts: list[Verdict]
    seconds: float

    @property
    def passed(self) -> int:
        """How many were good."""
        return sum(verdict.good for verdict in self.verdicts)

    @property
    def good(self) -> bool:
        """Whether every planned check was good."""
        return self.passed == self.planned

    def as_json(self) -> dict[str, Any]:
        """Give it for machines: `good`, `planned`, `seconds`, and the `verdicts`."""
        verdicts = [asdict(verdict) for verdict in self.verdicts]
        return {
            "good": self.good,
            "planned": self.planned,
            "seconds": round(self.seconds, 1),
            "verdicts": verdicts,
        }


async def run(*, quiet: bool = False) -> Result:
    """Build the party, do the checks, show them unless `quiet`, take everything away, give the verdicts."""
    start = time.monotonic()
    verdicts: list[Verdict] = []
    async with contextlib.AsyncExitStack() as stack:
        party = await stack.enter_async_context(Party())
        demo = Demo(party)
        stack.push_async_callback(demo.close)
        checks = demo.checks()
        screen = None if quiet else Screen([check.title for check in checks])
        if screen is not None:
            screen.say(*_PICTURE, *_notes(party))
            await stack.enter_async_context(screen)
        for check, row in zip(checks, screen.rows if screen else map(Row, "?" * len(checks)), strict=True):
            verdict = await _judge(check, row, screen)
            verdicts.append(verdict)
            if screen is not None and not verdict.good:
                screen.say(f"--- {check.title}: {verdict.figure}", party.logs(12))
            if not verdict.good and check.vital:
                break
            if screen is not None and check.name not in ("relay", "return", "goodbye"):
                with contextlib.suppress(LabError):
                    screen.table = [*await demo.traffic()]
        if screen is not None:
            screen.finish_table()
    return Result(len(checks), verdicts, time.monotonic() - start)


def _notes(party: Party) -> Iterator[str]:
    if party.attach:
        yield "  /dev/net/tun cannot be opened here, so ann and ben use one end of a cable in place of a TAP (--attach)."
        yield ""


async def _judge(check: Check, row: Row, screen: Screen | None) -> Verdict:
    start = time.monotonic()
    if screen is not None:
        screen.start(row)
    try:
        async with asyncio.timeout(_CHECK_LIMIT_S):
            good, figure = True, await check.run()
    except TimeoutError:
        good, figure = False, f"not done within {_CHECK_LIMIT_S:g} s"
    except (Failed, LabError, OSError, KeyError) as failure:
        good, figure = False, str(failure).split("\n", 1)[0] or type(failure).__name__
    if screen is not None:
        screen.finish(row, good, figure)
    return Verdict(check.name, check.title, good, figure, round(time.monotonic() - start, 3))


def _is_dhcp_answer(frame: bytes, source: bytes) -> bool:
    ports = b"\x00\x43\x00\x44"
    return frame[6:12] == source and frame[12:14] == ETH_IPV4.to_bytes(2, "big") and frame[34:38] == ports
