"""Framing of the control stream: a 4-byte length, then that many bytes of JSON. No I/O: bytes in, bodies out.

    decoder.feed(data)
    while (body := decoder.next_body()) is not None: ...

works whatever pieces the stream arrives in. The decoder judges a length before it keeps a byte of the body,
so that a peer that promises gigabytes is refused at once; drained after each feed, it never holds more than
one frame.
"""

from __future__ import annotations

from softlan.errors import LocalProtocolError, RemoteProtocolError

__all__ = ["LENGTH_SIZE", "MAX_BODY", "MIN_BODY", "FrameDecoder", "encode_frame"]

LENGTH_SIZE = 4
"""Bytes of the big-endian length before each body; it does not count itself."""

MIN_BODY = 2
"""The shortest JSON object, `{}`."""

MAX_BODY = 65536
"""The longest body in bytes; a room of several hundred peers still fits its welcome."""


def encode_frame(body: bytes) -> bytes:
    """Put the length before a body.

    Raises LocalProtocolError: the body is shorter or longer than the protocol allows.
    """
    if not MIN_BODY <= len(body) <= MAX_BODY:
        raise LocalProtocolError(
            f"a control message of {len(body)} bytes is outside {MIN_BODY} to {MAX_BODY}"
        )
    return len(body).to_bytes(LENGTH_SIZE, "big") + body


class FrameDecoder:
    """Cuts a byte stream into bodies. After an error it stays broken: framing cannot be found again."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._length: int | None = None
        self._broken: str | None = None

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream; they are looked at in `next_body`."""
        if self._broken is None:
            self._buffer += data

    def next_body(self) -> bytes | None:
        """Take out the next whole body, or None when it has not all arrived.

        Raises RemoteProtocolError: a length is outside what the protocol allows.
        """
        if self._broken is not None:
            raise RemoteProtocolError(self._broken)
        if self._length is None:
            if len(self._buffer) < LENGTH_SIZE:
                return None
            self._length = self._take_length()
        if len(self._buffer) < self._length:
            return None
        body = bytes(self._buffer[: self._length])
        del self._buffer[: self._length]
        self._length = None
        return body

    @property
    def missing(self) -> int:
        """Bytes that must come before `next_body` can have more to say, once it has said None: of a length, or of a body."""
        wanted = LENGTH_SIZE if self._length is None else self._length
        return max(1, wanted - len(self._buffer))

    def end(self) -> None:
        """Say that the stream has ended.

        Raises RemoteProtocolError: it ended inside a message.
        """
        if self._broken is None and (self._buffer or self._length is not None):
            self._break("the control stream ended inside a message")

    def _take_length(self) -> int:
        length = int.from_bytes(self._buffer[:LENGTH_SIZE], "big")
        if not MIN_BODY <= length <= MAX_BODY:
            self._break(f"a control message of {length} bytes is outside {MIN_BODY} to {MAX_BODY}")
        del self._buffer[:LENGTH_SIZE]
        return length

    def _break(self, why: str) -> None:
        self._buffer.clear()
        self._broken = why
        raise RemoteProtocolError(why)
