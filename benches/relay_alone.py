"""The relay alone: what one core of it forwards between real QUIC peers on loopback, beside a bare UDP forwarder and the speed of AES.

    .venv/bin/python benches/relay_alone.py [--out FILE.json] [--write-docs] [--only 2,64] [--seconds 3]

The relay is `softlan relay` as players meet it, kept on one core; the load (`rust/bench`, built when needed) runs on another, with a
bounded number of frames under way. "A core" is what was forwarded divided by the CPU time the relay's process spent on it, so
that what else the machine does counts little. Figures are for comparing with each other within one run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOAD = ROOT / "target" / "release" / "softlan-load"
DOCS = ROOT / "docs" / "performance.md"
MARKS = ("<!-- relay-alone -->", "<!-- /relay-alone -->")
FULL, SMALL = 1400, 100
"""Bytes of an Ethernet frame; QUIC, UDP and IP come on top and are not counted."""
MEMORY_PEERS = 500
KIB = 1024

Figures = dict[str, Any]

complaints: list[str] = []
"""What went wrong without spoiling the figures, told in the end."""


class BenchError(Exception):
    """Nothing can be measured; the text says why."""


@dataclass(frozen=True)
class Case:
    """Peers in rooms, and what they do one after the other on one fresh relay."""

    peers: int
    rooms: int
    phases: tuple[str, ...]


CASES = (
    Case(2, 1, (f"unicast:{FULL}", f"unicast:{SMALL}")),
    Case(8, 1, (f"unicast:{FULL}", f"unicast:{SMALL}")),
    Case(64, 1, tuple(f"{kind}:{size}" for kind in ("unicast", "broadcast") for size in (FULL, SMALL))),
    Case(64, 16, (f"unicast:{FULL}", f"unicast:{SMALL}")),
    Case(200, 100, (f"unicast:{FULL}", f"unicast:{SMALL}")),
    Case(MEMORY_PEERS, 8, ("idle", f"unicast:{FULL}", f"unicast:{SMALL}")),
)


@dataclass(frozen=True)
class Cores:
    """Where the relay and the load run."""

    relay: int
    load: int

    @classmethod
    def of_this_machine(cls) -> Cores:
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise BenchError("two cores are needed: one for the relay, one for the load")
        return cls(cores[0], cores[1])


# Processes


def built() -> Path:
    """Build the load generator; does nothing when it is up to date."""
    subprocess.run(["cargo", "build", "-q", "--release", "-p", "softlan-bench"], cwd=ROOT, check=True)
    return LOAD


def start(command: Sequence[str | Path], core: int, **more: Any) -> subprocess.Popen[str]:
    """Start a program on a core, ahead of what else the machine does where we may say so."""
    pinned = ["taskset", "-c", str(core), *map(str, command)]
    process = subprocess.Popen(pinned, text=True, start_new_session=True, **more)
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, process.pid, -10)
    # Where sessions are scheduled as groups (CONFIG_SCHED_AUTOGROUP), the group's own niceness is what counts.
    with contextlib.suppress(OSError):
        Path(f"/proc/{process.pid}/autogroup").write_text("-15")
    return process


@contextlib.contextmanager
def running(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Relay:
    """A relay that listens."""

    pid: int
    address: str
    certificate: Path

    def resident(self) -> int:
        """Memory it has now, in bytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def relay(cores: Cores, options: Sequence[str]) -> Iterator[Relay]:
    """`softlan relay` on loopback, with room for everybody and no limits."""
    with tempfile.TemporaryDirectory(prefix="softlan-bench-") as directory:
        log, certificate = Path(directory, "log"), Path(directory, "relay.der")
        command = [sys.executable, "-m", "softlan.relay", "--listen", "127.0.0.1:0", "--log-format", "json"]
        command += ["--dev-cert-der-out", str(certificate), "--max-peers-per-room", "1000"]
        command += ["--limit-storm", "off", "--limit-broadcast", "off", "--limit-unknown", "off"]
        # All peers of the load have one address.
        command += ["--max-connections-per-address", "1000", "--hellos-per-address", "1000", *options]
        environment = {**os.environ, "SOFTLAN_RUNTIME_DIR": directory}
        with (
            log.open("w") as stderr,
            running(start(command, cores.relay, stderr=stderr, env=environment)) as process,
        ):
            deadline = time.monotonic() + 30
            while not (heard := [line for line in events(log) if line.get("event") == "relay.listening"]):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise BenchError("the relay does not listen:\n" + log.read_text())
                time.sleep(0.02)
            yield Relay(process.pid, heard[0]["address"], certificate)
        written = log.read_text()
        if "panicked" in written:
            raise BenchError(f"the relay panicked:\n{written[-3000:]}")
        if process.returncode != 0:
            complaints.append(f"the relay ended with {process.returncode}; its last words: {written[-300:]}")


