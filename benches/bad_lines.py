"""Congestion controllers side by side on bad lines: a player's TCP download and upload, and a ping meanwhile.

    .venv/bin/python benches/bad_lines.py [seconds a run]

Every row is measured in this run, through the lab's seeded link emulator; figures are for comparing with each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys

from softlan.config import CONGESTION_CONTROLLERS
from softlan.lab import Party
from softlan.lab.emulator import Shape, UdpLink
from softlan.lab.namespaces import ensure_namespaces
from softlan.lab.party import RELAY_ADDRESS
from softlan.lab.players import Player

LINES = {
    "20 Mbit/s, 20 ms, 250 ms buffer": Shape(rate=20e6, delay=0.01, buffer=625_000),
    "20 Mbit/s, 20 ms, 1 % loss": Shape(rate=20e6, delay=0.01, buffer=100_000, loss=0.01),
    "100 Mbit/s, 20 ms": Shape(rate=100e6, delay=0.01, buffer=300_000),
    "200 Mbit/s, 10 ms, 0.5 % loss": Shape(rate=200e6, delay=0.005, buffer=300_000, loss=0.005),
    "50 ms, 1 % loss": Shape(rate=200e6, delay=0.025, buffer=1_000_000, loss=0.01),
}


async def loaded(
    source: Player, sink: Player, pinger: Player, target: Player, seconds: float
) -> tuple[float, float, float]:
    """TCP goodput in Mbit/s, and the ping's median and 99th percentile in ms while it runs."""
    moving = asyncio.create_task(source.send_to(sink, seconds=seconds))
    await asyncio.sleep(min(1.0, seconds / 3))
    pings = await pinger.ping(target, int((seconds - 1) / 0.02), interval=0.02)
    result = await moving
    times = sorted(1000 * t for t in pings.round_trips)
    if not times:
        return result.megabits, float("nan"), float("nan")
    return result.megabits, statistics.median(times), times[int(len(times) * 0.99)]


async def measure(shape: Shape, controller: str, seconds: float) -> str:
    options = ["--congestion", controller]
    async with Party() as party:
        lan = party.add_lan("home")
        await party.start_relay(*options)
        await party.start_gateway("gateway", lan, *options)
        cafe = party.machine("cafe")
        address = cafe.address_of("wan")
        link = UdpLink(
            near=cafe, listen=(address, 443), far=cafe, target=(RELAY_ADDRESS, 443), up=shape, seed=7
        )
        with contextlib.ExitStack() as stack:
            stack.enter_context(link)
            ann = await party.start_client("ann", *options, relay=f"{address}:443", address="192.168.88.51")
            server = party.player("server")
            idle = await ann.ping(server, 20, interval=0.02)
            row = [f"{1000 * statistics.median(idle.round_trips):6.1f}"]
            for source, sink in ((server, ann), (ann, server)):
                rate, p50, p99 = await loaded(source, sink, ann, server, seconds)
                row.append(f"{rate:7.1f} {p50:7.1f} {p99:7.1f}")
            return "  ".join(row)


async def main(seconds: float) -> None:
    print(
        f"{'line':34}{'controller':10}  idle   |  down Mbit/s, ping p50, p99 ms |  up Mbit/s, ping p50, p99 ms"
    )
    for name, shape in LINES.items():
        for controller in CONGESTION_CONTROLLERS:
            try:
                row = await measure(shape, controller, seconds)
            except (OSError, TimeoutError) as error:
                row = f"failed: {error!r}"
            print(f"{name:34}{controller:10}{row}", flush=True)


if __name__ == "__main__":
    ensure_namespaces([sys.executable, *sys.argv])
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 6.0))
