"""Breaks a party in every way `softlan.lab.faults` knows, again and again, and says how soon it was back and what was left behind.

    .venv/bin/python benches/faults.py [--quick] [--only NAME,...] [--scale 0.5] [--json FILE] [--write-docs]

It fails for what is never right, and but for --quick also for what is not as promised (`softlan.lab.soak.Outcome`): that
takes a machine that has time for it.

As root, or as anybody where user namespaces are allowed. Takes about half an hour; --quick some fifty seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from softlan.errors import SoftlanError
from softlan.lab.docs import machine_line, origin_of, replace_between
from softlan.lab.faults import FAULTS
from softlan.lab.faults_of_state import private_mounts
from softlan.lab.namespaces import ensure_namespaces
from softlan.lab.party import tap_allowed, usual_party
from softlan.lab.scene import Scene, watched
from softlan.lab.soak import Fault, Outcome, soak
from softlan.texts import several

DOCS = Path(__file__).parents[1] / "docs" / "reliability.md"
HEAD = (
    "fault",
    "cycles",
    "back after, median",
    "worst",
    "later than 3 s",
    "less the program's start: median",
    "worst",
    "later than 3 s",
    "told to end: ended after, worst",
    "bystander's lost pings",
    "left behind",
    "went wrong",
    "memory a cycle",
)


def row(told: Mapping[str, Any]) -> tuple[str, ...]:
    memory = told["memory"]
    started = told["start_median_s"] is not None
    return (
        told["title"],
        str(told["cycles"]),
        f"{told['back_median_s']:.2f} s" if told["cycles"] else "-",
        f"{told['back_worst_s']:.2f} s" if told["cycles"] else "-",
        str(told["late"]) if told["cycles"] else "-",
        f"{told['own_median_s']:.2f} s" if started else "-",
        f"{told['own_worst_s']:.2f} s" if started else "-",
        str(told["late_own"]) if started else "-",
        f"{told['ended_worst_s']:.2f} s" if told["ended_worst_s"] is not None else "-",
        f"{told['bystander_pings_lost']} of {told['bystander_pings']}" if told["bystander_pings"] else "-",
        things(told["leaks"]) if told["cycles"] else "-",
        things(told["wrong"]),
        f"{memory['kib_per_cycle']:+.1f} KiB ({memory['part']})" if memory["cycles"] else "-",
    )


def things(words: Sequence[str]) -> str:
    return several(len(words), "thing") if words else "nothing"


def table(figures: Sequence[Mapping[str, Any]], bad: Sequence[str]) -> str:
    """All faults, those that came to nothing too; below them, what must not be."""
    lines = [HEAD, tuple("---" for _ in HEAD), *(row(told) for told in figures)]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([text, "", *(f"- {words.partition(chr(10))[0]}" for words in bad)]) if bad else text


@contextlib.asynccontextmanager
async def usual_scene() -> AsyncIterator[Scene]:
    async with usual_party() as party, watched(party) as scene:
        yield scene


async def run(
    faults: list[Fault],
    outcomes: list[Outcome],
    keep: Callable[[], None],
    *,
    quick: bool,
    scale: float,
    seed: int,
) -> None:
    """Fill `outcomes`, and `keep` them after each fault. One that fails is kept as far as it came, and the next begins."""

    async def one(fault: Fault, scene: Scene) -> None:
        cycles = fault.quick if quick else max(1, round(fault.full * scale))
        reached: list[Outcome] = []

        def progress(outcome: Outcome) -> None:
            reached[:] = [outcome]
            if sys.stderr.isatty():
                sys.stderr.write(
                    f"\r{outcome.title}: {len(outcome.back)} of {cycles}, last {outcome.back[-1]:.2f} s\x1b[K"
                )
                sys.stderr.flush()

        try:
            outcome = await soak(fault, scene, cycles, seed, progress)
        except SoftlanError as error:
            outcome = reached[0] if reached else Outcome(fault.name, fault.title)
            outcome.wrong.append(f"ended after {len(outcome.back)} of {cycles} cycles: {error}")
        print(" | ".join(row(outcome.as_json())), flush=True)
        for words in [*outcome.leaks, *outcome.wrong, *outcome.stories]:
            print(f"    {words}", flush=True)
        outcomes.append(outcome)
        keep()

    async def in_one_scene(faults: list[Fault]) -> None:
        if faults:
            async with usual_scene() as scene:
                for fault in faults:
                    await one(fault, scene)

    async def in_scenes_of_their_own(faults: list[Fault]) -> None:
        for fault in faults:
            try:
                async with (fault.scene or usual_scene)() as scene:
                    await one(fault, scene)
            except SoftlanError as error:
                outcome = Outcome(fault.name, fault.title, wrong=[f"never began: {error}"])
                print(f"{fault.title}\n    {outcome.wrong[0]}", flush=True)
                outcomes.append(outcome)
                keep()

    if not quick:
        await in_scenes_of_their_own(faults)
        return
    # Most of it is waiting, so that two parties at a time take half as long.
    wanted = [fault for fault in faults if fault.quick]
    await asyncio.gather(
        in_one_scene([fault for fault in wanted if fault.scene is None]),
        in_scenes_of_their_own([fault for fault in wanted if fault.scene is not None]),
    )


def origin(seed: int) -> str:
    """Say when and where a run was made, and what it could not look at there."""
    if tap_allowed():
        return machine_line(seed)
    return f"{machine_line(seed)} Without /dev/net/tun: clients were attached to cables, and whether a TAP stays behind was not looked at."


def bad(outcomes: list[Outcome], *, quick: bool) -> list[str]:
    """What must not be. A quick run, which any machine makes at any load, is not held to times and slopes."""
    found = []
    for outcome in outcomes:
        words = outcome.never_right() + ([] if quick else outcome.not_as_promised())
        found += [f"{outcome.name}: {word}" for word in words]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one to three cycles of each")
    parser.add_argument(
        "--only", default="", help="names of faults, with commas: " + ", ".join(f.name for f in FAULTS)
    )
    parser.add_argument("--scale", type=float, default=1.0, help="times the usual number of cycles")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--write-docs", action="store_true", help=f"put the table into {DOCS.name}")
    parser.add_argument(
        "--from-json", type=Path, nargs="+", help="run nothing: take the figures of former runs"
    )
    told = parser.parse_args()
    if told.from_json:
        sys.exit(1 if show(told, [json.loads(path.read_text()) for path in told.from_json]) else 0)
    ensure_namespaces([sys.executable, *sys.argv])
    private_mounts()
    wanted = set(filter(None, told.only.split(",")))
    faults = [fault for fault in FAULTS if not wanted or fault.name in wanted]
    start = time.monotonic()
    outcomes: list[Outcome] = []

    def so_far() -> dict[str, Any]:
        return {
            "seconds": round(time.monotonic() - start, 1),
            "origin": origin(told.seed),
            "bad": bad(outcomes, quick=told.quick),
            "faults": [outcome.as_json() for outcome in outcomes],
        }

    def keep() -> None:
        if told.json:
            told.json.write_text(json.dumps(so_far(), indent=2) + "\n")

    failure = ""
    try:
        asyncio.run(run(faults, outcomes, keep, quick=told.quick, scale=told.scale, seed=told.seed))
    except SoftlanError as error:
        failure = f"error: {error}" + (f"\nhint: {error.hint}" if error.hint else "")
        told.write_docs = False
    is_bad = show(told, [so_far()])
    print(f"\n{time.monotonic() - start:.0f} s, load average at the end {os.getloadavg()[0]:.1f}")
    sys.exit(failure or (1 if is_bad else 0))


def show(told: argparse.Namespace, runs: Sequence[Mapping[str, Any]]) -> bool:
    """Print the table of these runs, and write it where that is wanted; tell whether anything was as it must not be."""
    faulty = [words for run in runs for words in run["bad"]]
    text = table([fault for run in runs for fault in run["faults"]], faulty)
    text = f"{text}\n\n{origin_of(runs)}"
    print(f"\n{text}")
    if told.write_docs:
        replace_between(DOCS, "faults", text)
    return bool(faulty)


if __name__ == "__main__":
    main()
