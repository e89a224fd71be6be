"""The status socket of each running part."""

import asyncio
import json
import logging
import os
import socket
import stat
from pathlib import Path

import pytest

from softlan._core import Mac
from softlan.observe import local
from softlan.observe.local import StatusServer, read_all, runtime_directories, runtime_directory


@pytest.fixture
def directory(tmp_path, monkeypatch):
    path = tmp_path / "run"
    monkeypatch.setenv("SOFTLAN_RUNTIME_DIR", str(path))
    return path


async def read():
    return await asyncio.to_thread(read_all)


async def test_parts_answer(directory):
    async with (
        StatusServer("relay", lambda: {"rooms": 2}) as relay,
        StatusServer("client", lambda: {"mac": Mac("02:00:00:00:00:01")}),
    ):
        answers = await read()
        assert [(answer.part, answer.status) for answer in answers] == [
            ("client", {"mac": "02:00:00:00:00:01"}),
            ("relay", {"rooms": 2}),
        ]
        assert answers[0].pid == os.getpid()
        assert answers[0].uptime_s >= 0
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert stat.S_IMODE(relay.path.stat().st_mode) == 0o600
    assert list(directory.iterdir()) == []
    assert await read() == []


async def test_each_answer_is_of_now(directory):
    count = iter(range(10))
    async with StatusServer("client", lambda: {"count": next(count)}):
        assert [(await read())[0].status["count"] for _ in range(3)] == [0, 1, 2]


async def test_sockets_of_killed_processes_are_swept_up(directory):
    directory.mkdir(mode=0o700)
    nobody = 2**22 + 1  # above the kernel's largest process id (PID_MAX_LIMIT)
    paths = {
        name: directory / name
        for name in (f"relay-{nobody}.status", f"client-{nobody}.status", "relay-1.status")
    }
    for path in paths.values():
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as former:
            former.bind(str(path))
    async with StatusServer("relay", dict) as server:
        assert set(directory.iterdir()) == {
            server.path,
            paths[f"client-{nobody}.status"],
            paths["relay-1.status"],
        }


async def test_who_asks_in_the_moment_a_socket_is_made_does_not_take_it_away(directory, monkeypatch):
    moments = []

    def chmod(path, mode):
        os.chmod(path, mode)
        moments.append(read_all())

    monkeypatch.setattr(Path, "chmod", chmod)
    async with StatusServer("client", dict) as server:
        assert moments == [[]], "bound, and nobody listens yet"
        assert len(await read()) == 1
        assert list(directory.iterdir()) == [server.path]


async def test_any_program_can_read_it(directory):
    async with StatusServer("client", lambda: {"room": "ROOM1"}) as server:
        reader, writer = await asyncio.open_unix_connection(server.path)
        answer = json.loads(await reader.read())
        writer.close()
    assert set(answer) == {"part", "pid", "version", "uptime_s", "status", "tasks"}


async def test_a_fault_in_a_snapshot_is_told_and_survived(directory):
    def broken():
        raise RuntimeError("no numbers")

    async with StatusServer("client", broken):
        for _ in range(2):
            assert (await read())[0].status == {"error": "no numbers"}


async def test_a_reader_that_leaves_does_no_harm(directory):
    async with StatusServer("client", lambda: {"large": "x" * 500_000}) as server:
        _, writer = await asyncio.open_unix_connection(server.path)
        writer.transport.abort()
        assert len((await read())[0].status["large"]) == 500_000


async def test_a_reader_that_does_not_read_holds_nobody_up(directory):
    async with StatusServer("client", lambda: {"large": "x" * 500_000}) as server:
        with socket.socket(socket.AF_UNIX) as sleepy:
            sleepy.connect(str(server.path))
            assert len(await read()) == 1


async def test_dead_sockets_are_removed(directory):
    directory.mkdir(mode=0o700)
    dead = directory / f"client-1{local.SUFFIX}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(dead))
    strange = directory / f"strange{local.SUFFIX}"
    strange.write_text("not a socket")
    (directory / "unrelated").write_text("not ours")
    async with StatusServer("relay", dict):
        assert [answer.part for answer in await read()] == ["relay"]
    assert not dead.exists()
    assert (directory / "unrelated").exists()


async def test_a_socket_of_somebody_else_is_left_out(directory):
    directory.mkdir(mode=0o700)

    async def babble(_reader, writer):
        writer.write(b"hello?")
        writer.close()

    async with await asyncio.start_unix_server(babble, directory / f"odd{local.SUFFIX}"):
        assert await read() == []