def events(log: Path) -> list[Figures]:
    lines = log.read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


def load(cores: Cores, *arguments: str | Path) -> list[Figures]:
    """Run the load generator; gives what it printed, an object a phase."""
    command = [LOAD, *arguments, "--core", str(cores.load)]
    process = start(command, cores.load, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with running(process):
        output, errors = process.communicate(timeout=600)
    if process.returncode != 0:
        raise BenchError(f"softlan-load {' '.join(map(str, arguments))}: {errors.strip()}")
    return [json.loads(line) for line in output.splitlines()]


# Measurements


def through_relay(cores: Cores, case: Case, seconds: float, options: Sequence[str]) -> list[Figures]:
    with relay(cores, options) as one:
        time.sleep(0.5)  # what only a start does is over
        figures = load(
            *(
                cores,
                "relay",
                "--address",
                one.address,
                "--certificate",
                one.certificate,
                "--pid",
                str(one.pid),
            ),
            *("--relay-core", str(cores.relay), "--peers", str(case.peers), "--rooms", str(case.rooms)),
            *("--seconds", str(seconds), *case.phases),
        )
        joined, phases = figures[0], figures[1:]
        for phase in phases:
            derive(phase)
            if phase["phase"] == "idle":
                before = joined["resident_before_bytes"]
                phase["bytes_a_peer"] = (phase["relay_resident_bytes"] - before) / case.peers
                phase["resident_before_bytes"] = before
        if any(phase["phase"] == "idle" for phase in phases):
            time.sleep(4)  # longer than the idle timeout: all are gone, however they left
            phases[0]["left_bytes_a_peer"] = (one.resident() - joined["resident_before_bytes"]) / case.peers
    return phases


def derive(figures: Figures) -> None:
    """Add rates to what the load generator counted."""
    delivered, cpu = figures["delivered"], figures["relay_cpu_s"]
    bits = 8 * figures["frame_bytes"] * delivered
    figures["gbit_a_core"] = bits / cpu / 1e9
    figures["frames_a_core"] = delivered / cpu
    figures["gbit"] = bits / figures["seconds"] / 1e9
    figures["frames"] = delivered / figures["seconds"]
    figures["loss"] = figures["missing"] / max(1, delivered + figures["missing"])
    figures["core_used"] = cpu / figures["seconds"]


def through_forwarder(cores: Cores, packet: int, seconds: float, offloads: bool) -> Figures:
    """The same load over bare UDP, nothing looked at: no peer, no crypto, no switch."""
    command = [LOAD, "forward", "--core", str(cores.relay), "--offloads", "on" if offloads else "off"]
    with running(start(command, cores.relay, stdout=subprocess.PIPE)) as forwarder:
        assert forwarder.stdout is not None
        address = json.loads(forwarder.stdout.readline())["forwarder"]
        [figures] = load(
            *(cores, "udp", "--address", address, "--pid", str(forwarder.pid)),
            *("--packet", str(packet), "--seconds", str(seconds)),
        )
    figures |= {
        "phase": "bare UDP, GSO and GRO" if offloads else "bare UDP, packet by packet",
        "peers": 2,
        "rooms": 1,
    }
    derive(figures)
    return figures


def aes(cores: Cores) -> float:
    """AES-128-GCM of `openssl speed` at 1400 bytes on the relay's core, in Gbit/s, in one second of now."""
    command = ["openssl", "speed", "-seconds", "1", "-bytes", str(FULL), "-mr", "-evp", "aes-128-gcm"]
    with running(start(command, cores.relay, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)) as process:
        output, _ = process.communicate(timeout=60)
    found = re.search(r"^\+F:\d+:[^:]*:([\d.]+)", output, re.MULTILINE)
    if found is None:
        raise BenchError(f"openssl speed said nothing of use:\n{output}")
    return 8 * float(found[1]) / 1e9


# Goals


@dataclass(frozen=True)
class Goal:
    """One line of the issue's list."""

    name: str
    unit: str
    goal: float
    measured: float | None
    at_most: bool = False
    spoiled: bool = False
    """Something else the goal asks for was not kept."""

    @property
    def met(self) -> bool | None:
        if self.measured is None:
            return None
        reached = self.measured <= self.goal if self.at_most else self.measured >= self.goal
        return reached and not self.spoiled


def goals(rows: Sequence[Figures]) -> list[Goal]:
    def one(peers: int, phase: str, frame: int, figure: str) -> float | None:
        # One room rather than several, where both were measured.
        fitting = [
            row
            for row in rows
            if (row["peers"], row["phase"], row["frame_bytes"]) == (peers, phase, frame) and figure in row
        ]
        best = min(fitting, key=lambda row: row["rooms"], default=None)
        return None if best is None else best[figure]

    def against_aes(peers: int) -> float | None:
        return one(peers, "unicast", FULL, "of_half_aes")

    memory = one(MEMORY_PEERS, "idle", 0, "bytes_a_peer")
    lost = bool(one(64, "broadcast", SMALL, "missing"))
    fan_out = one(64, "broadcast", SMALL, "frames_a_core")
    return [
        *(
            Goal(f"{peers} peers, {FULL} B, against half of AES-128-GCM", "x", goal, against_aes(peers))
            for peers, goal in ((2, 0.9), (64, 0.6), (500, 0.5))
        ),
        Goal(
            "64 peers, 100 B frames a core", "M/s", 3.0, millions(one(64, "unicast", SMALL, "frames_a_core"))
        ),
        Goal(
            "one 100 B broadcast to 63, nothing lost, deliveries a core"
            + (" (some were lost)" if lost else ""),
            *("M/s", 1.0, millions(fan_out)),
            spoiled=lost,
        ),
        Goal("memory a connected idle peer at 500", "KiB", 128, memory and memory / KIB, at_most=True),
    ]


def millions(figure: float | None) -> float | None:
    return None if figure is None else figure / 1e6


# Telling


def table(rows: Sequence[Figures]) -> str:
    lines = [
        "load                        peers rooms frame | Gbit/s  k frames/s |  Gbit/s  k frames/s   loss  core  load's  window   AES",
        "                                              |  a core      a core |                        %  used    core",
    ]
    for row in rows:
        if row["phase"] == "idle":
            continue
        generator = row.get("generator_cpu_s")
        speed = f"{row['aes_gbit']:6.1f}" if "aes_gbit" in row else ""
        used = "" if generator is None else f"{100 * generator / row['seconds']:5.0f} %"
        lines.append(
            f"{row['phase']:27} {row['peers']:5} {row['rooms']:5} {row['frame_bytes']:5} | {row['gbit_a_core']:6.2f}"
            f" {row['frames_a_core'] / 1e3:11.0f} | {row['gbit']:7.2f} {row['frames'] / 1e3:11.0f}"
            f" {100 * row['loss']:6.2f} {100 * row['core_used']:3.0f} % {used:>7} {row['window']:7}{speed}"
        )
    lines.append(
        f"AES: openssl speed of AES-128-GCM at {FULL} bytes, Gbit/s, the mean of a second before and a second after"
    )
    for row in rows:
        if row["phase"] == "idle":
            left = row.get("left_bytes_a_peer", 0.0)
            lines.append(
                f"memory at {row['peers']} idle peers: {row['bytes_a_peer'] / KIB:.0f} KiB a peer over the"
                f" {row['resident_before_bytes'] / KIB / KIB:.0f} MiB before; {left / KIB:.0f} KiB after load, all left;"
                f" {100 * row['core_used']:.1f} % of a core for keep-alives"
            )
    return "\n".join(lines)


def goal_table(judged: Sequence[Goal]) -> str:
    words = {True: "yes", False: "no", None: "not measured"}
    lines = ["| relay alone, goal | goal | measured | met |", "|---|---|---|---|"]
    for goal in judged:
        measured = "" if goal.measured is None else f"{goal.measured:.2f} {goal.unit}"
        sign = "<=" if goal.at_most else ">="
        lines.append(f"| {goal.name} | {sign} {goal.goal:g} {goal.unit} | {measured} | {words[goal.met]} |")
    return "\n".join(lines)


def write_docs(text: str, marks: tuple[str, str] = MARKS, title: str = "The relay alone") -> None:
    """Put the text between the marks of docs/performance.md; where they are not there, a chapter with them is added."""
    document = DOCS.read_text(encoding="utf-8")
    begin, end = marks
    if begin not in document or end not in document:
        document = f"{document.rstrip()}\n\n## {title}\n\n{begin}\n{end}\n"
    head, _, rest = document.partition(begin)
    _, _, tail = rest.partition(end)
    DOCS.write_text(f"{head}{begin}\n{text}\n{end}{tail}", encoding="utf-8")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each figure is measured (3)")
    parser.add_argument(
        "--only", type=lambda text: {int(n) for n in text.split(",")}, help="numbers of peers: 2,64"
    )
    parser.add_argument("--no-udp", action="store_true", help="leave the bare UDP forwarder out")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write every figure as JSON")
    parser.add_argument(
        "--write-docs", action="store_true", help=f"put the tables into {DOCS.relative_to(ROOT)}"
    )
    parser.add_argument(
        "relay_options", nargs="*", metavar="-- OPTION", help="options for the relay, after --"
    )
    return parser.parse_args()


def main() -> None:
    chosen = options()
    cores = Cores.of_this_machine()
    built()
    rows: list[Figures] = []
    before = aes(cores)
    for case in CASES:
        if chosen.only is None or case.peers in chosen.only:
            print(f"{case.peers} peers in {case.rooms} rooms ...", file=sys.stderr, flush=True)
            phases = through_relay(cores, case, chosen.seconds, chosen.relay_options)
            after = aes(cores)
            for phase in phases:
                phase["aes_gbit"] = (before + after) / 2
                phase["of_half_aes"] = phase["gbit_a_core"] / (phase["aes_gbit"] / 2)
            rows, before = rows + phases, after
    if not chosen.no_udp:
        for packet in (FULL, SMALL):
            rows += [through_forwarder(cores, packet, chosen.seconds, offloads) for offloads in (False, True)]
    judged = goals(rows)
    text, judgement = table(rows), goal_table(judged)
    print(f"{text}\n\n{judgement}")
    if chosen.out is not None:
        report = {
            "rows": rows,
            "goals": [{**vars(goal), "met": goal.met} for goal in judged],
        }
        chosen.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if chosen.write_docs:
        command = f"`.venv/bin/python {Path(__file__).relative_to(ROOT)}` ({time.strftime('%Y-%m-%d')})"
        write_docs(f"{command}:\n\n```\n{text}\n```\n\n{judgement}")
    for complaint in complaints:
        print(f"warning: {complaint}", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except BenchError as error:
        sys.exit(f"error: {error}")
