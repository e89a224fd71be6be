"""A party under watch: four pings that never stop, and a count of what everybody holds, for whoever wants to break something.

async with usual_scene() as scene:
    scene.remember()            # what everybody holds now
    ...                         # break something, mend it
    print(await scene.back(moment), await scene.left_behind())
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from . import census
from .emulator import UdpLink
from .host import Host
from .namespaces import LabError
from .party import Client, Gateway, Part, Party, Relay
from .pinger import Pinger
from .players import Player

BACK_WITHIN_S: Final = 30.0
"""How long is waited for pings to come back before they count as gone for good."""
_PATIENCE_S: Final = 90.0
"""How long a program may take to start on a machine with other things to do."""
_SETTLE_S: Final = 8.0
"""How long what a fault left may take to be cleaned away: some idle timeouts."""

ANN_TO_SERVER: Final = "ann-server"
SERVER_TO_ANN: Final = "server-ann"
BEN_TO_SERVER: Final = "ben-server"
BEN_TO_ANN: Final = "ben-ann"


@dataclass
class Scene:
    """One LAN, a gateway, clients ann and ben, and pings among them. Make it with one of the functions below."""

    party: Party
    relay: Relay
    gateway: Gateway
    ann: Client
    ben: Client
    server: Player
    pingers: dict[str, Pinger] = field(default_factory=dict)
    memory: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    """RSS in KiB after each cycle, by part and process."""
    share: float = 0.8
    """Of pings, how many come back while all is well."""
    line: UdpLink | None = None
    """The bad line ann is behind, where there is one."""

    def __post_init__(self) -> None:
        self.home = _address(self.ann.machine, "-4").partition("/")[0]
        self.home_v6 = _address(self.ann.machine, "-6")
        self._held: dict[str, census.Holdings] = {}
        self._networks: dict[str, frozenset[str]] = {}

    @property
    def parts(self) -> dict[str, Part]:
        """All programs by name."""
        return {
            "relay": self.relay,
            "gateway": self.gateway,
            "client": self.ann.part,
            "bystander": self.ben.part,
        }

    @property
    def machines(self) -> dict[str, Host]:
        """The machines whose interfaces and routes are watched."""
        return {"relay": self.relay.host, "gateway": self.gateway.host, "client": self.ann.machine}

    async def back(self, since: float) -> float:
        """Seconds from `since` until all four pings are answered again; infinity when they are not in 30 s."""
        waits = (pinger.back(since, BACK_WITHIN_S, share=self.share) for pinger in self.pingers.values())
        return max(math.inf if wait is None else wait for wait in await asyncio.gather(*waits))

    async def remember(self) -> None:
        """Take what everybody holds now for the measure of `left_behind`."""
        self._held = await self._holdings()
        self._networks = await self._settled_networks()

    async def _settled_networks(self) -> dict[str, frozenset[str]]:
        """What is configured once nothing has changed for two seconds (IPv6 looks for duplicates of an address first)."""
        before: dict[str, frozenset[str]] = {}
        while before != (now := {name: census.network(host) for name, host in self.machines.items()}):
            before = now
            await asyncio.sleep(2)
        return now

    async def left_behind(self) -> list[str]:
        """Say what is held beyond what was at `remember`, once that has had its time to be cleaned away."""
        deadline = time.monotonic() + _SETTLE_S
        while found := await self._beyond():
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.25)
        for name, part in self.parts.items():
            self.memory.setdefault((name, part.program.pid), []).append(census.memory_kib(part.program.pid))
        return found

    async def _beyond(self) -> list[str]:
        found = []
        for name, now in (await self._holdings()).items():
            found += [f"{name}: {words}" for words in now.beyond(self._held[name])]
        for name, host in self.machines.items():
            now_there = census.network(host)
            found += [f"{name}: new: {line}" for line in sorted(now_there - self._networks[name])]
            found += [f"{name}: gone: {line}" for line in sorted(self._networks[name] - now_there)]
        return found

    async def _holdings(self) -> dict[str, census.Holdings]:
        return {name: await census.holdings(part) for name, part in self.parts.items()}

    async def restart(self, name: str) -> float:
        """Start a part that has ended again, and give the player its address back as a DHCP client would.

        Gives the seconds its program took until it said its first word.
        """
        start = time.monotonic()
        program = self.parts[name].program
        since = program.mark()
        if name == "client":
            address = self.ann.address
            await self.ann.start(_PATIENCE_S)
            if not self.ann.attached:
                self.ann.station.set_address(f"{address}/24")
        elif name == "gateway":
            await self.gateway.start(_PATIENCE_S)
        else:
            await self.relay.start(_PATIENCE_S)
        return program.events[since].at - start

    def marks(self) -> dict[str, int]:
        """Give each part's place in its log, for `story`."""
        return {name: part.program.mark() for name, part in self.parts.items()}

    def story(self, marks: dict[str, int], moment: float) -> str:
        """Tell what the parts logged since `marks`, with the seconds before or after `moment`."""
        events = sorted(
            (event.at - moment, name, event.name)
            for name, part in self.parts.items()
            for event in part.program.events[marks[name] :]
            if event.name.startswith(("session.", "relay.", "interface."))
        )
        return "; ".join(f"{at:+.2f} {name} {what}" for at, name, what in events)

    def growth(self) -> tuple[str, float, int]:
        """Memory's trend of the part that grew most: its name, KiB a cycle after the first third, and of how many cycles."""
        worst = ("", 0.0, 0)
        for (name, _), values in self.memory.items():
            settled = values[len(values) // 3 :]
            if len(settled) >= 8 and (rise := census.slope(settled)) > worst[1]:
                worst = (name, rise, len(settled))
        return worst


def _address(host: Host, family: str) -> str:
    """The address with its prefix on a machine's internet interface; empty: none of that family."""
    words = host.run("ip", family, "-o", "addr", "show", "dev", "wan", "scope", "global").split()
    return words[3] if len(words) > 3 else ""


@contextlib.asynccontextmanager
async def watched(party: Party, *, share: float = 0.8) -> AsyncIterator[Scene]:
    """Watch a party that has a LAN, a gateway and the clients ann and ben, all in one room."""
    if party.relay is None:
        raise LabError("the party has no relay yet")
    [gateway] = party.gateways.values()
    ann, ben, server = party.client("ann"), party.client("ben"), party.player("server")
    scene = Scene(party, party.relay, gateway, ann, ben, server, share=share)
    lines = {
        ANN_TO_SERVER: (ann, server),
        SERVER_TO_ANN: (server, ann),
        BEN_TO_SERVER: (ben, server),
        BEN_TO_ANN: (ben, ann),
    }
    with contextlib.ExitStack() as stack:
        for name, (source, target) in lines.items():
            pinger = Pinger(source.station, target.address, interval=0.025)
            scene.pingers[name] = stack.enter_context(pinger)
        began = time.monotonic()
        if math.isinf(await scene.back(began)):
            raise LabError(f"the party does not even begin to work:\n{party.logs()}")
        await scene.remember()
        yield scene
