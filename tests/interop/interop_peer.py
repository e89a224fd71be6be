"""A softlan peer written from docs/protocol.md alone, over aioquic: it imports nothing of softlan.

If this stops working, either the relay or the document is wrong.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import (
    ConnectionTerminated,
    DatagramFrameReceived,
    HandshakeCompleted,
    QuicEvent,
    StreamDataReceived,
)
from cryptography.hazmat.primitives.serialization import Encoding
from interop_keys import Exporter

ALPN = "softlan/1"
BUDGET = 1100
"""Bytes in a DATAGRAM this peer sends: aioquic stays at 1200 bytes of UDP payload, less QUIC's overhead."""

WHOLE, FRAGMENT = 0x10, 0x11


class Closed(Exception):
    """The connection is over; `code` and `reason` are those of CONNECTION_CLOSE."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


def whole(peer_id: int, frame: bytes) -> bytes:
    return struct.pack("!BBH", WHOLE, 0, peer_id) + frame


def fragments(peer_id: int, frame_id: int, frame: bytes, datagram: int = BUDGET) -> list[bytes]:
    room = datagram - 8
    count = max(2, -(-len(frame) // room))
    part = -(-len(frame) // count)
    pieces = [frame[at : at + part] for at in range(0, len(frame), part)]
    last = len(pieces) - 1
    return [
        struct.pack("!BBHI", FRAGMENT, index << 4 | last, peer_id, frame_id) + piece
        for index, piece in enumerate(pieces)
    ]


class Frames:
    """Datagrams back to (sender, frame); counts how many came in pieces."""

    def __init__(self) -> None:
        self.reassembled = 0
        self._parts: dict[tuple[int, int], dict[int, bytes]] = {}

    def feed(self, datagram: bytes) -> tuple[int, bytes] | None:
        kind, second, sender = struct.unpack_from("!BBH", datagram)
        assert sender != 0
        if kind == WHOLE:
            assert second == 0
            return sender, datagram[4:]
        assert kind == FRAGMENT
        index, last = second >> 4, second & 0x0F
        assert 1 <= last <= 15
        assert index <= last
        assert len(datagram) > 8
        key = sender, struct.unpack_from("!I", datagram, 4)[0]
        parts = self._parts.setdefault(key, {})
        parts[index] = datagram[8:]
        if len(parts) <= last:
            return None
        del self._parts[key]
        assert len({len(parts[index]) for index in range(last)}) == 1, "all parts but the last have one size"
        assert len(parts[last]) <= len(parts[0])
        self.reassembled += 1
        return sender, b"".join(parts[index] for index in range(last + 1))


class Peer(QuicConnectionProtocol):
    """One connection to a relay: control messages and frames in queues, the close in `closed`."""

    def __init__(self, quic: QuicConnection) -> None:
        super().__init__(quic)
        self.messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.frames: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        self.closed: asyncio.Future[Closed] = asyncio.get_running_loop().create_future()
        self.received = Frames()
        self.handshake = asyncio.Event()
        self.exporter: Exporter
        self.peer_id = 0
        self._control = 0
        self._buffer = b""
        self._frame_id = 0
        self._endpoint: asyncio.DatagramTransport | None = None
        self._keep_alive: asyncio.Task[None] | None = None

    # Set-up and end

    @classmethod
    async def connect(
        cls, relay: tuple[str, int], certificate: Path, *, sock: socket.socket | None = None, alpn: str = ALPN
    ) -> Peer:
        """Open the connection and hold the relay to the pinned certificate."""
        pinned = certificate.read_bytes()  # noqa: ASYNC240 - a small file, before there is anything to hold up
        configuration = QuicConfiguration(
            is_client=True,
            alpn_protocols=[alpn],
            max_datagram_frame_size=65535,
            idle_timeout=10.0,
            server_name="lanparty-relay.local",
            # The pin stands in for authorities: the whole certificate is compared below.
            verify_mode=ssl.CERT_NONE,
        )
        if sock is None:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setblocking(False)
        loop = asyncio.get_running_loop()
        transport, peer = await loop.create_datagram_endpoint(
            lambda: cls(QuicConnection(configuration=configuration)), sock=sock
        )
        peer._endpoint = transport
        QuicConnectionProtocol.connect(peer, relay)
        peer.exporter = Exporter(peer._quic)
        await peer._first(peer.handshake.wait())
        shown = peer._quic.tls._peer_certificate
        assert shown is not None
        assert shown.public_bytes(Encoding.DER) == pinned, "not the pinned certificate"
        peer._control = peer._quic.get_next_available_stream_id()
        assert peer._control == 0, "the control stream is the first one"
        peer._keep_alive = loop.create_task(peer._pings())
        return peer

    async def _pings(self) -> None:
        while True:
            await asyncio.sleep(0.8)
            await self.ping()

    async def leave(self) -> None:
        if not self.closed.done():
            self.tell({"type": "disconnect", "code": "goodbye", "reason": "the test is over"})
            self.close(error_code=0, reason_phrase="the test is over")
        await self.shut()

    async def shut(self) -> None:
        if self._keep_alive is not None:
            self._keep_alive.cancel()
        await asyncio.sleep(0.02)
        if self._endpoint is not None:
            self._endpoint.close()

    # Control stream

    def raw(self, data: bytes) -> None:
        self._quic.send_stream_data(self._control, data)
        self.transmit()

    def tell(self, message: Mapping[str, Any]) -> None:
        body = json.dumps(message).encode()
        self.raw(struct.pack("!I", len(body)) + body)

    def tell_from(self, sock: socket.socket, message: Mapping[str, Any]) -> None:
        """Say it in packets that come from another address, as a forged source would have it."""
        transport = self._transport
        assert transport is not None

        class Elsewhere(asyncio.DatagramTransport):
            def sendto(self, data: Any, addr: Any = None) -> None:
                sock.sendto(data, addr)

        self._transport = Elsewhere()
        try:
            self.tell(message)
        finally:
            self._transport = transport

    def show_up(self) -> None:
        """Send a packet from where it is, without waiting for an answer."""
        self._quic.send_ping(0)
        self.transmit()

    async def hear(self, kind: str | None = None, within: float = 10.0) -> dict[str, Any]:
        """The next control message, or the next of type `kind`; raises Closed when the relay closes first."""
        async with asyncio.timeout(within):
            while True:
                message = await self._first(self.messages.get())
                if kind is None or message["type"] == kind:
                    return message

    async def join(self, room: str, mac: str | None, /, **more: Any) -> dict[str, Any]:
        """Say hello and give the welcome; raises AssertionError on a reject."""
        hello = hello_of(room, mac, **more)
        self.tell(hello)
        answer = await self.hear()
        assert answer["type"] == "welcome", answer
        self.peer_id = answer["peer_id"]
        return answer

    async def _first(self, wanted: Any) -> Any:
        """What `wanted` gives, or Closed when the connection ends before it does."""
        task = asyncio.ensure_future(wanted)
        try:
            await asyncio.wait({task, self.closed}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise self.closed.result()
        finally:
            task.cancel()

    # Datagrams

    def datagram(self, data: bytes) -> None:
        self._quic.send_datagram_frame(data)
        self.transmit()

    def send(self, frame: bytes) -> None:
        """Send a frame, whole or in fragments."""
        if len(frame) + 4 <= BUDGET:
            self.datagram(whole(self.peer_id, frame))
            return
        self._frame_id += 1
        for piece in fragments(self.peer_id, self._frame_id, frame):
            self.datagram(piece)

    async def frame(self, within: float = 5.0) -> tuple[int, bytes]:
        async with asyncio.timeout(within):
            return await self._first(self.frames.get())

    async def silence(self, seconds: float = 0.5) -> None:
        """Nothing comes."""
        try:
            got = await self.frame(seconds)
        except TimeoutError:
            return
        raise AssertionError(f"an unexpected frame from {got[0]}: {got[1][:32].hex()}")

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, HandshakeCompleted):
            assert event.alpn_protocol == ALPN
            self.handshake.set()
        elif isinstance(event, StreamDataReceived) and event.stream_id == self._control:
            self._buffer += event.data
            while len(self._buffer) >= 4:
                length = struct.unpack_from("!I", self._buffer)[0]
                assert 2 <= length <= 65536
                if len(self._buffer) < 4 + length:
                    break
                body, self._buffer = self._buffer[4 : 4 + length], self._buffer[4 + length :]
                message = json.loads(body)
                assert isinstance(message["type"], str)
                self.messages.put_nowait(message)
        elif isinstance(event, DatagramFrameReceived):
            whole_frame = self.received.feed(event.data)
            if whole_frame is not None:
                self.frames.put_nowait(whole_frame)
        elif isinstance(event, ConnectionTerminated) and not self.closed.done():
            self.closed.set_result(Closed(event.error_code, event.reason_phrase))


def hello_of(room: str, mac: str | None, /, **more: Any) -> dict[str, Any]:
    hello: dict[str, Any] = {
        "type": "hello",
        "protocol": 1,
        "role": "gateway" if mac is None else "client",
        "room": room,
        "datagram_budget": BUDGET,
        "software": "interop/1 (aioquic)",
    }
    if mac is not None:
        hello["mac"] = mac
    return {name: value for name, value in {**hello, **more}.items() if value is not ...}
