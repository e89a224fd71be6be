"""What the console's handler does: stop once, and hold Windows up until everything is put back."""

import threading
import time

import pytest

from softlan.windows.console import (
    CTRL_BREAK,
    CTRL_C,
    CTRL_CLOSE,
    CTRL_LOGOFF,
    CTRL_SHUTDOWN,
    Ending,
    graceful_end,
)


@pytest.fixture
def stops():
    return []


@pytest.fixture
def ending(stops):
    return Ending(lambda: stops.append(True), patience_s=30)


@pytest.mark.parametrize("kind", [CTRL_C, CTRL_BREAK])
def test_the_first_is_taken_and_the_second_left_to_python(ending, stops, kind):
    assert ending.control(kind)
    assert stops == [True]
    assert not ending.control(kind)
    assert stops == [True]


@pytest.mark.parametrize("kind", [CTRL_CLOSE, CTRL_LOGOFF, CTRL_SHUTDOWN])
def test_a_close_waits_until_all_is_put_back(ending, stops, kind):
    handled = []
    handler = threading.Thread(target=lambda: handled.append(ending.control(kind)))
    handler.start()
    while not stops:
        time.sleep(0.001)
    assert handled == []
    ending.over()
    handler.join()
    assert handled == [True]


def test_patience_has_an_end(stops):
    assert Ending(lambda: stops.append(True), patience_s=0.01).control(CTRL_CLOSE)


def test_another_event_is_not_ours(ending, stops):
    assert not ending.control(99)
    assert stops == []


def test_elsewhere_signals_do_it(stops):
    with graceful_end(lambda: stops.append(True)):
        pass
    assert stops == []
