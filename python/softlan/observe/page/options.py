"""What `--page` and `--page-token-file` mean, and the door to the rest, which needs libraries of the extra `page`."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from softlan.config import HostPort, parse_listen
from softlan.errors import ConfigError
from softlan.files import file_error, is_exposed
from softlan.installing import pip_install
from softlan.observe.events import Event
from softlan.observe.logs import log_event

if TYPE_CHECKING:
    from softlan.observe.page.app import PageSource

__all__ = ["PageOptions", "page_options", "parse_page_address", "read_token", "serve_page"]

logger = logging.getLogger(__name__)

_LOCAL = "127.0.0.1"
_SHORTEST_TOKEN = 16
_LONGEST_TOKEN = 512


@dataclass(frozen=True, slots=True)
class PageOptions:
    """Where the page is served, and the secret to be shown for it; None: to whoever uses this machine."""

    address: HostPort
    token: str | None

    @property
    def is_local(self) -> bool:
        """Whether only programs of this machine can reach it."""
        return ipaddress.ip_address(self.address.host).is_loopback


def parse_page_address(text: str) -> HostPort:
    """Read `PORT` (this machine only), `IP:PORT`, `[IPv6]:PORT` or `localhost:PORT`. Raises ConfigError."""
    if "/" in text:
        raise ConfigError(
            f"{text!r}: the page is served over TCP", hint="write it like 8080 or 127.0.0.1:8080"
        )
    host, colon, port = text.strip().rpartition(":")
    listen = parse_listen(f"{_LOCAL}{colon}{port}" if host.lower() == "localhost" else text)
    return HostPort(listen.address or _LOCAL, listen.port)


def read_token(path: Path) -> str:
    """Read the secret in a file: one line of 16 to 512 printable ASCII characters. Raises ConfigError, and what `file_error` gives."""
    make_one = f"make one: (umask 077; head -c 24 /dev/urandom | base64 > {path})"
    try:
        token = path.read_text("ascii").strip()
        exposed = is_exposed(path)
    except OSError as error:
        raise file_error(f"cannot read the token {path}", error, hint=make_one) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the token in {path} is not ASCII", hint=make_one) from error
    if not _SHORTEST_TOKEN <= len(token) <= _LONGEST_TOKEN or not token.isprintable() or " " in token:
        raise ConfigError(
            f"the token in {path} is not one line of {_SHORTEST_TOKEN} to {_LONGEST_TOKEN} characters",
            hint=make_one,
        )
    if exposed:
        log_event(
            logger,
            Event.PAGE_EXPOSED,
            f"other users of this machine can read the token in {path}; make it yours alone: chmod 600",
            file=str(path),
        )
    return token


def page_options(page: str | None, token_file: Path | None) -> PageOptions | None:
    """Put the options together; None when there is to be no page.

    Raises:
        ConfigError: an option makes no sense, a page for other machines has no token, or a library is missing.

    """
    if page is None:
        if token_file is not None:
            raise ConfigError("--page-token-file is for the page", hint="say where to serve it with --page")
        return None
    options = PageOptions(parse_page_address(page), None if token_file is None else read_token(token_file))
    if not options.is_local and options.token is None:
        raise ConfigError(
            f"a page at {options.address} would be open to everybody who can reach it",
            hint="give --page-token-file FILE, or serve it here only (--page PORT) and come by `ssh -L`",
        )
    try:
        import prometheus_client  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"the page needs {error.name}, which is not installed",
            hint=f"install it with: {pip_install('softlan[page]')}",
        ) from error
    return options


@contextlib.asynccontextmanager
async def serve_page(options: PageOptions | None, source: PageSource) -> AsyncIterator[None]:
    """Serve a relay's page while the context lasts, if there is to be one.

    Raises:
        SoftlanError: the address cannot be had.

    """
    if options is None:
        yield
        return
    from softlan.observe.page.server import PageServer

    async with PageServer(options, source) as server:
        log_event(
            logger,
            Event.PAGE_READY,
            f"the page is at http://{server.address}/",
            address=str(server.address),
            token=options.token is not None,
        )
        if not options.is_local:
            log_event(
                logger,
                Event.PAGE_EXPOSED,
                "other machines reach the page in clear text: put a proxy with TLS before it, or use `ssh -L`",
                address=str(server.address),
            )
        yield
