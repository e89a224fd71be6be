"""A relay that is none: 200 peers in 30 rooms, seeded, whose counters grow with time; for looks and for load, never for figures.

`python tests/observe/synthetic.py 8080` serves its page; `python tests/observe/synthetic.py` answers `softlan status --live`.
"""

from __future__ import annotations

import asyncio
import math
import random
import sys
import time
from typing import Any

from softlan._core import COUNTER_NAMES
from softlan.config import HostPort
from softlan.control.codes import Code
from softlan.control.messages import Role
from softlan.observe.local import StatusServer
from softlan.relay.ledger import Ledger, Numbers

WORDS = [
    "FRIDAY",
    "ATTIC",
    "CELLAR",
    "GARAGE",
    "QUAKE",
    "RETRO",
    "DOOM",
    "KITCHEN",
    "ISLAND",
    "ORBIT",
    "TUNNEL",
    "MEADOW",
]
DROPS = {
    "drop_limit_broadcast": 40,
    "drop_queue_delay": 25,
    "drop_source_foreign": 6,
    "drop_dhcp_server": 3,
    "drop_malformed": 1,
}


class Peer:
    def __init__(self, dice: random.Random, peer_id: int, role: Role) -> None:
        self.peer_id, self.role = peer_id, role
        self.mac = (
            None if role is Role.GATEWAY else "02:" + ":".join(f"{dice.randrange(256):02x}" for _ in range(5))
        )
        self.address = f"203.0.113.{dice.randrange(1, 255)}:{dice.randrange(1024, 65536)}"
        self.rtt_ms = round(dice.lognormvariate(3.2, 0.6), 3)
        self.since = -dice.random() * 10_000
        self.frames = dice.lognormvariate(3.5, 1.2)
        self.size = dice.choice([90, 140, 320, 1100])
        self.phase = dice.random() * 6.28
        self.clumsy = dice.random() < 0.15
        self.weights = {name: weight * dice.random() for name, weight in DROPS.items()}

    def counters(self, now: float) -> dict[str, int]:
        t = now - self.since
        frames = int(self.frames * (t + 20 * math.sin(t / 30 + self.phase) + 21))
        counters = dict.fromkeys(COUNTER_NAMES, 0)
        counters.update(frames_received=frames, frames_sent=int(1.8 * frames), datagrams_received=frames)
        counters.update(bytes_received=self.size * frames, bytes_sent=int(1.8 * self.size * frames))
        if self.clumsy:
            counters.update({name: int(weight * t / 30) for name, weight in self.weights.items()})
        return counters


class Synthetic:
    """`PageSource`, with the present as an argument once `at` is set."""

    def __init__(self, rooms: int = 30, peers: int = 200, seed: int = 7) -> None:
        dice = random.Random(seed)
        self.at: float | None = None
        self._started = time.monotonic()
        self.rooms = [f"{WORDS[n % len(WORDS)]}{1 + n // len(WORDS)}" for n in range(rooms)]
        self.members: dict[str, list[Peer]] = {code: [] for code in self.rooms}
        self.mtus = {code: dice.choice([1416, 1416, 1430, 1280]) for code in self.rooms}
        for n in range(peers):
            code = self.rooms[n] if n < rooms else dice.choice(self.rooms)
            room = self.members[code]
            gateway = len(room) == 1 and dice.random() < 0.4
            room.append(Peer(dice, len(room) + 1, Role.GATEWAY if gateway else Role.CLIENT))

    @property
    def now(self) -> float:
        return time.monotonic() - self._started if self.at is None else self.at

    def snapshot(self) -> dict[str, Any]:
        now = self.now
        rooms = [
            {
                "code": code,
                "tap_mtu": self.mtus[code],
                "gateway": any(peer.role is Role.GATEWAY for peer in peers),
                "peers": [
                    {
                        "peer_id": peer.peer_id,
                        "role": peer.role.value,
                        "mac": peer.mac,
                        "address": peer.address,
                        "software": "softlan/0.1.0 (linux)",
                        "rtt_ms": peer.rtt_ms,
                        "datagram_budget": 1444,
                        "connected_s": round(now - peer.since, 3),
                        "counters": peer.counters(now),
                        "reported": peer.counters(now),
                    }
                    for peer in peers
                ],
            }
            for code, peers in self.members.items()
        ]
        return {"listen": "[::]:443", "peer_count": sum(map(len, self.members.values())), "rooms": rooms}

    def numbers(self) -> Numbers:
        ledger = Ledger(self.rooms)
        ledger.admitted = 241
        numbers = ledger.open({Code.ROOM_FULL: 3})
        for code, peers in self.members.items():
            told = numbers.rooms[code]
            told.rooms += 1
            for peer in peers:
                told.roles[peer.role.value] += 1
                told.rtts_s.append(peer.rtt_ms / 1000)
                told.counters.update(peer.counters(self.now))
        return numbers

    async def healthy(self) -> bool:
        return True


async def serve(port: int | None) -> None:
    source = Synthetic()
    if port is None:
        async with StatusServer("relay", source.snapshot):
            await asyncio.Event().wait()
    else:
        from softlan.observe.page import sampler, server
        from softlan.observe.page.options import PageOptions

        page = server.PageServer(PageOptions(HostPort("127.0.0.1", port), None), source)
        # A past, so that there is something to see at once.
        overview, wall = page._sampler._overview, time.time()
        overview.__init__()  # type: ignore[misc]
        for step in range(240, 0, -1):
            source.at = 480.0 - 2 * step
            overview.feed(time.monotonic() - 2 * step, wall - 2 * step, source.snapshot())
        overview.points.popleft()  # the first has nothing to compare with
        source.at, source._started = None, time.monotonic() - 480.0
        page._sampler.sample()
        assert sampler.INTERVAL_S == 2.0
        async with page:
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]) if len(sys.argv) > 1 else None))
