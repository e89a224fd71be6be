"""A program of somebody's own that uses `softlan.client` ends as Python programs do."""

import subprocess
import sys

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
