"""Captures over the local socket, without a relay: who asks, who answers, and what happens when either goes away."""

import asyncio
import os
import socket
import stat
import struct
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softlan._core import FrameLog
from softlan.errors import SoftlanError
from softlan.observe.capture import (
    SUFFIX,
    Captured,
    CaptureServer,
    Lost,
    Request,
    ask,
    interface_of,
    read_records,
    start_capture,
    verdict,
)
from softlan.observe.cli import _open, _take
from softlan.observe.local import find_sockets
from softlan.observe.pcapng import LINK_ETHERNET, LINK_USER0


def record(room=b"R", word=b"unicast", data=b"frame", *, flags=0, peer=3, targets=1, length=None):
    size = 24 + len(room) + len(word) + len(data)
    length = len(data) if length is None else length
    head = struct.pack("<IIQHHBBBx", size, length, 5, peer, targets, flags, len(room), len(word))
    return head + room + word + data


class Source:
    """Gives its batches, then waits until it is closed."""

    def __init__(self, *batches):
        self.batches = list(batches)
        self.closed = asyncio.Event()

    async def next_batch(self):
        if self.batches:
            return self.batches.pop(0)
        await self.closed.wait()
        return b""

    def close(self):
        self.closed.set()


@pytest.fixture
def directory(tmp_path, monkeypatch):
    monkeypatch.setenv("SOFTLAN_RUNTIME_DIR", str(tmp_path / "run"))


async def asked(server, request=None):
    return [one async for batch in ask(server.path, request or Request()) for one in batch]


