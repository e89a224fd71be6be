"""A look at a relay through another QUIC than softlan's own: aioquic (extra `doctor`).

It sees what softlan's own connection does not show: the certificate of a relay that is not trusted, the protocols of one that speaks
another version, and whether a handshake that fails here fails for everybody. It asks with a hello of protocol 0, which every
relay refuses by naming those it speaks (docs/protocol.md, reject), so that no room is touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from softlan.control.messages import Reject, decode_answer
from softlan.control.stream import FrameDecoder, encode_frame
from softlan.errors import RemoteProtocolError, SoftlanError
from softlan.installing import pip_install
from softlan.texts import harmless

if TYPE_CHECKING:
    from aioquic.quic.connection import QuicConnection
    from aioquic.quic.events import QuicEvent

__all__ = ["ALPN", "Look", "look"]

ALPN = "softlan/1"

_ASK = b'{"type":"hello","protocol":0}'
_ANSWER_S = 3.0


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen. Without `alpn` the handshake did not come about: `code` and `reason` are the relay's, or None if it was silent.

    `certificate` is DER, `datagrams` the largest DATAGRAM frame it takes, `protocols` what it answered to the hello.
    """

    seconds: float
    alpn: str | None = None
    version: int | None = None
    certificate: bytes | None = None
    datagrams: int | None = None
    protocols: tuple[int, ...] | None = None
    code: int | None = None
    reason: str = ""


async def look(address: tuple[str, int], server_name: str, *, within_s: float = 4.0) -> Look:
    """Connect, look, ask, and go. No certificate is refused.

    Raises:
        SoftlanError: aioquic is not installed, or no UDP socket is to be had.

    """
    try:
        from aioquic.asyncio.protocol import QuicConnectionProtocol
        from aioquic.quic.configuration import QuicConfiguration
        from aioquic.quic.connection import QuicConnection
        from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, StreamDataReceived
    except ImportError as error:
        raise SoftlanError(
            "a second look at the relay takes the library aioquic, which is not installed",
            hint=f"install it with: {pip_install('softlan[doctor]')}",
        ) from error

    class _Peer(QuicConnectionProtocol):
        def __init__(self, quic: QuicConnection) -> None:
            super().__init__(quic)
            loop = asyncio.get_running_loop()
            self.shaken: asyncio.Future[str | None] = loop.create_future()
            self.answered: asyncio.Future[tuple[int, ...] | None] = loop.create_future()
            self.ended: asyncio.Future[tuple[int, str]] = loop.create_future()
            self._frames = FrameDecoder()

        def quic_event_received(self, event: QuicEvent) -> None:
            if isinstance(event, HandshakeCompleted) and not self.shaken.done():
                self.shaken.set_result(event.alpn_protocol and harmless(event.alpn_protocol))
            elif isinstance(event, StreamDataReceived) and not self.answered.done():
                self._frames.feed(event.data)
                with contextlib.suppress(RemoteProtocolError):
                    if (body := self._frames.next_body()) is not None:
                        self.answered.set_result(_protocols(body))
            elif isinstance(event, ConnectionTerminated) and not self.ended.done():
                self.ended.set_result((event.error_code, harmless(event.reason_phrase)))

    configuration = QuicConfiguration(
        is_client=True,
        alpn_protocols=[ALPN],
        max_datagram_frame_size=65535,
        idle_timeout=within_s + _ANSWER_S,
        server_name=server_name,
        verify_mode=ssl.CERT_NONE,
    )
    loop = asyncio.get_running_loop()
    local = ("::", 0) if ":" in address[0] else ("0.0.0.0", 0)  # noqa: S104 - a client's socket
    started = time.perf_counter()
    try:
        transport, peer = await loop.create_datagram_endpoint(
            lambda: _Peer(QuicConnection(configuration=configuration)), local_addr=local
        )
    except OSError as error:
        raise SoftlanError(f"cannot open a UDP socket: {error.strerror or error}") from error
    try:
        # As the socket will name the sender of answers: with flow and scope over IPv6.
        peer.connect(socket.getaddrinfo(*address, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0][4])
        if not await _first(peer.shaken, peer.ended, within_s):
            code, reason = peer.ended.result() if peer.ended.done() else (None, "")
            return Look(time.perf_counter() - started, code=code, reason=reason)
        seconds = time.perf_counter() - started
        quic: Any = peer._quic
        shown = quic.tls._peer_certificate
        stream = quic.get_next_available_stream_id()
        quic.send_stream_data(stream, encode_frame(_ASK))
        peer.transmit()
        await _first(peer.answered, peer.ended, _ANSWER_S)
        return Look(
            seconds,
            peer.shaken.result(),
            quic._version,
            None if shown is None else _der(shown),
            quic._remote_max_datagram_frame_size,
            peer.answered.result() if peer.answered.done() else None,
        )
    finally:
        peer.close()
        await asyncio.sleep(0)
        transport.close()


async def _first(wanted: asyncio.Future[Any], ended: asyncio.Future[Any], within_s: float) -> bool:
    await asyncio.wait((wanted, ended), timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    return wanted.done()


def _protocols(body: bytes) -> tuple[int, ...] | None:
    """Read which protocols a relay's refusal names; None when it is no refusal that names any."""
    try:
        answer = decode_answer(body)
    except RemoteProtocolError:
        return None
    return answer.supported_protocols or None if isinstance(answer, Reject) else None


def _der(certificate: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    encoded: bytes = certificate.public_bytes(Encoding.DER)
    return encoded
