"""The control stream of one live connection: whole messages in and out, on asyncio.

A thin adapter: framing is `stream.py`'s, meaning is `messages.py`'s. Sending never waits, so that one peer that does not read
holds nobody up; what it may leave unread is bounded.
"""

from __future__ import annotations

import asyncio
import contextlib

from softlan._core import Connection, CoreError
from softlan.control.codes import Code
from softlan.control.messages import ControlMessage, Stats, encode
from softlan.control.stream import FrameDecoder, encode_frame

__all__ = ["ControlChannel"]

_READ_SIZE = 16384
_MAX_UNSENT = 512
_MAX_UNSENT_BYTES = 1 << 18
"""Messages, and bytes of them, waiting for a peer that does not read; joins and leaves of a full room fit several times, beside the
longest welcome."""

_STATS_WAIT = 8
"""With more than this waiting, `stats` are left out: newer ones follow."""


class ControlChannel:
    """Messages of one connection, from `start` to `finish`."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._decoder = FrameDecoder()
        self._unsent: asyncio.Queue[bytes | None] = asyncio.Queue(_MAX_UNSENT)
        self._unsent_bytes = 0
        self.overflowed = False
        """Whether the peer was disconnected because it does not read."""
        self._writer: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write what is posted."""
        self._writer = asyncio.create_task(self._write())

    async def receive(self) -> bytes | None:
        """Wait for the next message's body; None when the peer has ended the stream or the connection is gone.

        Raises:
            RemoteProtocolError: the bytes are no frames, or the stream ended inside one.

        """
        while True:
            body = self._decoder.next_body()
            if body is not None:
                return body
            try:
                # Not woken before there is enough: a peer that sends its messages byte by byte costs no more than another.
                data = await self.connection.read_control(
                    _READ_SIZE, least=min(self._decoder.missing, _READ_SIZE)
                )
            except CoreError:
                return None
            if not data:
                self._decoder.end()
                return None
            self._decoder.feed(data)

    def post(self, message: ControlMessage) -> None:
        """Send a message without waiting. A peer that has left too many unread is disconnected."""
        if self.overflowed or (isinstance(message, Stats) and self._unsent.qsize() > _STATS_WAIT):
            return
        frame = encode_frame(encode(message))
        if self._unsent.full() or self._unsent_bytes + len(frame) > _MAX_UNSENT_BYTES:
            self.overflowed = True
            self.connection.close(Code.SLOW_READER.number, Code.SLOW_READER.meaning)
            return
        self._unsent.put_nowait(frame)
        self._unsent_bytes += len(frame)

    async def finish(self, *, timeout_s: float = 0.5) -> None:
        """Send what is waiting and end our side, within `timeout_s`; the connection is for the caller to close."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        with contextlib.suppress(TimeoutError, asyncio.QueueFull):
            async with asyncio.timeout(timeout_s):
                self._unsent.put_nowait(None)
                await writer
                await self.connection.finish_control(timeout=timeout_s)
        writer.cancel()

    def abandon(self) -> None:
        """Stop writing at once; for a connection that came to nothing."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.cancel()

    async def _write(self) -> None:
        # A connection that is gone says so to the reader, who knows what to do about it.
        with contextlib.suppress(CoreError):
            while (frame := await self._unsent.get()) is not None:
                await self.connection.write_control(frame)
                self._unsent_bytes -= len(frame)