async def captured(*words, stdout=None):
    """Run `softlan capture` to its end; give its exit status and what it said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "softlan", "capture", *map(str, words)),
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, said.decode()


async def test_the_asker_gets_what_the_source_gives(directory):
    source = Source(record() + record(flags=1, word=b"jumbo")[:10], record(flags=1, word=b"jumbo")[10:], b"")
    wanted = []

    def start(request):
        wanted.append(request)
        return source

    async with CaptureServer("relay", start) as server:
        assert [(one.part, one.pid) for one in find_sockets(SUFFIX)] == [("relay", os.getpid())]
        request = Request(room="R", drops_only=True, snaplen=64)
        found = await asked(server, request)
    assert wanted == [request]
    assert [(one.word, one.dropped) for one in found] == [("unicast", False), ("jumbo", True)]
    assert source.closed.is_set()


async def test_an_asker_that_goes_away_ends_the_capture(directory):
    source = Source(record())
    async with CaptureServer("relay", lambda _: source) as server:
        asking = ask(server.path, Request())
        assert [len(await anext(asking)) for _ in range(2)] == [0, 1], "first that it runs, then what comes"
        await asking.aclose()
        await asyncio.wait_for(source.closed.wait(), 5)


async def test_an_asker_that_does_not_read_ends_nothing_but_its_own(directory):
    source = Source(*[record(data=bytes(9000)) * 50 for _ in range(50)])
    async with CaptureServer("relay", lambda _: source) as server:
        reader, writer = await asyncio.open_unix_connection(server.path)
        writer.write(b"{}\n")
        assert await reader.readline() == b'{"error":null}\n'
        await asyncio.sleep(0.2)
        assert source.batches, "it is waited for, and the rest stays where it can be counted"
        writer.transport.abort()
        await asyncio.wait_for(source.closed.wait(), 5)


async def test_the_end_of_the_part_ends_the_capture(directory):
    source = Source(record())
    server = CaptureServer("relay", lambda _: source)
    await server.start()
    asking = ask(server.path, Request())
    assert [len(await anext(asking)) for _ in range(2)] == [0, 1]
    await server.close()
    assert source.closed.is_set()
    assert [batch async for batch in asking] == []


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense\n",
        b'{"snaplen": 0}\n',
        b"[]\n",
        b"\xff\xff\n",
        b"[" * 3000 + b"\n",
        b'{"x":' + b"[" * 3000 + b"\n",
        b"{}" + b" " * 4094 + b"and more\n",
    ],
)
async def test_nonsense_is_refused(directory, line):
    async with CaptureServer("relay", lambda _: Source()) as server:
        reader, writer = await asyncio.open_unix_connection(server.path)
        writer.write(line)
        answer = msgspec.json.decode(await asyncio.wait_for(reader.readline(), 5))
        assert answer["error"]
        assert await reader.read() == b""
        writer.close()


async def test_a_line_without_end_is_not_read_to_its_end(directory):
    async with CaptureServer("relay", lambda _: Source()) as server:
        reader, writer = await asyncio.open_unix_connection(server.path)
        writer.write(b"x" * 200_000)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_refusals_reach_the_asker(directory):
    log = FrameLog()
    async with CaptureServer("client", lambda r: start_capture(log, r, only_room="HERE")) as server:
        with pytest.raises(SoftlanError, match="it is in room HERE, not in ELSEWHERE"):
            await asked(server, Request(room="ELSEWHERE"))
        kept = [start_capture(log, Request()) for _ in range(4)]
        with pytest.raises(SoftlanError, match="4 captures run already"):
            await asked(server)
        assert kept


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /dev/full for certain")
async def test_a_full_disk_is_told_in_words(directory):
    async with CaptureServer("relay", lambda _: Source(record(), b"")):
        status, said = await captured("/dev/full")
    assert said.splitlines()[0] == "error: cannot write /dev/full: No space left on device"
    assert "Traceback" not in said
    assert status == 1


async def test_a_file_that_was_there_becomes_its_owners_alone(directory, tmp_path):
    file = tmp_path / "old.pcapng"
    file.write_bytes(b"of yesterday" * 1000)
    file.chmod(0o644)
    async with CaptureServer("relay", lambda _: Source(record(), b"")):
        assert await captured(file) == (0, "1 frame captured\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_bytes().startswith(b"\x0a\x0d\x0d\x0a")
    assert b"yesterday" not in file.read_bytes()


async def test_a_file_that_was_there_stays_as_it_was_where_nothing_can_be_captured(directory, tmp_path):
    file = tmp_path / "old.pcapng"
    file.write_bytes(b"of yesterday")
    file.chmod(0o644)
    async with CaptureServer("client", lambda r: start_capture(FrameLog(), r, only_room="HERE")):
        status, said = await captured("--room", "ELSEWHERE", file)
    assert (status, "it is in room HERE" in said) == (1, True)
    assert (stat.S_IMODE(file.stat().st_mode), file.read_bytes()) == (0o644, b"of yesterday")


async def test_what_stdout_has_already_stays(directory, tmp_path):
    file = tmp_path / "all"
    file.write_bytes(b"of yesterday")
    with file.open("ab") as out:
        async with CaptureServer("relay", lambda _: Source(record(), b"")):
            assert await captured("-", stdout=out) == (0, "1 frame captured\n")
    assert file.read_bytes().startswith(b"of yesterday\x0a\x0d\x0d\x0a")


async def test_a_capture_without_a_frame_is_a_file_all_the_same(directory, tmp_path):
    file = tmp_path / "new.pcapng"
    async with CaptureServer("relay", lambda _: Source(b"")):
        assert await captured(file) == (0, "0 frames captured\n")
    assert file.read_bytes().startswith(b"\x0a\x0d\x0d\x0a")


def test_what_is_no_file_keeps_its_mode(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o640)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with _open(pipe) as out:
        _take(pipe, out)
        assert stat.S_IMODE(pipe.stat().st_mode) == 0o640
    os.close(reader)


async def test_nobody_there(tmp_path):
    with pytest.raises(SoftlanError, match="nothing answers"):
        await anext(ask(tmp_path / "no.capture", Request()))


@pytest.mark.parametrize(
    "answer", [b"nonsense\n", b"7\n", b'{"x":' + b"[" * 5000 + b"\n", b"{}\n" + b"x" * 40]
)
async def test_what_answers_like_no_part_is_told_in_words(tmp_path, answer):
    async def babble(reader, writer):
        await reader.readline()
        writer.write(answer)
        writer.close()

    async with await asyncio.start_unix_server(babble, tmp_path / "odd.capture"):
        with pytest.raises(SoftlanError, match="no capture"):
            _ = [one async for one in ask(tmp_path / "odd.capture", Request())]


async def test_a_dead_parts_socket_is_removed(directory, tmp_path):
    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / f"relay-1{SUFFIX}"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert find_sockets(SUFFIX) == []
    assert not path.exists()


def test_records_are_read_as_far_as_they_are_whole():
    whole = record(peer=0, length=1500) + record(b"", b"", b"", flags=2, length=9)
    found, used = read_records(whole + record()[:30])
    assert used == len(whole)
    assert found == [Captured(5, "R", None, False, "unicast", 1, 1500, b"frame"), Lost(9)]


@given(st.binary(max_size=200))
def test_no_bytes_do_harm(data):
    try:
        found, used = read_records(data)
    except ValueError:
        return
    assert used <= len(data)
    assert len(found) <= len(data) // 24


def frame(**changes):
    usual = {
        "time_ns": 1,
        "room": "R",
        "peer": 3,
        "dropped": False,
        "word": "broadcast",
        "targets": 2,
        "length": 60,
        "data": b"",
    }
    return Captured(**{**usual, **changes})


def test_verdicts():
    assert verdict(frame()) == "passed: broadcast to 2 peers, peer 3"
    assert verdict(frame(word="unicast", targets=1)) == "passed: unicast to 1 peer, peer 3"
    assert verdict(frame(room="", word="to-port", peer=None)) == "passed: to-port"
    assert verdict(frame(dropped=True, word="queue-full")) == "dropped: queue-full, peer 3"


def test_interfaces():
    assert interface_of("relay", 64, frame()).name == "R"
    assert interface_of("client", 64, frame(room="")).name == "client"
    odd = interface_of("relay", 64, frame(dropped=True, word="malformed"))
    assert (odd.name, odd.link_type, odd.snaplen) == ("R malformed", LINK_USER0, 64)
    assert interface_of("relay", 64, frame(dropped=True, word="runt")).link_type == LINK_ETHERNET
