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
_REQUEST_S = 10.0
"""How often each connection is looked at: who is at the same request as at the last look is hung up on. A request takes at most
twice as long."""

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
    """One connection, of which there are not too many, and on which something is asked and answered again and again."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._next_look: asyncio.TimerHandle | None = None
        self._cycle_at_last_look = self.cycle
        self._said_all = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Hang up on one too many; look at the others now and then."""
        if len(self.connections) >= _CONNECTIONS:
            transport.abort()
            return
        super().connection_made(transport)
        self._look_later()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection, if it was ever taken."""
        if self._next_look is not None:
            self._next_look.cancel()
        if self in self.connections:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read, unless it was hung up on."""
        if self in self.connections:
            super().data_received(data)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Stay for an answer that is under way, and no longer: true keeps the transport open (asyncio.Protocol)."""
        self._said_all = True
        return self._owes_an_answer()

    def on_response_complete(self) -> None:
        """Go on with what was asked meanwhile; hang up on who asks no more."""
        super().on_response_complete()
        if self._said_all and not self._owes_an_answer():
            self.transport.close()

    def _owes_an_answer(self) -> bool:
        """Whether a whole request is there that is not answered to its end."""
        return self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body

    def _look_later(self) -> None:
        self._next_look = self.loop.call_later(_REQUEST_S, self._look)

    def _look(self) -> None:
        # No request at all, half a one, one whose answer is not read (also on a transport that is closing and waits for
        # that): each leaves the latest whole head what it was.
        if self.cycle is self._cycle_at_last_look:
            self.transport.abort()
            return
        self._cycle_at_last_look = self.cycle
        self._look_later()

    @staticmethod
    def transports_of(server: uvicorn.Server) -> list[asyncio.Transport]:
        """List the connections that are still there."""
        connections = cast("set[_BoundedProtocol]", server.server_state.connections)
        return [connection.transport for connection in connections]
