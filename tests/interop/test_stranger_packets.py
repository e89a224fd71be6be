"""Packets that an honest QUIC never sends, to an endpoint in this process: what it sends to others for them, and what it keeps."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aioquic import tls
from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.buffer import Buffer
from aioquic.quic import connection as quic_connection
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicFrameType, QuicPacketType
from aioquic.quic.packet_builder import QuicPacketBuilder

from softlan._core import Endpoint, TransportSettings
from softlan.relay.certificates import make_dev_certificate

pytestmark = pytest.mark.slow

SHOWN = make_dev_certificate("relay.example")


@pytest.fixture
def endpoint() -> Any:
    made = Endpoint.server("127.0.0.1:0", list(SHOWN.chain), SHOWN.key, TransportSettings())
    yield made
    made.stop()


@contextlib.asynccontextmanager
async def calling(endpoint: Endpoint) -> AsyncIterator[QuicConnectionProtocol]:
    host, _, port = endpoint.local_address.rpartition(":")
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=["softlan/1"], verify_mode=ssl.CERT_NONE, max_datagram_frame_size=65535
    )
    async with connect(host, int(port), configuration=configuration) as peer:
        yield peer


def challenge(quic: QuicConnection) -> list[bytes]:
    """A packet that holds a PATH_CHALLENGE and nothing else (RFC 9000 section 19.17)."""
    builder = QuicPacketBuilder(
        host_cid=quic.host_cid,
        is_client=True,
        max_datagram_size=1200,
        packet_number=quic._packet_number,
        peer_cid=quic._peer_cid.cid,
        peer_token=b"",
        version=quic._version or 1,
        spin_bit=False,
        quic_logger=None,
    )
    builder.start_packet(QuicPacketType.ONE_RTT, quic._cryptos[tls.Epoch.ONE_RTT])
    builder.start_frame(QuicFrameType.PATH_CHALLENGE, capacity=9).push_bytes(os.urandom(8))
    builder._datagram_needs_padding = False
    datagrams, _ = builder.flush()
    quic._packet_number = builder.packet_number
    return datagrams


async def test_a_forged_source_gets_few_answers(endpoint: Endpoint) -> None:
    host, _, port = endpoint.local_address.rpartition(":")
    sent = answered = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as victim:
        victim.bind(("127.0.0.1", 0))
        victim.setblocking(False)
        async with calling(endpoint) as peer:
            connection = await endpoint.accept()
            assert connection is not None
            begun = time.monotonic()
            for _ in range(400):
                for datagram in challenge(peer._quic):
                    victim.sendto(datagram, (host, int(port)))
                    sent += 1
                await asyncio.sleep(0.002)
                with contextlib.suppress(BlockingIOError):
                    while victim.recv(65536):
                        answered += 1
            took = time.monotonic() - begun
            assert connection.remote_address == connection.proven_address, "probes move nobody"
    assert sent == 400
    # 64 at once and 64 a second, whoever asks for them.
    assert 0 < answered <= 64 + 64 * took + 1


async def test_a_peer_that_is_gone_is_not_kept_for_as_long_as_it_likes(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    push = quic_connection.push_quic_transport_parameters

    def slow(buffer: Buffer, parameters: Any) -> None:
        # The most there is (RFC 9000 section 18.2): QUIC would keep the connection for three times that and more.
        parameters.max_ack_delay = 16383
        push(buffer, parameters)

    monkeypatch.setattr(quic_connection, "push_quic_transport_parameters", slow)
    for _ in range(3):
        async with calling(endpoint):
            connection = await endpoint.accept()
            assert connection is not None
        await asyncio.wait_for(connection.closed(), 10)
    # It waits until nothing is kept any more.
    async with asyncio.timeout(20):
        await endpoint.close(0, "", timeout=60)
