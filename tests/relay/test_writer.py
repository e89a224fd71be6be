"""Small files written beside the loop: whole, in order, and without holding anybody up."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from softlan.relay import writer as module
from softlan.relay.writer import FileWriter, on_disk


class SlowDisk:
    """Stands before `write_atomically` and lets one write pass for each `release`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.release = threading.Semaphore(0)
        self.begun = threading.Event()
        self.written: list[tuple[str, bytes]] = []
        self._really = module.write_atomically
        monkeypatch.setattr(module, "write_atomically", self._write)

    def _write(self, path: Path, data: bytes, *, mode: int) -> None:
        self.begun.set()
        self.release.acquire()
        self._really(path, data, mode=mode)
        self.written.append((path.name, data))


def never(path: Path, error: OSError) -> None:
    raise AssertionError(f"{path}: {error}")


def test_files_are_written_in_order_and_only_the_newest_of_what_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk(monkeypatch)
    writer = FileWriter(never)
    first = writer.write(tmp_path / "a", b"1")
    disk.begun.wait()
    rest = [writer.write(tmp_path / name, data) for name, data in (("a", b"2"), ("b", b"3"), ("a", b"4"))]
    assert not first.done()
    for _ in range(3):
        disk.release.release()
    writer.close()
    assert disk.written == [("a", b"1"), ("a", b"4"), ("b", b"3")]
    assert all(future.done() for future in (first, *rest))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"a": b"4", "b": b"3"}


def test_what_cannot_be_written_is_told_and_the_next_is_written(tmp_path: Path) -> None:
    told: list[Path] = []
    writer = FileWriter(lambda path, error: told.append(path))
    writer.write(tmp_path / "gone" / "a", b"1").result()
    writer.write(tmp_path / "b", b"2").result()
    writer.close()
    assert told == [tmp_path / "gone" / "a"]
    assert (tmp_path / "b").read_bytes() == b"2"


async def test_the_loop_goes_on_and_who_stops_waiting_stops_no_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk(monkeypatch)
    writer = FileWriter(never)
    written = writer.write(tmp_path / "a", b"1")
    waiting = asyncio.create_task(on_disk(written))
    await asyncio.sleep(0)
    assert not waiting.done()
    await on_disk(written, within=0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    disk.release.release()
    await on_disk(written)
    writer.close()
    assert (tmp_path / "a").read_bytes() == b"1"
