"""Attacks a relay with what peers that mean harm can send, and measures what that costs it and everybody else.

    .venv/bin/python benches/hostile.py [--datagrams 1000000] [--rate 20000] [--only datagrams,beside,...] [--json FILE] [--write-docs]
    .venv/bin/python benches/hostile.py --from-json FILE ... --write-docs

As root, or as anybody where user namespaces are allowed; needs cargo for the attacker. Takes some seven minutes, or `--only` a part
(datagrams, beside, initials, limits) at a time, of which `--from-json` then makes one table. Pings are compared
with the ones between the attacks of the same run: on a machine with other work to do, look at the difference twice.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from beside import Bystander, Cost, Scene, against_all_quiet, handshakes_are_over, measure
from softlan.errors import SoftlanError
from softlan.lab import Party, census
from softlan.lab.docs import machine_line, origin_of, replace_between
from softlan.lab.hostile import (
    COUNTED,
    CROSSING,
    ELSEWHERE,
    KINDS,
    LIMITED,
    Attacker,
    Watch,
    build_tool,
    let_through,
    limited,
    watching,
    wire_bytes,
)
from softlan.lab.namespaces import ensure_namespaces
from softlan.lab.party import Client, Relay
from softlan.observe.counters import known_counters

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs" / "reliability.md"
QUIET_S = 20.0
LIMITS = {0.1e6: (4.0, 20.0), 1e6: (4.0, 10.0), 10e6: (4.0, 10.0), 100e6: (1.6, 10.0)}
"""Bits a second: how many times as much is sent, and for how many seconds."""


@dataclass(frozen=True)
class Line:
    """One row of the table."""

    figure: str
    goal: str
    measured: str
    good: bool | None
    """None: it has no goal."""


async def party_of_two(party: Party, *relay_options: str) -> tuple[Client, Client]:
    lan = party.add_lan("home")
    await party.start_relay(*relay_options)
    await party.start_gateway("gateway", lan)
    ann = await party.start_client("ann", address="192.168.88.51")
    ben = await party.start_client("ben", address="192.168.88.52")
    return ann, ben


async def quiet(watch: Watch, seconds: float = QUIET_S) -> tuple[float, float]:
    """Pings without an attack; gives when they began and ended."""
    await asyncio.sleep(1)
    start = time.monotonic()
    await asyncio.sleep(seconds)
    return start, time.monotonic()


async def counted(relay: Relay, since: int, room: str, connections: int) -> Counter[str]:
    """What the relay counted of an attacker, all its connections together, once it knows that they have ended."""
    told = Counter[str]()
    for _ in range(connections):
        left = await relay.program.event("peer.left", since=since, room=room)
        since = relay.program.events.index(left, since) + 1
        told.update(known_counters(left.fields))
    return told


def ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"


async def datagrams(tool: Path, count: int, rate: float, figures: dict[str, Any]) -> list[Line]:
    each = count // len(KINDS)
    async with Party() as party:
        ann, ben = await party_of_two(party, "--malformed-limit", "1000000")
        relay = party.relay
        assert relay is not None
        cat = await Bystander.join(party)
        mallory = Attacker(party, tool)
        async with watching(relay, (ann, party.player("server")), (ben, ann)) as watch:
            await asyncio.sleep(1)
            before = max(watch.memory)
            told, slices, calm_ones, stormy_ones = [], {}, [], []
            for kind in KINDS:
                # As long without the attack as with it, so that what else this machine does falls on both alike.
                began = time.monotonic()
                await asyncio.sleep(each / rate)
                calm_ones.append((began, time.monotonic()))
                room = "MACS" if kind == "macs" else "PARTY1"
                mark = relay.program.mark()
                began = time.monotonic()
                victim = cat.client if kind in ELSEWHERE else ann
                told.append(await mallory.datagrams(kind, each, rate, room=room, victim=victim))
                stormy_ones.append((began, time.monotonic()))
                left = await counted(relay, mark, room, int(told[-1]["connections"]))
                await asyncio.sleep(0.3)
                calm, stormy = watch.pings(*calm_ones[-1]), watch.pings(*stormy_ones[-1])
                slices[kind] = {
                    "p99_before_ms": round(calm.percentile(0.99) * 1000, 3),
                    "p99_ms": round(stormy.percentile(0.99) * 1000, 3),
                    "lost": stormy.lost,
                    "pings": stormy.sent,
                    "rss_kib": watch.memory[-1],
                    **told[-1],
                    "received": left["datagrams_received"],
                    "counted": left[COUNTED[kind]],
                    "let_through": let_through(kind, left),
                }
                print(f"    {slices[kind]}", flush=True)
            await asyncio.sleep(1)
            calm, stormy = watch.pooled(calm_ones), watch.pooled(stormy_ones)
            took = sum(ended - began for began, ended in stormy_ones)
            peak = max(watch.memory)
        crossed, end_memory = await cat.reached(), census.memory_kib(relay.program.pid)
        hears = await cat.hears()
        cat.close()
    sent = sum(int(one["sent"]) for one in told)
    received = sum(one["received"] for one in slices.values())
    aimed = sum(slices[kind]["received"] for kind in CROSSING)
    passed = sum(one["let_through"] for kind, one in slices.items() if kind not in LIMITED)
    more = (peak - before) / 1024
    loss = stormy.lost / max(1, stormy.sent)
    slower = stormy.percentile(0.99) - calm.percentile(0.99)
    by_kind = statistics.median(one["p99_ms"] - one["p99_before_ms"] for one in slices.values())
    figures["datagrams"] = {
        "sent": sent,
        "received": received,
        "seconds": took,
        "p99_more_median_of_kinds_ms": by_kind,
        "memory_before_kib": before,
        "memory_peak_kib": peak,
        "memory_end_kib": end_memory,
        "pings": stormy.sent,
        "pings_lost": stormy.lost,
        "pings_lost_before": calm.lost,
        "pings_before": calm.sent,
        "p50_before_ms": calm.percentile(0.5) * 1000,
        "p50_ms": stormy.percentile(0.5) * 1000,
        "p99_before_ms": calm.percentile(0.99) * 1000,
        "p99_ms": stormy.percentile(0.99) * 1000,
        "frames_across_rooms": crossed,
        "aimed_across_rooms": aimed,
        "bystander_hears": hears,
        "kinds": slices,
    }
    what = f"{sent:,} hostile datagrams in {took:.0f} s"
    return [
        Line(
            f"{what}: received by the relay",
            ">= 90 %",
            f"{received:,} ({received / sent:.1%})",
            received >= 0.9 * sent,
        ),
        Line(
            f"frames let through of the {len(KINDS) - len(LIMITED)} kinds that no limit is for",
            "0",
            str(passed),
            passed == 0,
        ),
        Line("relay's memory", "+ <= 32 MiB", f"+ {more:.1f} MiB", more <= 32),
        Line(
            "others' loss meanwhile",
            "< 0.1 %",
            f"{loss:.3%} ({stormy.lost} of {stormy.sent} pings)",
            loss < 0.001,
        ),
        Line(
            "others' p99 ping",
            "+ <= 2 ms",
            f"{ms(calm.percentile(0.99))} before, {ms(stormy.percentile(0.99))} meanwhile: {slower * 1000:+.2f} ms",
            slower <= 0.002,
        ),
        Line(
            f"the same kind by kind: the middle one of the {len(KINDS)} differences",
            "+ <= 2 ms",
            f"{by_kind:+.2f} ms",
            by_kind <= 2,
        ),
        across_rooms(aimed, crossed, hears),
    ]


def across_rooms(aimed: int, crossed: int, hears: bool) -> Line:
    """Judge what became of frames that the relay received and that were aimed at a client of another room, who `hears` its own."""
    what = "frames delivered across rooms, of those for a client of another room, in its name, and to all"
    words = f"{crossed} of {aimed:,} that the relay received"
    if not hears:
        words += "; the client hears nothing of its own room either"
    return Line(what, "0", words, crossed == 0 < aimed and hears)


async def ended_again_and_again(tool: Path, figures: dict[str, Any]) -> list[Line]:
    """The usual limits: the attacker is thrown out and comes back, until its address must wait; it goes on trying."""
    async with Party() as party:
        ann, ben = await party_of_two(party)
        relay = party.relay
        assert relay is not None
        mallory = Attacker(party, tool)
        async with watching(relay, (ann, party.player("server")), (ben, ann)) as watch:
            calm_start, calm_end = await quiet(watch, 10)
            before = max(watch.memory[-20:])
            start = time.monotonic()
            told = [
                await mallory.datagrams(kind, 10_000, 20_000, victim=ann)
                for kind in ("garbage", "empty", "foreign")
            ]
            end = time.monotonic()
            await asyncio.sleep(1)
            calm, stormy = watch.pings(calm_start, calm_end), watch.pings(start, end - 0.3)
            more = (max(watch.memory) - before) / 1024
    connections, refused = (sum(int(one[what]) for one in told) for what in ("connections", "refused"))
    figures["ended"] = {
        "told": told,
        "memory_more_mib": more,
        "pings": stormy.sent,
        "pings_lost": stormy.lost,
    }
    slower = stormy.percentile(0.99) - calm.percentile(0.99)
    return [
        Line(
            f"thrown out {connections} times and then refused {refused} times ({end - start:.0f} s): memory, loss, p99",
            "the same",
            f"+ {more:.1f} MiB, {stormy.lost} of {stormy.sent}, {slower * 1000:+.2f} ms",
            more <= 32 and stormy.lost < 0.001 * stormy.sent and slower <= 0.002,
        )
    ]


async def beside(tool: Path, seconds: float, rate: float, figures: dict[str, Any]) -> list[Line]:
    """What can be done beside datagrams, one after the other, and then together with all of them."""
    costs: list[Cost] = []
    async with Party() as party:
        ann, ben = await party_of_two(party, "--malformed-limit", "1000000")
        relay = party.relay
        assert relay is not None
        cat = await Bystander.join(party)
        async with watching(relay, (ann, party.player("server")), (ben, ann)) as watch:
            dan = party.make_client("dan")
            scene = Scene(party, tool, relay, watch, ben, cat, dan, seconds, rate)
            one_by_one = (
                scene.unicast,
                scene.permitted,
                scene.drips,
                scene.control_flood,
                lambda: scene.readers(rate, 0),
                lambda: scene.readers(rate / 200),
                scene.silent,
                scene.handshakes,
                lambda: scene.handshakes(addresses=8),
            )
            for make in one_by_one:
                attack = make()
                costs.append(await measure(scene, attack.what, [attack]))
                print(f"    {asdict(costs[-1])}", flush=True)
            await handshakes_are_over(relay)
            scene.seconds *= 2
            together = [
                scene.floods(),
                scene.permitted(4),
                scene.drips(1000),
                scene.readers(rate / 10, 0),
                scene.silent(20),
                scene.handshakes(50),
            ]
            costs.append(await measure(scene, "all of these at once", together))
            print(f"    {asdict(costs[-1])}", flush=True)
            costs = against_all_quiet(scene, costs)
        crossed, hears = await cat.reached(), await cat.hears()
        cat.close()
    figures["beside"] = {"costs": [asdict(cost) for cost in costs], "frames_across_rooms": crossed}
    lines = [line for cost in costs for line in lines_of(cost)]
    heard = "" if hears else "; the client hears nothing of its own room either"
    return [
        *lines,
        Line("frames delivered across rooms meanwhile", "0", f"{crossed}{heard}", hears and not crossed),
    ]


def lines_of(cost: Cost) -> list[Line]:
    """Put what an attack cost into words."""
    told = (
        f"{cost.memory_mib:+.1f} MiB, {cost.lost} of {cost.pings}, {cost.slower_ms:+.2f} ms, {cost.newcomer}"
    )
    arrived = "; ".join(one.words for one in cost.arrived)
    return [
        Line(f"{cost.what}: memory, loss, p99, a newcomer", "the same, and joins", told, cost.bearable),
        Line(
            "what of it arrived; the relay's processors",
            ">= 90 %",
            f"{arrived}; {cost.processors:.2f}",
            all(one.enough for one in cost.arrived),
        ),
    ]


async def initials(tool: Path, seconds: float, rate: float, figures: dict[str, Any]) -> list[Line]:
    async with Party() as party:
        ann, ben = await party_of_two(party)
        relay = party.relay
        assert relay is not None
        mallory = Attacker(party, tool)
        mallory.accept_spoofed()
        dan = party.make_client("dan")
        async with watching(relay, (ann, party.player("server")), (ben, ann)) as watch:
            calm_start, calm_end = await quiet(watch)
            memory = max(watch.memory[-20:])
            counted = wire_bytes(mallory.host)
            flood = asyncio.create_task(mallory.initials(int(rate * seconds), rate))
            # They are made first, then sent.
            while not flood.done():
                if wire_bytes(mallory.host)[0] - counted[0] > 1_000_000:
                    break
                await asyncio.sleep(0.02)
            start = time.monotonic()
            await asyncio.sleep(seconds / 3)
            joining = time.monotonic()
            try:
                await dan.start()
                joined = f"in {time.monotonic() - joining:.1f} s"
            except SoftlanError as error:
                joined = f"not: {str(error).splitlines()[0]}"
            settled = time.monotonic() + 0.5
            told = await flood
            end = time.monotonic()
            await asyncio.sleep(1)
            # Without the newcomer's own start, for which this one machine has to find the time as well.
            calm, stormy = (
                watch.pings(calm_start, calm_end),
                watch.pooled([(start, joining), (settled, end - 0.3)]),
            )
            more = (max(watch.memory) - memory) / 1024
            after = wire_bytes(mallory.host)
            became = (await relay.status())["handshakes"]
    got, answered = after[0] - counted[0], after[1] - counted[1]
    ratio = answered / got
    slower = stormy.percentile(0.99) - calm.percentile(0.99)
    real_rate = int(told["sent"]) / float(told["seconds"])
    figures["initials"] = {
        **told,
        "rate": real_rate,
        "bytes_to_relay": got,
        "bytes_from_relay": answered,
        "ratio": ratio,
        "p99_before_ms": calm.percentile(0.99) * 1000,
        "p99_ms": stormy.percentile(0.99) * 1000,
        "pings": stormy.sent,
        "pings_lost": stormy.lost,
        "memory_more_mib": more,
        "newcomer": joined,
        "handshakes": became,
    }
    return [
        Line(
            f"{real_rate:,.0f} Initials/s from spoofed sources for {end - start:.0f} s: existing peers' p99 ping",
            "+ <= 5 ms",
            f"{ms(calm.percentile(0.99))} before, {ms(stormy.percentile(0.99))} meanwhile: {slower * 1000:+.2f} ms",
            slower <= 0.005,
        ),
        Line("bytes sent by the relay to them", "<= 3 x received", f"{ratio:.2f} x", ratio <= 3),
        Line(
            "existing peers' loss, relay's memory, a newcomer",
            "-",
            f"{stormy.lost} of {stormy.sent}, + {more:.1f} MiB, joins {joined}",
            None,
        ),
        Line(
            "what became of the Initials: Retry, a handshake begun, dropped unread",
            "-",
            f"{became['retries']:,}, {became['begun']:,}, {became['dropped']:,}",
            None,
        ),
    ]


async def limits(figures: dict[str, Any]) -> list[Line]:
    lines = []
    figures["limits"] = []
    for option, rates in (("total", LIMITS), ("broadcast", {1e6: LIMITS[1e6]})):
        for rate, (times, seconds) in rates.items():
            async with Party() as party:
                ann, _ = await party_of_two(party, f"--limit-{option}", f"{rate / 1e6:g}mbit")
                passed = await limited(
                    ann,
                    party.player("server"),
                    rate,
                    times=times,
                    seconds=seconds,
                    broadcast=option == "broadcast",
                )
            figures["limits"].append({"limit": option, **asdict(passed)})
            lines.append(
                Line(
                    f"--limit-{option} {rate / 1e6:g} Mbit/s, {passed.offered / 1e6:.4g} Mbit/s offered",
                    "within 5 %",
                    f"{passed.passed / 1e6:.4g} Mbit/s ({passed.error:+.1%})",
                    abs(passed.error) <= 0.05,
                )
            )
            print(f"    {lines[-1]}", flush=True)
    return lines


def table(lines: list[Line]) -> str:
    words = {True: "yes", False: "**no**", None: "-"}
    rows = [("figure", "goal", "measured", "met"), ("---",) * 4]
    rows += [(line.figure, line.goal, line.measured, words[line.good]) for line in lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def known(runs: Sequence[Mapping[str, Any]]) -> list[Line]:
    """Give the lines of former runs, in their order."""
    return [Line(**line) for run in runs for line in run["lines"]]


async def run(told: argparse.Namespace, tool: Path, figures: dict[str, Any]) -> list[Line]:
    wanted = set(told.only.split(","))
    lines: list[Line] = []
    if "datagrams" in wanted:
        lines += await datagrams(tool, told.datagrams, told.rate, figures)
        lines += await ended_again_and_again(tool, figures)
    if "beside" in wanted:
        lines += await beside(tool, told.each, told.rate, figures)
    if "initials" in wanted:
        lines += await initials(tool, told.seconds, told.initials, figures)
    if "limits" in wanted:
        lines += await limits(figures)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--datagrams", type=int, default=1_000_000, help="hostile datagrams, all kinds together"
    )
    parser.add_argument("--rate", type=float, default=20_000, help="of them a second")
    parser.add_argument("--initials", type=float, default=10_000, help="Initials a second")
    parser.add_argument("--seconds", type=float, default=12, help="of Initials")
    parser.add_argument("--each", type=float, default=5, help="seconds of each attack beside datagrams")
    parser.add_argument("--only", default="datagrams,beside,initials,limits")
    parser.add_argument(
        "--from-json", type=Path, nargs="+", help="run nothing: take the figures of former runs"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--write-docs", action="store_true", help=f"put the table into {DOCS.name}")
    told = parser.parse_args()
    figures: dict[str, Any] = {"load_before": os.getloadavg()[0]}
    try:
        if told.from_json:
            runs = [json.loads(file.read_text()) for file in told.from_json]
            lines, origin = known(runs), origin_of(runs)
        else:
            ensure_namespaces([sys.executable, *sys.argv])
            lines = asyncio.run(run(told, build_tool(ROOT), figures))
            origin = machine_line()
    except SoftlanError as error:
        sys.exit(f"error: {error}" + (f"\nhint: {error.hint}" if error.hint else ""))
    figures |= {"load_after": os.getloadavg()[0], "origin": origin}
    print(f"\n{table(lines)}\n\n{origin}")
    if not told.from_json:
        print(f"load average {figures['load_before']:.1f} before, {figures['load_after']:.1f} after")
    if told.json:
        figures["lines"] = [asdict(line) for line in lines]
        told.json.write_text(json.dumps(figures, indent=2) + "\n")
    if told.write_docs:
        replace_between(DOCS, "hostile", f"{table(lines)}\n\n{origin}")
    sys.exit(0 if all(line.good is not False for line in lines) else 1)


if __name__ == "__main__":
    main()
