"""The page's HTTP server: uvicorn on the relay's own event loop, bounded in what it takes from anybody."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from types import TracebackType
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from softlan.config import HostPort
from softlan.errors import SoftlanError
from softlan.observe.page.app import PageSource, make_app
from softlan.observe.page.options import PageOptions
from softlan.observe.page.sampler import Sampler

__all__ = ["PageServer"]

_CONNECTIONS = 64
_FIRST_REQUEST_S = 10.0
_HEAD_SIZE = 16 << 10
_CLOSE_S = 0.5


class PageServer:
    """Serves a relay's page from `__aenter__` to `__aexit__`."""

    def __init__(self, options: PageOptions, source: PageSource) -> None:
        self.address = options.address
        """Where it is served; once it runs, with the port the system chose for 0."""
        self._options = options
        self._sampler = Sampler(source.snapshot)
        config = uvicorn.Config(
            make_app(source, self._sampler, options.token),
            http=_BoundedProtocol,
            ws="none",
            lifespan="off",
            loop="none",
            interface="asgi3",
            log_config=None,
            log_level="error",  # a request that makes no sense is no news: anybody can send them
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=_CONNECTIONS,
            timeout_keep_alive=10,
            h11_max_incomplete_event_size=_HEAD_SIZE,
        )
        self._server = _Server(config)
        self._tasks: list[asyncio.Task[Any]] = []

    async def __aenter__(self) -> PageServer:
        """Bind and begin to answer. Raises SoftlanError: the address cannot be had."""
        host, port = self.address.host, self.address.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(_CONNECTIONS)
            listener.setblocking(False)
        except OSError as error:
            listener.close()
            raise SoftlanError(
                f"cannot serve the page at {self.address}: {error.strerror or error}",
                hint="choose another address or port with --page",
            ) from error
        self.address = HostPort(host, int(listener.getsockname()[1]))
        self._tasks = [
            asyncio.create_task(self._server.serve(sockets=[listener])),
            asyncio.create_task(self._sampler.run()),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Hang up and give up the address."""
        serving, sampling = self._tasks
        sampling.cancel()
        self._server.should_exit = self._server.force_exit = True
        await asyncio.wait((serving,), timeout=_CLOSE_S)
        for transport in _BoundedProtocol.transports_of(self._server):
            transport.abort()
        serving.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the relay has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


class _BoundedProtocol(H11Protocol):
    """One connection, of which there are not too many, and on which something is asked before long."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Hang up on one too many; set a time for the first request."""
        if len(self.connections) >= _CONNECTIONS:
            transport.abort()
            return
        super().connection_made(transport)
        self.loop.call_later(_FIRST_REQUEST_S, self._check_asked)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection, if it was ever taken."""
        if self in self.connections:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read, unless it was hung up on."""
        if self in self.connections:
            super().data_received(data)

    def eof_received(self) -> None:
        """Do nothing: the answer may still be wanted."""

    def _check_asked(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.abort()

    @staticmethod
    def transports_of(server: uvicorn.Server) -> list[asyncio.Transport]:
        """List the connections that are still there."""
        connections = cast("set[_BoundedProtocol]", server.server_state.connections)
        return [connection.transport for connection in connections]
