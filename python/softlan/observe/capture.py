"""Captures: what a running part hands over of its frames while somebody asks, over a local socket, and what it means.

A part answers beside its status socket, on one of the same kind. The one who asks sends a line of JSON (`Request`), gets one
back (`Answer`), and then records as `rust/link/src/frame_log/capture.rs` lays them out, until either side hangs up. Frames go
from the data plane to the socket in batches that Python does not look into; reading and writing files is the asker's work.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol

import msgspec

from softlan._core import MAX_FRAME_LEN, CoreError, FrameCapture, FrameLog
from softlan.errors import SoftlanError
from softlan.observe.events import Event
from softlan.observe.local import LocalServer
from softlan.observe.logs import log_event
from softlan.observe.pcapng import LINK_ETHERNET, LINK_USER0, Interface, Pcapng
from softlan.texts import harmless, several

__all__ = [
    "SUFFIX",
    "CaptureServer",
    "Captured",
    "Lost",
    "Request",
    "ask",
    "interface_of",
    "read_records",
    "start_capture",
    "verdict",
    "write_pcapng",
]

logger = logging.getLogger(__name__)

SUFFIX = ".capture"

_HEAD = struct.Struct("<IIQHHBBBx")
_DROPPED, _LOST = 1, 2
_MAX_RECORD = _HEAD.size + 2 * 255 + MAX_FRAME_LEN
_MAX_LINE = 4096
_PATIENCE_S = 5.0
"""How long either side waits for the other's line."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What to capture: of one room or all, dropped frames or all, and how many bytes of each."""

    room: str | None = None
    drops_only: bool = False
    snaplen: Annotated[int, msgspec.Meta(ge=1, le=MAX_FRAME_LEN)] = MAX_FRAME_LEN


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the capture runs: no error says that it does."""

    error: str | None = None


@dataclass(frozen=True, slots=True)
class Captured:
    """One frame and its fate. `word` says how it was passed or why it was dropped; `length` is the frame's own, in bytes.

    `peer` is whom it came from, or goes to on its way down; `room` is empty where there is only one.
    """

    time_ns: int
    room: str
    peer: int | None
    dropped: bool
    word: str
    targets: int
    length: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Lost:
    """So many frames came faster than they were read."""

    count: int


# The part that is asked -----------------------------------------------------------------------------------------------


class Source(Protocol):
    """A running capture, as `softlan._core.FrameCapture` is one."""

    def next_batch(self) -> Awaitable[bytes]:
        """Wait for records."""

    def close(self) -> None:
        """End it."""


def start_capture(log: FrameLog, request: Request, *, only_room: str | None = None) -> FrameCapture:
    """Begin the capture that is asked for; `only_room` is a part's that is in one room, which its log does not name.

    Raises CoreError: too many run already. Raises SoftlanError: the part is in another room.
    """
    room = request.room
    if only_room is not None:
        if room not in (None, only_room):
            raise SoftlanError(f"it is in room {only_room}, not in {room}")
        room = None
    return log.capture(room=room, drops_only=request.drops_only, snaplen=request.snaplen)


class CaptureServer(LocalServer):
    """Answers for one running part, from `start` to `close`; also an async context manager.

    `start_capture` begins a capture; it raises CoreError or SoftlanError where there can be none.
    """

    def __init__(self, part: str, start_capture: Callable[[Request], Source]) -> None:
        super().__init__(part, SUFFIX)
        self._start_capture = start_capture
        self._running: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """End what is being captured, too."""
        await super().close()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one asker until it hangs up."""
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError):
            pass  # the asker's trouble, not ours
        finally:
            self._running.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_PATIENCE_S):
            line = await reader.readuntil(b"\n")
        try:
            if len(line) > _MAX_LINE:
                raise SoftlanError(f"that request makes no sense: it is longer than {_MAX_LINE} bytes")
            request = msgspec.json.decode(line, type=Request)
            source = self._start_capture(request)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            await _say(writer, Answer(error=harmless(f"that request makes no sense: {error}")))
            return
        except CoreError as error:
            await _say(writer, Answer(error=str(error.args[1])))
            return
        except SoftlanError as error:
            await _say(writer, Answer(error=harmless(str(error))))
            return
        what = "dropped frames" if request.drops_only else "frames"
        where = "" if request.room is None else f" of room {request.room}"
        log_event(
            logger,
            Event.CAPTURE_STARTED,
            f"somebody captures {what}{where}",
            room=request.room,
            drops_only=request.drops_only,
            snaplen=request.snaplen,
        )
        try:
            await _say(writer, Answer())
            await _pour(source, reader, writer)
        finally:
            source.close()
            log_event(logger, Event.CAPTURE_ENDED, "the capture has ended", room=request.room)


