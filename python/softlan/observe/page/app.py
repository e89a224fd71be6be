"""What the relay answers over HTTP: the page and its data, `/metrics`, `/healthz`. Nothing can be changed through it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from softlan.observe.metrics import CONTENT_TYPE, Exporter
from softlan.observe.page.gate import COOKIE, Gate
from softlan.observe.page.sampler import Sampler

if TYPE_CHECKING:
    from softlan.relay.ledger import Numbers

__all__ = ["PageSource", "make_app"]

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self';"
        " base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}
_RAW_HEADERS = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]

_MAX_FORM = 4096
_WRONG_TOKEN_S = 1.0
"""How long a wrong token is answered later."""

_WRONG_AT_ONCE = 8
"""Wrong tokens that wait for their answer at once; further ones are told to come later."""


class PageSource(Protocol):
    """What a page is of: a relay."""

    def snapshot(self) -> Mapping[str, Any]:
        """Give what `softlan status` shows."""

    def numbers(self) -> Numbers:
        """Give what metrics tell."""

    async def healthy(self) -> bool:
        """Whether it does its work."""


def make_app(source: PageSource, sampler: Sampler, token: str | None) -> ASGIApp:
    """Make the application; `sampler` is the source's, and run by somebody else."""
    pages = _Pages(source, sampler, Gate(token))
    routes = [
        Route("/", pages.guarded(pages.index)),
        Route("/login", pages.login, methods=["GET"]),
        Route("/login", pages.show_token, methods=["POST"]),
        Route("/page.css", pages.style),
        Route("/page.js", pages.script),
        Route("/icon.svg", pages.icon),
        Route("/api/state", pages.guarded(pages.state)),
        Route("/api/history", pages.guarded(pages.history)),
        Route("/metrics", pages.guarded(pages.metrics)),
        Route("/healthz", pages.healthz),
    ]
    return Starlette(routes=routes, middleware=[Middleware(_Outer, gate=pages.gate)])


class _Outer:
    """Around everything: headers on every answer, and no answer under a foreign name."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_RAW_HEADERS]
            await send(message)

        host = next((value for name, value in scope["headers"] if name == b"host"), b"")
        if not self._gate.knows_host(host.decode("latin-1")):
            refusal = PlainTextResponse("this page is served under the names of this machine only\n", 421)
            await refusal(scope, receive, answer)
            return
        await self._app(scope, receive, answer)


Handler = Callable[[Request], Awaitable[Response]]


class _Pages:
    def __init__(self, source: PageSource, sampler: Sampler, gate: Gate) -> None:
        self.gate = gate
        self._source = source
        self._sampler = sampler
        self._exporter = Exporter(source.numbers)
        self._wrong = 0

    def guarded(self, handler: Handler) -> Handler:
        """Let only those in who may look; a browser that opens the page is asked for the token."""

        async def checked(request: Request) -> Response:
            if self.gate.admits(request.headers, request.cookies):
                return await handler(request)
            if request.url.path == "/":
                return RedirectResponse("/login", 303)
            return PlainTextResponse("a token is needed\n", 401, {"www-authenticate": "Bearer"})

        return checked

    async def index(self, request: Request) -> Response:
        """Send the page."""
        return Response(_static("index.html"), media_type="text/html; charset=utf-8")

    async def style(self, request: Request) -> Response:
        """Send its style."""
        return Response(_static("page.css"), media_type="text/css; charset=utf-8")

    async def script(self, request: Request) -> Response:
        """Send its script."""
        return Response(_static("page.js"), media_type="text/javascript; charset=utf-8")

    async def icon(self, request: Request) -> Response:
        """Send its icon."""
        return Response(_static("icon.svg"), media_type="image/svg+xml")

    async def state(self, request: Request) -> Response:
        """Tell how the relay does now."""
        return Response(self._sampler.state, media_type="application/json")

    async def history(self, request: Request) -> Response:
        """Tell how it did."""
        return Response(self._sampler.history(), media_type="application/json")

    async def metrics(self, request: Request) -> Response:
        """Tell Prometheus."""
        return Response(self._exporter.page(), headers={"content-type": CONTENT_TYPE})

    async def healthz(self, request: Request) -> Response:
        """Tell, without any secret, whether the relay does its work."""
        well = await self._source.healthy()
        return PlainTextResponse("ok\n" if well else "not serving\n", 200 if well else 503)

    async def login(self, request: Request) -> Response:
        """Ask for the token."""
        if self.gate.admits(request.headers, request.cookies):
            return RedirectResponse("/", 303)
        return self._ask("")

    async def show_token(self, request: Request) -> Response:
        """Take the token a browser shows."""
        form = bytearray()
        try:
            async for piece in request.stream():
                form += piece
                if len(form) > _MAX_FORM:
                    return PlainTextResponse("that is no token\n", 413)
        except ClientDisconnect:
            return PlainTextResponse("", 400)
        shown = parse_qs(form.decode("latin-1")).get("token", [""])[0]
        if self.gate.is_token(shown.strip()):
            answer = RedirectResponse("/", 303)
            answer.set_cookie(COOKIE, self.gate.cookie, httponly=True, samesite="strict", path="/")
            return answer
        if self._wrong >= _WRONG_AT_ONCE:
            return PlainTextResponse("too many wrong tokens, try again in a moment\n", 429)
        self._wrong += 1
        try:
            await asyncio.sleep(_WRONG_TOKEN_S)
        finally:
            self._wrong -= 1
        return self._ask("That is not the token.", 403)

    def _ask(self, complaint: str, status: int = 200) -> Response:
        body = _static("login.html").replace(b"{complaint}", complaint.encode())
        return Response(body, status, media_type="text/html; charset=utf-8")


@cache
def _static(name: str) -> bytes:
    return resources.files("softlan.observe.page").joinpath("static", name).read_bytes()
