"""What a pinger makes of its samples; that it pings is shown by whatever stands on `softlan.lab.scene`."""

import math
import time

import pytest

from softlan.lab.host import Station
from softlan.lab.pinger import Pinger, Stretch


def pinger(*samples: tuple[float, float | None]) -> Pinger:
    """One that has seen these: when it was sent, and the seconds to its answer."""
    made = Pinger.__new__(Pinger)
    made.source = Station(None, "lan0", b"")  # type: ignore[arg-type]
    made._sent = [sent for sent, _ in samples]
    made._answered = [None if trip is None else sent + trip for sent, trip in samples]
    return made


def test_a_stretch_holds_what_was_sent_in_it() -> None:
    seen = pinger((1.0, 0.01), (2.0, None), (3.0, 0.03), (4.0, 0.02)).between(2.0, 4.0)
    assert (seen.sent, seen.lost) == (2, 1)
    assert seen.trips == pytest.approx((0.03,))


def test_percentiles() -> None:
    seen = Stretch(101, tuple(float(number) for number in range(100)))
    assert (seen.percentile(0.5), seen.percentile(0.99), seen.percentile(1.0)) == (50, 99, 99)
    assert math.isnan(Stretch(3, ()).percentile(0.5))


async def test_back_is_the_first_answer_after_which_things_stay_well() -> None:
    now = time.monotonic() - 10
    flicker = [(now + step * 0.1, 0.01 if step == 3 or step >= 12 else None) for step in range(40)]
    assert await pinger(*flicker).back(now, 5.0) == pytest.approx(1.21)


async def test_what_was_sent_before_does_not_count() -> None:
    now = time.monotonic() - 10
    late = [(now + step * 0.1, 5.0 if step < 5 else 0.01) for step in range(40)]
    assert await pinger(*late).back(now + 1, 5.0) == pytest.approx(0.01)


async def test_never_back() -> None:
    now = time.monotonic() - 10
    assert await pinger(*((now + step * 0.1, None) for step in range(40))).back(now, 2.0) is None
