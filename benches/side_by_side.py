"""softlan beside its peers and beside no tunnel at all, in network namespaces, in one run.

    .venv/bin/python benches/side_by_side.py                     everything (a quarter of an hour at most)
    .venv/bin/python benches/side_by_side.py --only softlan,openvpn --part lan
    .venv/bin/python benches/side_by_side.py --stalls 50         only: does a lossy line ever stall

What is not installed is left out and named. docs/performance.md says what each figure means.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from peers import SYSTEMS, System
from peers.yardsticks import build
from softlan.lab.namespaces import LabError, ensure_namespaces
from softlan.lab.party import tap_allowed
from softlan.parts import reported
from suite import docs, plot, stalls, tables
from suite.figures import Plan, at_lan_speed, over_line
from suite.goals import judged
from suite.lines import CASES

_ROOT = Path(__file__).parents[1]
_DOCUMENT = _ROOT / "docs" / "performance.md"
_BOUND_OVER_LINES = "kernel-bridge"
"""What shows how much of a bad line TCP itself can use."""


def _chosen(only: str) -> list[System]:
    names = [name.strip() for name in only.split(",") if name.strip()]
    known = {system.name: system for system in SYSTEMS}
    if unknown := [name for name in names if name not in known]:
        raise LabError(f"there is no system {', '.join(unknown)}", hint=f"there are {', '.join(known)}")
    return [system for system in SYSTEMS if not names or system.name in names]


def _need_tools() -> None:
    """Raise `LabError` when what all systems are measured with is not installed."""
    lacking = [tool for tool in ("fping", "iperf3") if shutil.which(tool) is None]
    if lacking:
        raise LabError(f"{' and '.join(lacking)} not installed", hint="apt-get install fping iperf3")


def _say(words: str) -> None:
    click.echo(words, err=True)


async def _measure(chosen: list[System], plan: Plan, part: str) -> dict[str, Any]:
    systems: dict[str, Any] = {}
    lines: dict[str, dict[str, Any]] = {}
    left_out: dict[str, str] = {}
    failed: list[str] = []
    present = []
    for system in chosen:
        if reason := system.missing():
            left_out[system.name] = reason
        else:
            present.append(system)
    if part in ("all", "lan"):
        for system in present:
            start = time.monotonic()
            try:
                told = systems[system.name] = await at_lan_speed(system, plan)
            except (LabError, OSError, TimeoutError) as failure:
                left_out[system.name] = _reason(failure)
                failed.append(system.name)
                continue
            rates = f"up {told['up']:.0f}, down {told['down']:.0f} Mbit/s"
            _say(f"{system.title}: {rates} ({time.monotonic() - start:.0f} s)")
    if part in ("all", "lines"):
        if not tap_allowed():
            left_out["all bad lines"] = "/dev/net/tun cannot be opened"
        for case in CASES if tap_allowed() else ():
            told_here = lines[case.key] = {}
            start = time.monotonic()
            for system in present:
                if not system.tunnel and system.name != _BOUND_OVER_LINES:
                    continue
                try:
                    told_here[system.name] = await over_line(system, case, plan)
                except (LabError, OSError, TimeoutError) as failure:
                    left_out[f"{system.name} over {case.line.name}"] = _reason(failure)
                    failed.append(f"{system.name} over {case.line.name}")
            rates = ", ".join(f"{name} {told['down']:.0f}" for name, told in told_here.items())
            _say(f"{case.line.name}: down {rates} Mbit/s ({time.monotonic() - start:.0f} s)")
    return {"systems": systems, "lines": lines, "left_out": left_out, "failed": failed}


def _reason(failure: BaseException) -> str:
    _say(f"failed: {failure}")
    return f"failed: {str(failure).splitlines()[0] if str(failure) else repr(failure)}"


def _commit() -> str:
    """The commit of what is measured: a table that was just written into the documents makes it no other."""

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *words], cwd=_ROOT, capture_output=True, text=True, check=False)

    commit = git("describe", "--always").stdout.strip()
    changed = git("diff", "--quiet", "HEAD", "--", ".", ":!docs", ":!*.md").returncode
    return f"{commit}-dirty" if changed else commit


def _meta(command: str, plan: Plan) -> dict[str, Any]:
    machine = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text(encoding="ascii").strip()
    return {
        "command": command,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "tcp": plan.algorithm or machine,
        "seconds_a_run": plan.seconds,
        "runs": plan.runs,
        "load_before": os.getloadavg()[0],
    }


def _origin(meta: Mapping[str, Any]) -> str:
    return (
        f"`{meta['command']}`, {meta['date']}, commit {meta['commit']}, Linux {meta['kernel']}, {meta['cpus']} CPUs, "
        f"TCP inside: {meta['tcp']}; load before {meta['load_before']:.1f}; took {meta['took']:.0f} s."
    )


def _complete(results: dict[str, Any], file: Path) -> None:
    """Add the stalls of a former run of the same code, with where they are from; of any other, say why not."""
    if not file.exists():
        return
    former = json.loads(file.read_text(encoding="utf-8"))
    if reason := stalls.unlike(former["meta"], results["meta"]):
        results["left_out"] = results["left_out"] | {"the stalls in " + file.name: reason}
    else:
        results["stalls"] = former["stalls"] | {"origin": _origin(former["meta"])}


def _finish(results: dict[str, Any], out: Path, *, picture: bool, write_docs: bool) -> None:
    """Write and print what was measured. A stall run and a full one of the same code in one directory complete each other."""
    out.mkdir(parents=True, exist_ok=True)
    only_stalls = "stalls" in results
    file = out / ("stalls.json" if only_stalls else "side_by_side.json")
    if not only_stalls:
        _complete(results, out / "stalls.json")
    results["goals"] = [vars(verdict) for verdict in judged(results)]
    file.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    origin = _origin(results["meta"])
    text = tables.stalls(results) if only_stalls else tables.everything(results)
    click.echo(f"{origin}\n\n{text}")
    written = [str(file)]
    if picture and not only_stalls:
        plot.draw(results, out / "side_by_side.png")
        written.append(str(out / "side_by_side.png"))
    if write_docs and results["failed"]:
        _say(f"{_DOCUMENT.name} stays as it is: {', '.join(results['failed'])} failed")
    elif write_docs:
        docs.replace(_DOCUMENT, "stalls" if only_stalls else "side-by-side", f"{origin}\n\n{text}")
        written.append(str(_DOCUMENT))
    _say(f"\nwritten: {', '.join(written)}")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--only", default="", help=f"Systems, by comma: {', '.join(system.name for system in SYSTEMS)}."
)
@click.option(
    "--part",
    type=click.Choice(["all", "lan", "lines"]),
    default="all",
    help="At LAN speed, bad lines, or both.",
)
@click.option(
    "--seconds", type=click.FloatRange(0.5), default=3.0, help="One TCP run, in seconds.", show_default=True
)
@click.option(
    "--runs",
    type=click.IntRange(1),
    default=3,
    help="TCP runs each way; the median counts.",
    show_default=True,
)
@click.option("--tcp", default=None, help="Congestion control of the TCP inside (default: the machine's).")
@click.option(
    "--quick",
    is_flag=True,
    help="One run, at LAN speed, without UDP rates and picture: does it all still work.",
)
@click.option(
    "--stalls",
    "stall_runs",
    type=click.IntRange(1),
    is_flag=False,
    flag_value=50,
    default=None,
    help="Only look for stalls, in this many runs of 5 s (50).",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("target/side_by_side"),
    help="Where the JSON and the picture go.",
    show_default=True,
)
@click.option("--plot/--no-plot", "picture", default=True, help="Draw side_by_side.png (needs matplotlib).")
@click.option("--write-docs", is_flag=True, help="Put the tables into docs/performance.md.")
@reported
def main(
    *,
    only: str,
    part: str,
    seconds: float,
    runs: int,
    tcp: str | None,
    quick: bool,
    stall_runs: int | None,
    out: Path,
    picture: bool,
    write_docs: bool,
) -> None:
    """Measure softlan beside its peers; every figure of a table comes from one run."""
    ensure_namespaces([sys.executable, *sys.argv])
    chosen = _chosen(only)
    plan = Plan(seconds, 1 if quick else runs, udp=not quick, algorithm=tcp)
    picture = picture and not quick and stall_runs is None
    _need_tools()
    if picture:
        plot.need_matplotlib()
    if not quick:
        build()
    command = shlex.join(["benches/side_by_side.py", *sys.argv[1:]])
    meta, start = _meta(command, plan), time.monotonic()
    work = (
        _look_for_stalls(chosen, stall_runs, plan)
        if stall_runs is not None
        else _measure(chosen, plan, "lan" if quick else part)
    )
    results = asyncio.run(_until_ended(work))
    meta["took"] = time.monotonic() - start
    _finish({"meta": meta, **results}, out, picture=picture, write_docs=write_docs)
    if results["failed"] or (results["left_out"] and quick):
        sys.exit(1)


async def _look_for_stalls(chosen: list[System], runs: int, plan: Plan) -> dict[str, Any]:
    told = await stalls.look(chosen[0], runs, 5.0, plan.algorithm, _say)
    return {"systems": {}, "lines": {}, "left_out": {}, "failed": [], "stalls": told}


async def _until_ended(work: Any) -> dict[str, Any]:
    """Let SIGTERM end it as ^C does: by way of all the clean-up."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await work


if __name__ == "__main__":
    main()
