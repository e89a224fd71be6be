"""A program of somebody's own that uses `softlan.client` ends as Python programs do."""

import subprocess
import sys

import pytest

_LEAVES_CONNECTS_UNDER_WAY = """
import asyncio, time
from softlan._core import Endpoint, TransportSettings

class Slow:
    '''Makes the interpreter's end last, so that what is under way comes meanwhile.'''
    def __del__(self, sleep=time.sleep):
        sleep(0.8)

async def begin():
    endpoint = Endpoint.client("127.0.0.1:0", TransportSettings())
    # Nobody listens there: each comes to nothing in a time of its own.
    return endpoint, [
        endpoint.connect("127.0.0.1:9", "relay.test", [], pins=[bytes(32)], timeout=0.02 * turn)
        for turn in range(1, 25)
    ]

loop = asyncio.new_event_loop()
made = loop.run_until_complete(begin())
slow = Slow()
"""


def test_what_is_under_way_when_a_program_ends_neither_aborts_it_nor_is_told():
    command = [sys.executable, "-c", _LEAVES_CONNECTS_UNDER_WAY]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr[:500]) == (0, "")


_AWAITS_AT_THE_END = """
import asyncio, atexit
{first}

async def ask(patience):
    endpoint = softlan._core.Endpoint.client("127.0.0.1:0", softlan._core.TransportSettings())
    try:
        await endpoint.connect("127.0.0.1:9", "relay.test", [], pins=[bytes(32)], timeout=patience)
    except softlan._core.CoreError as error:
        print(error.args[0])
    except RuntimeError as error:
        print(error)

def bye():
    loop.run_until_complete(ask(0.2))

{second}
import softlan._core
loop = asyncio.new_event_loop()
loop.run_until_complete(ask(0.1))
"""


def ends(script: str, patience_s: float = 60.0) -> list[str]:
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=patience_s, check=False)
    assert (done.returncode, done.stderr[:500]) == (0, "")
    return done.stdout.splitlines()


def test_what_a_program_does_at_its_end_still_may_await():
    script = _AWAITS_AT_THE_END.format(first="import softlan._core", second="atexit.register(bye)")
    assert ends(script) == ["timed-out", "timed-out"]


def test_who_comes_too_late_is_told():
    """A handler from before softlan was imported runs after its end."""
    script = _AWAITS_AT_THE_END.format(first="", second="atexit.register(bye)")
    first, second = ends(script)
    assert first == "timed-out"
    assert "the interpreter ends" in second


_FORKS = """
import asyncio, contextlib, os
import softlan._core

async def ask():
    endpoint = softlan._core.Endpoint.client("127.0.0.1:0", softlan._core.TransportSettings())
    with contextlib.suppress(softlan._core.CoreError):
        await endpoint.connect("127.0.0.1:9", "relay.test", [], pins=[bytes(32)], timeout=0.2)

asyncio.run(ask())
for _ in range(20):
    if child := os.fork():
        assert os.waitpid(child, 0) == (child, 0)
    else:
        raise SystemExit(0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork there")
def test_a_forked_child_waits_for_no_threads_of_its_parent():
    """It would wait two seconds for each."""
    ends(_FORKS, 30.0)
