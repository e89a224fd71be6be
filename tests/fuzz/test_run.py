"""A run over the Python side's targets: each has its turn, one that has none is told, and whatever ends a check is a finding."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import account
import pytest
import rounds
import run as runs
from hypothesis import strategies as st


@pytest.fixture(autouse=True)
def artifacts(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "ARTIFACTS", tmp_path)
    return tmp_path


def program(text, **environment):
    """Run lines of Python that may end their process, beside `run.py`."""
    lines = "import os, run, signal, sys\nfrom pathlib import Path\nfrom hypothesis import settings, strategies as st\n"
    return subprocess.run(
        [sys.executable, "-c", lines + text],
        cwd=Path(__file__).parent,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def untroubled(_):
    pass


def refuses(value):
    assert value < 10


def entries(said):
    read = [account.read_spent(line, "2026-11-28", "abc") for line in said.splitlines()]
    return [(entry.target, entry.inputs > 0, entry.found) for entry in read if entry is not None]


def test_each_target_has_inputs_however_short_the_time(monkeypatch, capsys):
    monkeypatch.setattr(runs, "_ROUND", 5)
    targets = {name: (st.integers(), untroubled) for name in ("texts", "keys", "invite")}
    assert runs.run(0.0, targets) == 0
    assert entries(capsys.readouterr().out) == [(name, True, 0) for name in targets]


def test_a_target_without_input_is_a_failure(capsys):
    assert runs.run(0.0, {"keys": (st.integers().filter(lambda _: False), untroubled)}) == 1
    said = capsys.readouterr()
    assert "keys had no input" in said.err
    assert entries(said.out) == []


def test_a_broken_promise_ends_the_run(capsys):
    targets = {"texts": (st.integers(), refuses), "keys": (st.integers(), untroubled)}
    assert runs.run(0.0, targets) == 1
    said = capsys.readouterr()
    assert "texts broke a promise" in said.err
    assert entries(said.out) == [("texts", True, 1)]


def test_a_target_that_is_none_is_named(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["run.py", "1", "text"])
    assert runs.main() == 2
    assert "text" in capsys.readouterr().err


def test_inputs_are_others_in_each_turn_where_hypothesis_knows_that_it_is_in_ci():
    done = program(
        "assert settings.default.derandomize, 'this shows nothing'\n"
        "turns = [[], []]\n"
        "run._look_for_leaks = lambda *_: None\n"
        "for seen in turns:\n"
        "    run.fuzz((st.integers(0, 2**64), seen.append), run.Counter(), 'texts')\n"
        "assert len(turns[0]) > 100\n"
        "assert turns[0] != turns[1]\n",
        CI="true",
    )
    assert done.returncode == 0, done.stderr


class Panic(BaseException):
    """As PyO3's PanicException: no Exception."""


def panics(value):
    if value > 9:
        raise Panic(f"at {value}")


def test_a_panic_is_a_finding_and_is_made_small(capsys):
    assert runs.run(0.0, {"texts": (st.integers(), panics)}) == 1
    said = capsys.readouterr()
    assert entries(said.out) == [("texts", True, 1)]
    assert "Panic: at 10\n" in said.err


def test_what_hangs_is_a_finding(monkeypatch, capsys):
    monkeypatch.setattr(runs, "_CHECK_S", 0.05)

    def hangs(_):
        while True:
            pass

    assert runs.run(0.0, {"texts": (st.just(7), hangs)}) == 1
    assert entries(capsys.readouterr().out) == [("texts", True, 1)]


def test_who_says_stop_has_what_was_done_counted(capsys):
    seen = []

    def told_to_stop(value):
        seen.append(value)
        if len(seen) == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    targets = {name: (st.integers(), told_to_stop) for name in ("texts", "keys")}
    assert runs.run(3600.0, targets) == 0
    assert entries(capsys.readouterr().out) == [("texts", True, 0)]
    assert len(seen) == 5


KEPT = []


def keeps_memory(_):
    KEPT.append(object())


def keeps_a_file(_):
    KEPT.append(os.open("/dev/null", os.O_RDONLY))


@pytest.mark.parametrize(("check", "what"), [(keeps_memory, "block of memory"), (keeps_a_file, "open file")])
def test_what_stays_behind_each_time_is_a_finding(monkeypatch, capsys, check, what):
    monkeypatch.setattr(runs, "_ROUND", 5)
    monkeypatch.setattr(runs, "_TRIES", 3)
    try:
        assert runs.run(0.0, {"texts": (st.just(7), check)}) == 1
    finally:
        for handle in KEPT:
            if isinstance(handle, int):
                os.close(handle)
        KEPT.clear()
    said = capsys.readouterr()
    assert entries(said.out) == [("texts", True, 1)]
    assert f"each call leaves one more {what} behind" in said.err


def test_memory_is_bounded():
    done = program("run.limit_this_process()\nbytearray(4 << 30)\n")
    assert "MemoryError" in done.stderr


@pytest.mark.parametrize(
    ("fatal", "ended_by"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", signal.SIGSEGV),
        # A loop that is not Python's, in which no handler of Python's has its turn.
        ("sum(range(1 << 60))", signal.SIGVTALRM),
    ],
)
def test_what_ends_the_process_leaves_its_input(artifacts, fatal, ended_by):
    done = program(
        "run.limit_this_process()\n"
        f"run.ARTIFACTS, run._CHECK_S, run._DEAD_S = Path({str(artifacts)!r}), 0.1, 0.3\n"
        "def fatal(value):\n"
        "    if value > 9:\n"
        f"        {fatal}\n"
        "run.run(0, {'texts': (st.integers(), fatal)})\n"
    )
    assert done.returncode == -ended_by
    assert int((artifacts / "texts" / "last-input").read_text()) > 9
    assert "in fatal" in done.stderr, "faulthandler says where"


def test_an_ordinary_run_leaves_no_input(artifacts):
    assert runs.run(0.0, {"texts": (st.integers(), untroubled)}) == 0
    assert list((artifacts / "texts").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "status", "found"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", 1, [("texts", False, 1)]),
        ("raise SystemExit(1)", 1, []),
        ("print('texts: 9 inputs in 0.1 s of processor time, nothing found')", 0, [("texts", True, 0)]),
    ],
)
def test_a_slice_whose_process_was_ended_stands_in_the_account(monkeypatch, tmp_path, words, status, found):
    monkeypatch.setattr(rounds, "FILE", tmp_path / "account.json")
    monkeypatch.setattr(rounds, "words", lambda *_: [sys.executable, "-c", words])
    monkeypatch.setattr(rounds, "commit", lambda: "abc")
    monkeypatch.setattr(rounds.os, "nice", lambda _: 0)
    monkeypatch.setattr(rounds.signal, "signal", lambda *_: None)
    assert rounds.rounds(2.0, ["texts"]) == status
    assert [(entry.target, entry.inputs > 0, entry.found) for entry in rounds.read()] == found
