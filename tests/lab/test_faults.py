"""What `softlan.lab.faults` makes of a party it strikes; that the strikes are real is shown by `tests/e2e/test_faults.py`."""

from __future__ import annotations

import datetime
import time
from typing import Any

import pytest

from softlan.lab import faults
from softlan.lab import faults_of_state as state
from softlan.lab.programs import Event, Program
from softlan.lab.scene import Scene
from softlan.lab.soak import Fault, Outcome, soak


class Silent:
    """A machine or client that does whatever it is told."""

    def ip(self, *commands: str) -> None:
        pass

    def move(self, address: str) -> None:
        pass

    @property
    def machine(self) -> Silent:
        return self


class FakeScene(Scene):
    """A party that is back after the given seconds, one after another, and then at once: it works."""

    def __init__(self, *waits: float) -> None:
        self.pingers, self.memory = {}, {}
        self.ann: Any = Silent()
        self.home, self.home_v6 = "203.0.113.3", "2001:db8:5050::3/64"
        self.waits = list(waits)

    @property
    def parts(self) -> dict[str, Any]:
        return {}

    async def back(self, since: float) -> float:
        return self.waits.pop(0) if self.waits else 0.0

    async def left_behind(self) -> list[str]:
        return []


async def struck(strike: Any, scene: Scene) -> Outcome:
    return await soak(Fault("a", "a fault", strike), scene, 1, seed=1)


@pytest.mark.parametrize("waits", [(3.5, 0.03), (0.03, 3.5)])
async def test_the_slower_of_two_moves_counts(waits: tuple[float, float]) -> None:
    outcome = await struck(faults._moved, FakeScene(*waits))
    assert outcome.back == [3.5]
    assert outcome.late == 1


class Counting:
    """A part whose counter of frames rises by so many each time it is asked."""

    def __init__(self, step: int) -> None:
        self.step, self.count = step, 0

    async def counters(self) -> dict[str, int]:
        self.count += self.step
        return {"frames_received": self.count}


def loaded(client: int, gateway: int) -> FakeScene:
    scene: Any = FakeScene()
    scene.ann.part, scene.gateway = Counting(client), Counting(gateway)
    return scene


async def test_load_that_passes_both_ways_is_load() -> None:
    assert await faults._without_load(loaded(1_000_000, 1_000_000)) == []


@pytest.mark.parametrize(("client", "gateway"), [(0, 0), (1_000_000, 0), (0, 1_000_000), (1, 1)])
async def test_a_cycle_without_load_is_wrong(
    client: int, gateway: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "_LOAD_WITHIN_S", 0.2)
    (words,) = await faults._without_load(loaded(client, gateway))
    assert words.startswith("there was no load: ")


def ended(*events: str) -> Program:
    program = Program(None, "relay", ["true"])  # type: ignore[arg-type]  # never started
    program.events = [Event(name, {}, 0.0) for name in events]
    return program


def test_a_part_that_was_cut_off_has_ended_badly() -> None:
    assert faults._ended_badly(ended("relay.stopping", "service.hung"), 0, 0)
    assert faults._ended_badly(ended("relay.stopping", "relay.stopped"), 1, 0)
    assert faults._ended_badly(ended("relay.stopping", "relay.stopped"), 0, 0) == []
    assert faults._ended_badly(ended("service.hung", "relay.stopped"), 0, 1) == [], "that was another time"


@pytest.mark.parametrize("way", ["kill", "term"])
def test_a_quick_run_ends_every_part_in_every_way(way: str) -> None:
    quick = {fault.name for fault in faults.FAULTS if fault.quick}
    assert quick >= {f"{way}-{part}" for part in ("relay", "gateway", "client")}


# Clocks ---------------------------------------------------------------------------------------------------------------


def line(*, off_s: float) -> Event:
    """A line that a part wrote just now, by a clock that is off by so much."""
    stamp = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=off_s)
    return Event("session.lost", {"ts": stamp.isoformat().replace("+00:00", "Z")}, time.monotonic())


@pytest.mark.parametrize(("where", "off_s"), [("+1h", 3600), ("-12h", -43_200), ("-30d", -30 * 86_400)])
def test_a_clock_is_where_it_was_put_or_that_is_wrong(where: str, off_s: float) -> None:
    assert state._not_at(where, [line(off_s=0), line(off_s=off_s)], "the relay") == []
    (words,) = state._not_at(where, [line(off_s=off_s + 600)], "the relay")
    assert where in words


def test_a_clock_that_did_not_move_is_wrong() -> None:
    assert state._not_at("+11y", [line(off_s=0)], "the client")
    assert state._not_at("+11y", [], "the client")


REFUSED = "connection lost (the relay answered, but its certificate is not valid at this time); trying again in 0.7 s"
LOST = "connection lost (the relay was restarted); trying again in 0.1 s"


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ([("session.retry", LOST), ("session.retry", REFUSED)], True),
        ([("session.retry", REFUSED), ("session.joined", "in room PARTY1")], False),
        ([("session.retry", LOST), ("session.joined", "in room PARTY1")], False),
        ([], False),
    ],
)
async def test_a_far_clock_keeps_its_machine_out_or_that_is_wrong(
    said: list[tuple[str, str]], right: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "_OUT_WITHIN_S", 0.05)
    monkeypatch.setattr(state, "_OUT_S", 0.05)
    part: Any = Silent()
    part.name, part.program = "ann", ended()
    part.program.events = [Event(name, {"message": words}, 0.0) for name, words in said]
    assert (await state._not_kept_out(part, 0) == []) is right
