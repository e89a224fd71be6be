"""The scopes put everything back, whatever call fails and wherever a client dies: in memory, and under Wine against a DLL."""

import pytest
import scenarios
from memory_ip import MemoryWorld


@pytest.mark.parametrize("name", scenarios.SCENARIOS)
def test_everything_is_put_back_in_memory(name, tmp_path):
    clean = scenarios.run_clean(MemoryWorld(), name, tmp_path / "journal")
    assert clean["complaints"] == []
    assert clean["calls"] > 1


@pytest.mark.slow
@pytest.mark.parametrize("name", scenarios.SCENARIOS)
def test_any_call_may_fail_in_memory(name, tmp_path):
    assert scenarios.sweep(MemoryWorld(), name, tmp_path / "journal") == []


@pytest.mark.slow
@pytest.mark.parametrize("name", scenarios.SCENARIOS)
def test_the_next_start_puts_right_what_a_death_left_in_memory(name, tmp_path):
    assert scenarios.crash_sweep(MemoryWorld(), name, tmp_path / "journal") == []


@pytest.mark.slow
def test_the_sweep_would_notice(tmp_path, monkeypatch):
    """A scope that does not restore IPv6 is found out: the sweep is no empty ceremony."""
    from softlan.windows.undo import Outcome, Undoer

    honest = Undoer._undo_interface
    monkeypatch.setattr(
        Undoer,
        "_undo_interface",
        lambda self, record: Outcome.RESTORED if record.family == 23 else honest(self, record),
    )
    assert scenarios.run_clean(MemoryWorld(), "mtu", tmp_path / "journal")["complaints"]
    assert scenarios.sweep(MemoryWorld(), "metric", tmp_path / "journal")
    assert scenarios.crash_sweep(MemoryWorld(), "metric", tmp_path / "journal")


@pytest.fixture(scope="session")
def results(standin):
    return standin.result(standin_script("run_scopes.py"))


def standin_script(name):
    from standin_python import INSIDE

    return INSIDE / name


@pytest.mark.windows
@pytest.mark.parametrize("name", scenarios.SCENARIOS)
def test_everything_is_put_back_by_windows_code(results, name):
    assert results[name]["complaints"] == []
    assert results[name]["calls"] > 1


@pytest.mark.windows
@pytest.mark.parametrize("name", scenarios.SCENARIOS)
def test_any_call_of_windows_code_may_fail(results, name):
    assert results[name]["sweep"] == []


@pytest.mark.windows
@pytest.mark.parametrize("name", scenarios.SCENARIOS)
def test_the_next_start_of_windows_code_recovers(results, name):
    assert results[name]["crash"] == []
