import pytest

from softlan.lab.emulator import Direction, Shape

HEADERS = 28


def test_without_a_rate_only_the_delay_counts() -> None:
    direction = Direction(Shape(delay=0.25), seed=1)
    assert direction.offer(10.0, 1000) == 10.25
    assert direction.offer(10.0, 1000) == 10.25


def test_rate_counts_headers_and_queues() -> None:
    direction = Direction(Shape(rate=8000, delay=1.0, buffer=10_000), seed=1)
    assert direction.offer(0.0, 1000 - HEADERS) == pytest.approx(2.0)
    assert direction.offer(0.0, 1000 - HEADERS) == pytest.approx(3.0)
    assert direction.offer(100.0, 1000 - HEADERS) == pytest.approx(102.0), "an idle line saves nothing up"


def test_what_does_not_fit_the_buffer_is_dropped() -> None:
    direction = Direction(Shape(rate=8000, buffer=3000), seed=1)
    arrivals = [direction.offer(0.0, 1000 - HEADERS) for _ in range(5)]
    assert [arrival is not None for arrival in arrivals] == [True, True, True, False, False]
    assert direction.tally.overflowed == 2
    assert direction.offer(1.0, 1000 - HEADERS) is not None, "one has left after a second"


def test_mtu_is_an_ip_packets() -> None:
    direction = Direction(Shape(mtu=1300), seed=1)
    assert direction.offer(0.0, 1300 - HEADERS) is not None
    assert direction.offer(0.0, 1300 - HEADERS + 1) is None
    assert direction.tally.too_big == 1


def test_the_same_seed_loses_the_same() -> None:
    def pattern(seed: int) -> list[bool]:
        direction = Direction(Shape(loss=0.3), seed)
        return [direction.offer(0.0, 100) is None for _ in range(1000)]

    assert pattern(5) == pattern(5)
    assert pattern(5) != pattern(6)
    assert sum(pattern(5)) == pytest.approx(300, abs=60)


def test_jitter_spreads_the_delay_both_ways_and_reorders() -> None:
    direction = Direction(Shape(delay=0.05, jitter=0.03), seed=1)
    arrivals = [direction.offer(index / 1000, 100) for index in range(1000)]
    delays = [arrival - index / 1000 for index, arrival in enumerate(arrivals) if arrival is not None]
    assert len(delays) == 1000
    assert min(delays) == pytest.approx(0.02, abs=0.001)
    assert max(delays) == pytest.approx(0.08, abs=0.001)
    assert [index for index, arrival in enumerate(arrivals) if arrival is not None] != sorted(
        range(1000), key=lambda index: arrivals[index] or 0.0
    )


def test_jitter_never_makes_a_datagram_arrive_before_it_was_sent() -> None:
    direction = Direction(Shape(delay=0.01, jitter=0.5), seed=1)
    assert all((direction.offer(10.0, 100) or 0.0) >= 10.0 for _ in range(1000))
