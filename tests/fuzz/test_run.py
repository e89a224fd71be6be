"""A run over the Python side's targets: each has its turn, and one that has none is told."""

import account
import run as runs
from hypothesis import strategies as st


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