async def test_nobody_answers_in_a_parts_name_in_a_directory_of_others(directory):
    directory.mkdir(mode=0o700)

    async def lie(_reader, writer):
        writer.write(b'{"part": "relay", "pid": 1, "version": "1", "uptime_s": 1, "status": {}}')
        writer.close()

    async with await asyncio.start_unix_server(lie, directory / f"relay-1{local.SUFFIX}"):
        assert [answer.pid for answer in await read()] == [1]
        directory.chmod(0o777)
        assert await read() == []
        directory.chmod(0o700)
        moved = directory.rename(directory.parent / "moved")
        directory.symlink_to(moved)
        assert await read() == []
        assert await asyncio.to_thread(local.find_sockets, local.SUFFIX) == []


async def test_an_answer_without_end_is_not_read_to_its_end(directory, monkeypatch):
    monkeypatch.setattr(local, "MAX_SNAPSHOT", 100_000)
    directory.mkdir(mode=0o700)
    said, ended = 0, asyncio.Event()

    async def babble(_reader, writer):
        nonlocal said
        try:
            while True:
                writer.write(b" " * 65536)
                said += 65536
                await writer.drain()
        except ConnectionError:
            ended.set()

    async with await asyncio.start_unix_server(babble, directory / f"odd{local.SUFFIX}"):
        async with StatusServer("client", lambda: {"large": "x" * 500_000}):
            assert await read() == []
        await ended.wait()
        # What is on the way besides waits in the socket and the writer's buffer.
        assert said < 2_000_000


async def test_a_part_that_says_nothing_holds_no_reader_up(directory, monkeypatch):
    monkeypatch.setattr(local, "READ_TIMEOUT_S", 0.2)
    directory.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.bind(str(directory / f"odd{local.SUFFIX}"))
        silent.listen()
        assert await read() == []


async def refused(caplog, words):
    caplog.set_level(logging.WARNING)
    server = StatusServer("client", dict)
    await server.start()
    assert server.path is None
    assert words in caplog.text
    await server.close()


async def test_a_directory_open_to_others_is_not_used(directory, caplog):
    directory.mkdir()
    directory.chmod(0o777)
    await refused(caplog, "writable by others")


async def test_a_directory_of_somebody_else_is_neither_used_nor_read(directory, monkeypatch, caplog):
    async with StatusServer("relay", dict):
        assert len(await read()) == 1
        if os.geteuid() == 0:
            os.chown(directory, 4711, -1)
        else:
            monkeypatch.setattr(local, "_user_id", lambda: 4711)
        with monkeypatch.context() as patch:
            # As one in /tmp is looked into; one that SOFTLAN_RUNTIME_DIR names is meant.
            patch.delenv("SOFTLAN_RUNTIME_DIR")
            patch.setattr(local, "runtime_directories", lambda: [directory])
            assert await read() == []
        await refused(caplog, "belongs to somebody else")


async def test_a_link_is_not_followed(directory, tmp_path, caplog):
    (tmp_path / "elsewhere").mkdir()
    directory.symlink_to(tmp_path / "elsewhere")
    await refused(caplog, "not a directory")


async def test_a_path_too_long_is_told(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("SOFTLAN_RUNTIME_DIR", str(tmp_path / ("x" * 120)))
    await refused(caplog, "SOFTLAN_RUNTIME_DIR")


async def test_a_platform_without_unix_sockets_is_told(directory, monkeypatch, caplog):
    monkeypatch.setattr(local, "_AF_UNIX", None)
    await refused(caplog, "no unix sockets")
    directory.mkdir()
    (directory / f"old{local.SUFFIX}").touch()
    assert read_all() == []


def test_where_the_sockets_are(monkeypatch, tmp_path):
    for name in ("SOFTLAN_RUNTIME_DIR", "RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert str(runtime_directory()) == "/tmp/softlan-1000"
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert str(runtime_directory()) == "/run/user/1000/softlan"
    assert "/run/softlan" in map(str, runtime_directories())
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert str(runtime_directory()) == "/run/softlan"
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/softlan-relay:/run/other")
    assert str(runtime_directory()) == "/run/softlan-relay"
    monkeypatch.setenv("SOFTLAN_RUNTIME_DIR", str(tmp_path))
    assert runtime_directories() == [tmp_path]


def test_services_with_a_directory_each_are_found(tmp_path, monkeypatch):
    for name in ("relay", "gateway-eth0"):
        (tmp_path / name).mkdir()
    (tmp_path / "relay-1.status").touch()
    monkeypatch.setattr(local, "_SYSTEM", tmp_path)
    monkeypatch.delenv("SOFTLAN_RUNTIME_DIR", raising=False)
    assert tmp_path in runtime_directories()
    assert runtime_directories()[-2:] == [tmp_path / "gateway-eth0", tmp_path / "relay"]
    monkeypatch.setattr(local, "_SYSTEM", tmp_path / "none")
    assert runtime_directories()
