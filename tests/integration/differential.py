"""Sends the same requests to an ordinary route and to a proxied one, and records both outcomes.

One side is an app whose mount has an endpoint that returns a constant, the other an app whose mount
is proxied to an origin that returns the same constant. Each side logs what runs, in order.
"""

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import pytest
from fastapi import APIRouter, FastAPI, HTTPException, Request, Response, WebSocket
from fastapi.params import Depends
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_proxy_di import proxy_router
from tests.support.gateways import Billing, billing
from tests.support.http_client import RawResponse, connect, fetch
from tests.support.origins import Connection, ScriptedOrigin, response_bytes
from tests.support.servers import run_app
from tests.support.websocket_client import Closed, WebSocketClient, shake_hands
from tests.support.websocket_frames import frame
from tests.support.websocket_origin import FramePeer, accepting, until_left

__all__ = ["Ask", "Broken", "Gate", "Outcome", "Side", "outcomes"]

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND")
_BODY: Final = b"constant " * 200
_HEADERS: Final = {
    "content-type": "text/plain; charset=utf-8",
    "cache-control": "no-store",
    "x-constant": "yes",
    "content-length": str(len(_BODY)),
}
_OF_THE_SERVER: Final = {b"date", b"server", b"content-length", b"transfer-encoding", b"connection"}
"""Left out of the comparison: who frames the body decides, and the day."""


class Broken(Exception):
    """The exception of a guard with a bug."""


class Side:
    """One app of a pair, and the log of its guards and middlewares.

    Attributes:
        app: What is served unless a composition returns something else.
        at: Path of the mount, as clients see it.
        server: Options of ``uvicorn.Config``.
        upstream: Settings of the upstream, of one destination.
        patch: Undone when the side has been asked.
    """

    def __init__(self, *, proxied: bool, patch: pytest.MonkeyPatch) -> None:
        self.app = FastAPI()
        self.at = "/mount"
        self.server: dict[str, Any] = {}
        self.patch = patch
        self.log: list[str] = []
        self.proxied = proxied
        self.upstream: Billing
        self.when_running: list[Callable[[], object]] = []

    def note(self, what: str) -> None:
        """Add an entry to the log."""
        self.log.append(what)

    def judge(self, name: str, headers: Mapping[str, str]) -> None:
        """Log that a guard ran, and refuse or fail as the request's headers ask for.

        Raises:
            HTTPException: The request asks to be refused.
            Broken: The request asks for a fault.
        """
        self.note(name)
        if "x-refuse" in headers:
            raise HTTPException(403, f"refused by {name}", {"x-why": name})
        if "x-fail" in headers:
            raise Broken(name)

    def guard(self, name: str = "guard") -> Callable[..., Any]:
        """Make a dependency that calls ``judge``, for HTTP and WebSocket."""

        async def guard(connection: HTTPConnection) -> None:
            self.judge(name, connection.headers)

        return guard

    def guards(self, name: str = "guard") -> list[Any]:
        """Make ``dependencies=`` with one guard."""
        return [Depends(self.guard(name))]

    def router(
        self, *, dependencies: Sequence[Any] = (), methods: Sequence[str] | None = None
    ) -> APIRouter:
        """Make the router of this side: a constant, or a proxied one."""
        if self.proxied:
            return proxy_router(self.upstream, dependencies=list(dependencies), methods=methods)
        return self._ordinary(dependencies, list(methods or METHODS))

    def mount(self, to: FastAPI | APIRouter | None = None, **include: Any) -> None:
        """Include the router at ``/mount``.

        Args:
            to: Where; the app by default.
            **include: Arguments of ``include_router``.
        """
        (to or self.app).include_router(self.router(), **{"prefix": "/mount", **include})

    def _ordinary(self, dependencies: Sequence[Any], methods: list[str]) -> APIRouter:
        router = APIRouter(dependencies=list(dependencies))

        async def endpoint(request: Request) -> Response:
            self.note(f"reached by {request.method} with {await request.body()!r}")
            return StreamingResponse(_body(request.method), headers=_HEADERS)

        async def bare(request: Request) -> Response:
            if request.method not in ("GET", "HEAD") or not request.app.router.redirect_slashes:
                return await endpoint(request)
            path, root = request.scope["path"], request.scope["root_path"]
            path = path if path.startswith(f"{root}/") else root + path
            query = request.url.query
            return Response(
                status_code=307,
                headers={"location": f"{quote(path)}/{'?' if query else ''}{query}"},
            )

        async def tunnel(websocket: WebSocket) -> None:
            self.note("reached by WebSocket")
            await websocket.accept()
            await websocket.send_text("constant")
            await websocket.close(1000)

        router.add_api_route("", bare, methods=methods)
        router.add_api_websocket_route("", tunnel)
        router.add_api_route("/{path:path}", endpoint, methods=methods)
        router.add_api_websocket_route("/{path:path}", tunnel)
        return router

    async def respond(self, connection: Connection) -> None:
        """The origin's script: the same constant for every request."""
        head = await connection.read_head()
        if head.one(b"upgrade") == b"websocket":
            self.note("reached by WebSocket")
            await connection.send(accepting(head))
            await connection.send(frame(1, b"constant") + frame(8, b"\x03\xe8"))
            await until_left(FramePeer(connection.reader, connection.writer))
            return
        body = await connection.read_body(head)
        self.note(f"reached by {head.method.decode()} with {body!r}")
        headers = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
        constant = response_bytes(body=_BODY, headers=headers, length=False)
        if head.method == b"HEAD":
            constant = constant.removesuffix(_BODY)
        await connection.send(constant)


async def _body(method: str) -> AsyncIterator[bytes]:
    if method != "HEAD":
        yield _BODY