async def _say(writer: asyncio.StreamWriter, answer: Answer) -> None:
    writer.write(msgspec.json.encode(answer) + b"\n")
    async with asyncio.timeout(_PATIENCE_S):
        await writer.drain()


async def _pour(source: Source, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hand records over until the capture or the asker ends. A slow asker is waited for: the capture then counts what it loses."""
    hung_up = asyncio.ensure_future(reader.read(1))
    batch: asyncio.Future[bytes] | None = None
    try:
        while True:
            batch = asyncio.ensure_future(source.next_batch())
            await asyncio.wait((hung_up, batch), return_when=asyncio.FIRST_COMPLETED)
            if hung_up.done() or not (records := batch.result()):
                return
            writer.write(records)
            draining = asyncio.ensure_future(writer.drain())
            await asyncio.wait((hung_up, draining), return_when=asyncio.FIRST_COMPLETED)
            if not draining.done():
                draining.cancel()
                return
            draining.result()
    finally:
        for waiting in (hung_up, batch):
            if waiting is not None:
                waiting.cancel()


# The one who asks -----------------------------------------------------------------------------------------------------


async def ask(path: Path, request: Request) -> AsyncIterator[list[Captured | Lost]]:
    """Ask the part behind a socket for its frames, and give them as they come, some at a time, until it ends.

    The first that is given is empty, and says that the capture runs.

    Raises SoftlanError: it is not there (any more), or refuses.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(path)
    except OSError as error:
        raise SoftlanError(f"nothing answers at {path}: {error.strerror or error}") from error
    try:
        writer.write(msgspec.json.encode(request) + b"\n")
        async with asyncio.timeout(_PATIENCE_S):
            answer = msgspec.json.decode(await reader.readuntil(b"\n"), type=Answer)
        if answer.error is not None:
            raise SoftlanError(f"it does not let us capture: {harmless(answer.error)}")
        yield []
        pending = b""
        while data := await reader.read(1 << 18):
            pending += data
            records, used = read_records(pending)
            pending = pending[used:]
            yield records
    except (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError, ValueError, RecursionError) as error:
        raise SoftlanError(
            f"what answers at {path} is no capture: {harmless(str(error)) or 'silence'}",
            hint="are it and this command the same version of softlan?",
        ) from error
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def read_records(data: bytes) -> tuple[list[Captured | Lost], int]:
    """Read the whole records at the start of `data`; give them and how many bytes they were.

    Raises ValueError: these are no records.
    """
    found: list[Captured | Lost] = []
    at = 0
    while len(data) - at >= _HEAD.size:
        size, length, time_ns, peer, targets, flags, room_len, word_len = _HEAD.unpack_from(data, at)
        texts = at + _HEAD.size
        if not _HEAD.size + room_len + word_len <= size <= _MAX_RECORD:
            raise ValueError(f"a record of {size} bytes")
        if len(data) - at < size:
            break
        if flags & _LOST:
            found.append(Lost(length))
        else:
            room = data[texts : texts + room_len].decode()
            word = data[texts + room_len : texts + room_len + word_len].decode()
            frame = data[texts + room_len + word_len : at + size]
            dropped = bool(flags & _DROPPED)
            found.append(Captured(time_ns, room, peer or None, dropped, word, targets, length, frame))
        at += size
    return found, at


def verdict(frame: Captured) -> str:
    """Say what became of a frame, as the comment a capture file gives it."""
    who = "" if frame.peer is None else f", peer {frame.peer}"
    if frame.dropped:
        return f"dropped: {frame.word}{who}"
    if not frame.room:
        return f"passed: {frame.word}{who}"
    return f"passed: {frame.word} to {several(frame.targets, 'peer')}{who}"


def write_pcapng(file: Pcapng, part: str, snaplen: int, frame: Captured) -> bytes:
    """Give a frame's bytes in a capture file; each room is an interface of it."""
    return file.packet(
        interface_of(part, snaplen, frame),
        frame.time_ns,
        frame.data,
        length=frame.length,
        comment=verdict(frame),
    )


def interface_of(part: str, snaplen: int, frame: Captured) -> Interface:
    """Say which interface of a capture file a frame is of. What did not decode is no Ethernet frame but an overlay datagram."""
    name = frame.room or part
    if frame.dropped and frame.word == "malformed":
        return Interface(f"{name} malformed", LINK_USER0, "overlay datagrams that do not decode", snaplen)
    return Interface(name, LINK_ETHERNET, f"softlan {part}", snaplen)
