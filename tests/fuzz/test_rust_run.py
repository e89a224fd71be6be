"""`rust/fuzz/run` with stand-ins for cargo and the fuzzers: one at a time or two, each says its own, and a finding fails the run."""

import os
import shutil
import subprocess
from pathlib import Path

import account
import pytest

RUN = Path(__file__).parents[2] / "rust" / "fuzz" / "run"
FUZZER = """#!/bin/bash
# Says how many run, and with two at a time waits for the other one, so that none is done before both have begun.
name=${0##*/}
mkdir -p alive seen && touch "alive/$name" "seen/$name"
for _ in $(seq 1000); do
    ls alive | wc -l >>counts
    [ "$(ls seen | wc -l)" -lt "$WAIT_FOR" ] || break
    sleep 0.01
done
# Once more: the other one may have begun since, and look for the first time when this one is gone.
ls alive | wc -l >>counts
echo 'stat::number_of_executed_units: 7'
echo "#9 DONE cov: 10 ft: 20"
rm "alive/$name"
[ "$name" != "$BROKEN" ] || { echo "Test unit written to artifacts/$name/crash-1"; exit 77; }
"""


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def fuzzers(tmp_path):
    shutil.copy(RUN, tmp_path)
    script(tmp_path / "bin" / "rustc", "#!/bin/sh\necho 'host: here'\n")
    script(tmp_path / "bin" / "cargo", "#!/bin/sh\ntouch built\n")
    for name in ("room", "queue", "split", "join"):
        script(tmp_path / "fuzz_targets" / f"{name}.rs", "")
        script(tmp_path / "target" / "none" / "here" / "release" / name, FUZZER)

    def run(at_once, broken="", target="all"):
        done = subprocess.run(
            [tmp_path / "run", target, "1"],
            env={
                **os.environ,
                "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
                "SOFTLAN_FUZZ_AT_ONCE": str(at_once),
                "WAIT_FOR": str(at_once),
                "BROKEN": broken,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        read = [account.read_spent(line, "2026-11-28", "abc") for line in done.stdout.splitlines()]
        found = {entry.target: (entry.inputs, entry.found) for entry in read if entry is not None}
        return done.returncode, found, done.stdout.splitlines()

    return run


@pytest.mark.parametrize("at_once", [1, 2])
def test_each_target_is_run_and_says_so(fuzzers, tmp_path, at_once):
    status, found, _ = fuzzers(at_once)
    assert status == 0
    assert found == dict.fromkeys(("room", "queue", "split", "join"), (7, 0))
    assert max(int(line) for line in (tmp_path / "counts").read_text().split()) == at_once


def test_they_can_be_built_ahead_of_their_run(fuzzers, tmp_path):
    status, found, lines = fuzzers(2, target="build")
    assert (status, found, lines) == (0, {}, [])
    assert (tmp_path / "built").exists()
    assert not (tmp_path / "seen").exists()


@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.parametrize("broken", ["join", "split"])
def test_a_broken_promise_fails_the_run(fuzzers, at_once, broken):
    """The first and the last; what is said of it stands together."""
    status, found, lines = fuzzers(at_once, broken)
    assert status == 1
    assert found == {**dict.fromkeys(("room", "queue", "split", "join"), (7, 0)), broken: (7, 1)}
    at = next(number for number, line in enumerate(lines) if line.endswith("a promise broken"))
    assert lines[at].startswith(f"{broken}: ")
    assert lines[at + 1].startswith(f"error: {broken} broke a promise")
    assert lines[at + 2].startswith("hint: ")
