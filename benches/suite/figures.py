"""All figures of one system: at LAN speed, and over each bad line."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from peers import Site, System

from . import probes
from .lines import Case

Figures = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How long and how often."""

    seconds: float = 3.0
    """One TCP run at LAN speed; over bad lines it is two seconds more, for their round trips."""
    runs: int = 3
    udp: bool = True
    algorithm: str | None = None
    """The congestion control of the TCP inside; None: the machine's own."""


async def at_lan_speed(system: System, plan: Plan) -> Figures:
    """Measure idle and loaded ping, TCP both ways, UDP rates, CPU a GB. Raises `LabError` when it does not come up."""
    async with Site() as site:
        client = await system.start(site)
        await asyncio.sleep(0.5)  # what only a start does is over
        before = probes.cpu_seconds()
        await asyncio.sleep(1.0)
        idle_load = probes.cpu_seconds() - before
        idle = await probes.ping(client, site.server, int(plan.seconds / 0.01), 0.01)
        figures: Figures = {"idle_p50": idle.at(0.5), "idle_p99": idle.at(0.99), "idle_lost": idle.lost}
        figures["idle_load"] = idle_load
        costs: list[float] = []
        for way in ("up", "down"):
            rates: list[float] = []
            pings = probes.Pings()
            retransmits = 0
            for _ in range(plan.runs):
                start, before = asyncio.get_running_loop().time(), probes.cpu_seconds()
                stream, while_loaded, _ = await probes.loaded(
                    site, client, down=way == "down", seconds=plan.seconds, algorithm=plan.algorithm
                )
                took = asyncio.get_running_loop().time() - start
                spent = probes.cpu_seconds() - before - idle_load * took
                if stream.bytes:
                    costs.append(spent / (stream.bytes / 1e9))
                rates.append(stream.megabits)
                retransmits += stream.retransmits
                pings.add(while_loaded)
            figures[way] = probes.median(rates)
            figures[f"{way}_runs"] = rates
            figures[f"{way}_retransmits"] = retransmits
            figures |= told(f"{way}_ping", pings)
        figures["cpu_per_gb"] = probes.median(costs)
        figures["cpu_per_gb_runs"] = costs
        if plan.udp:
            for size in (1200, 100):
                figures[f"udp_{size}"] = await probes.udp_limit(site, client, size, min(0.8, plan.seconds))
        return figures


async def over_line(system: System, case: Case, plan: Plan, seed: int = 7) -> Figures:
    """Measure ping and TCP both ways over a bad line. Raises `LabError` when it does not come up."""
    async with Site(case.line, seed) as site:
        client = await system.start(site)
        await asyncio.sleep(0.5)
        idle = await probes.ping(client, site.server, 50, 0.02)
        figures: Figures = {"idle_p50": idle.at(0.5), "idle_p99": idle.at(0.99)}
        for way in ("down", "up"):
            stream, pings, full = await probes.loaded(
                *(site, client),
                down=way == "down",
                seconds=plan.seconds + 2,
                flows=case.flows,
                algorithm=plan.algorithm,
            )
            figures[way] = stream.megabits
            figures[f"{way}_retransmits"] = stream.retransmits
            figures[f"{way}_line_full"] = full
            figures |= told(f"{way}_ping", pings)
            p50 = figures[f"{way}_ping_p50"]
            figures[f"{way}_added"] = p50 - idle.at(0.5) if p50 and idle.times else None
            await asyncio.sleep(0.5)  # what still waits in the line's buffer
        return figures


def told(name: str, pings: probes.Pings) -> Figures:
    """Put pings into figures of that name."""
    return {
        f"{name}_p50": pings.at(0.5),
        f"{name}_p99": pings.at(0.99),
        f"{name}_lost": pings.lost,
        f"{name}_sent": pings.sent,
    }