class Gate:
    """A pure ASGI middleware that logs, and refuses or fails as the headers ask for."""

    def __init__(self, app: ASGIApp, side: Side, name: str = "gate") -> None:
        self.app = app
        self.side = side
        self.name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        try:
            self.side.judge(f"{self.name} in", Headers(scope=scope))
        except HTTPException as refusal:
            await PlainTextResponse(refusal.detail, 403)(scope, receive, send)
        else:
            await self.app(scope, receive, send)
        self.side.note(f"{self.name} out")


@dataclass(frozen=True, slots=True)
class Ask:
    """One request for both sides; ``path`` is below the mount."""

    name: str
    method: str = "GET"
    path: str = "/a/b?q=1"
    headers: Sequence[tuple[bytes, bytes]] = ()
    body: bytes | None = None
    websocket: bool = False


_REFUSE: Final = [(b"x-refuse", b"1")]
_FAIL: Final = [(b"x-fail", b"1")]
_JSON: Final = [(b"content-type", b"application/json")]
_FORM: Final = [(b"content-type", b"application/x-www-form-urlencoded")]
_ORIGIN: Final = [(b"origin", b"https://other.test")]

ASKS: Final = (
    Ask("allowed"),
    Ask("refused", headers=_REFUSE),
    Ask("failing", headers=_FAIL),
    Ask("odd method", "PROPFIND"),
    Ask("odd method, refused", "PROPFIND", headers=_REFUSE),
    Ask("head", "HEAD"),
    Ask("preflight", "OPTIONS", headers=[*_ORIGIN, (b"access-control-request-method", b"PUT")]),
    Ask("other origin", headers=[*_ORIGIN, (b"accept-encoding", b"gzip")]),
    Ask("bare mount", path=""),
    Ask("bare mount with query", path="?a=%20b"),
    Ask("bare mount, refused", path="", headers=_REFUSE),
    Ask("bare mount, posted", "POST", "", body=b""),
    Ask("encoded path", path="/a%2Fb%20c;d=%25"),
    Ask("odd path", path="//a//"),
    Ask("invalid query", path="/a?page=none"),
    Ask("json", "POST", headers=_JSON, body=b'{"number": 7}'),
    Ask("wrong json", "POST", headers=_JSON, body=b'{"number": "x"}'),
    Ask("form", "POST", headers=_FORM, body=b"number=7"),
    Ask("large body", "POST", body=b"x" * 5000),
    Ask("large body, refused", "POST", headers=_REFUSE, body=b"x" * 5000),
    Ask("not the mount", path="x"),
    Ask("websocket", websocket=True),
    Ask("websocket, refused", headers=_REFUSE, websocket=True),
    Ask("websocket, failing", headers=_FAIL, websocket=True),
    Ask("websocket to the bare mount", path="", websocket=True),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one request.

    Attributes:
        status: Status code; 101 for an open tunnel.
        body: Body without its coding.
        headers: The headers that the app decides, sorted.
        messages: The messages received through the tunnel.
        log: What ran, in order.
    """

    status: int
    body: bytes
    headers: list[tuple[bytes, bytes]]
    messages: list[str]
    log: list[str] = field(default_factory=list)

    @property
    def reached(self) -> bool:
        """Whether the endpoint or the upstream saw the request."""
        return any(line.startswith("reached") for line in self.log)


async def outcomes(
    compose: Callable[[Side], ASGIApp | None], *, proxied: bool, asks: Iterable[Ask] = ASKS
) -> dict[str, Outcome]:
    """Build one side, serve it and send it all requests.

    Args:
        compose: Puts the mount into the side's app; gives what to serve, if not that app.
        proxied: Which side.
        asks: The requests.

    Returns:
        The outcome of each request, by its name.
    """
    with pytest.MonkeyPatch.context() as patch:
        side = Side(proxied=proxied, patch=patch)
        async with ScriptedOrigin(side.respond) as origin:
            side.upstream = billing(origin.url)
            app = compose(side) or side.app
            ended = asyncio.Event()

            async def watched(scope: Scope, receive: Receive, send: Send) -> None:
                """A function that must run before the app returns."""
                try:
                    await app(scope, receive, send)
                finally:
                    ended.set()

            async with run_app(watched, **side.server) as running:
                for act in side.when_running:
                    act()
                seen: dict[str, Outcome] = {}
                for ask in asks:
                    side.log.clear()
                    ended.clear()
                    tunnel = _tunnel if ask.websocket else _exchange
                    outcome = await tunnel(running.address, side, ask)
                    await ended.wait()
                    outcome.log.extend(side.log)
                    seen[ask.name] = outcome
                return seen


async def _exchange(address: tuple[str, int], side: Side, ask: Ask) -> Outcome:
    reply = await fetch(address, ask.method, side.at + ask.path, ask.headers, ask.body)
    body = reply.body
    if reply.one(b"content-encoding") == b"gzip" and body:
        body = gzip.decompress(body)
    if body == _BODY:
        body = b"the constant"
    return Outcome(reply.status, body, _decided_by_the_app(reply), [])


async def _tunnel(address: tuple[str, int], side: Side, ask: Ask) -> Outcome:
    async with connect(address) as client:
        reply = await shake_hands(client, side.at + ask.path, ask.headers)
        messages: list[str] = []
        if reply.status == 101:
            peer = WebSocketClient(client, reply)
            with contextlib.suppress(EOFError):
                while not isinstance(message := await peer.recv(), Closed):
                    messages.append(str(message))
                messages.append(str(message))
    return Outcome(reply.status, reply.body, _decided_by_the_app(reply), messages)


def _decided_by_the_app(reply: RawResponse) -> list[tuple[bytes, bytes]]:
    pairs = ((name.lower(), value) for name, value in reply.headers)
    return sorted((name, value) for name, value in pairs if name not in _OF_THE_SERVER)
