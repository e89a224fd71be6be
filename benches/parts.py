"""Wire, switch, offload and queue code, each beside what one would write without care: runs the Criterion benches, prints ratios.

    .venv/bin/python benches/parts.py [--quick] [--write-docs]

Criterion's own reports stay in target/criterion. To compare a change with what was before:
`cargo bench -p softlan-parts --bench offload -- --save-baseline before`, then `-- --baseline before`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from relay_alone import DOCS, ROOT, write_docs
from softlan.lab.docs import machine_line

MARKS = ("<!-- parts -->", "<!-- /parts -->")
RESULTS = ROOT / "target" / "criterion"


def run(quick: bool) -> None:
    shutil.rmtree(RESULTS, ignore_errors=True)
    options = ["--quick"] if quick else ["--warm-up-time", "0.5", "--measurement-time", "1.5"]
    command = ["cargo", "bench", "-q", "-p", "softlan-parts", "--", "--noplot", *options]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"error: {' '.join(command)} ended with {done.returncode}\n{done.stdout[-2000:]}")


def results() -> dict[str, dict[str, float]]:
    """Median nanoseconds by bench, then by who did it."""
    found: dict[str, dict[str, float]] = {}
    for file in sorted(RESULTS.glob("*/*/new/benchmark.json"), key=lambda path: path.stat().st_mtime_ns):
        what = json.loads(file.read_text())
        estimates = json.loads((file.parent / "estimates.json").read_text())
        found.setdefault(what["group_id"], {})[what["function_id"]] = estimates["median"]["point_estimate"]
    return found


def table(found: dict[str, dict[str, float]]) -> str:
    lines = [f"{'one round of':44} {'softlan':>12} {'naive':>12}   naive/softlan"]
    for name, times in found.items():
        naive = times.get("naive")
        ratio = "" if naive is None else f"{naive / times['softlan']:10.1f} x"
        shown = "" if naive is None else f"{naive:9,.0f} ns"
        lines.append(f"{name:44} {times['softlan']:9,.1f} ns {shown:>12}   {ratio}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds: rough figures in a minute")
    parser.add_argument(
        "--write-docs", action="store_true", help=f"put the table into {DOCS.relative_to(ROOT)}"
    )
    chosen = parser.parse_args()
    run(chosen.quick)
    text = table(results())
    print(text)
    if chosen.write_docs:
        command = f"`.venv/bin/python {Path(__file__).relative_to(ROOT)}`"
        write_docs(f"{command}, {machine_line()}\n\n```\n{text}\n```", MARKS, "Parts")


if __name__ == "__main__":
    main()
