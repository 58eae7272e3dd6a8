"""``proxy_app(guard=...)``: guards run before anything is read or dialled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException, Request
from fastapi.security import HTTPBearer
from starlette.exceptions import WebSocketException
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Message

from fastapi_proxy_di import NoAvailableDestination, ProxyApp, proxy_app, proxy_lifespan
from fastapi_proxy_di.transforms import OutboundRequest
from tests.support.gateways import billing
from tests.support.http_client import connect, fetch, request
from tests.support.origins import ScriptedOrigin
from tests.support.servers import Running, run_app
from tests.support.websocket_client import open_websocket, shake_hands
from tests.websocket.upstreams import EchoApp, echo_server

pytestmark = pytest.mark.e2e


class Guard:
    """Records its calls, and gives a fixed result.

    Attributes:
        seen: Type and path of each connection.
    """

    def __init__(self, outcome: Response | Exception | None = None) -> None:
        self.seen: list[tuple[str, str]] = []
        self._outcome = outcome

    async def __call__(self, connection: HTTPConnection) -> Response | None:
        """Give the result."""
        assert type(connection) is HTTPConnection
        self.seen.append((connection.scope["type"], connection.url.path))
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


@asynccontextmanager
async def guarded(guard: Any) -> AsyncIterator[tuple[Running, ScriptedOrigin]]:
    """Run an app that mounts a guarded upstream."""
    async with ScriptedOrigin() as origin:
        app = FastAPI(lifespan=proxy_lifespan)
        app.mount("/billing", proxy_app(billing(origin.url), guard=guard))
        async with run_app(app) as running:
            yield running, origin


async def test_guard_allows_by_none() -> None:
    """HTTP and WebSocket, called once each, with the whole path."""
    guard = Guard()
    async with echo_server(EchoApp()) as origin:
        app = FastAPI(lifespan=proxy_lifespan)
        app.mount("/billing", proxy_app(billing(origin.url), guard=guard))
        async with (
            run_app(app) as running,
            open_websocket(running.address, "/billing/live") as client,
        ):
            await client.send("hello")
            assert await client.recv() == "hello"
            await fetch(running.address, target="/billing/x")

    assert guard.seen == [("websocket", "/billing/live"), ("http", "/billing/x")]


REFUSALS: dict[str, Callable[[], Response | Exception]] = {
    "response": lambda: PlainTextResponse("no", 401, {"www-authenticate": "Key"}),
    "HTTPException": lambda: HTTPException(401, "no", {"www-authenticate": "Key"}),
}


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_refused_request_reaches_no_upstream(refusal: str) -> None:
    """By a response or an exception of the guard."""
    async with guarded(Guard(REFUSALS[refusal]())) as (running, origin):
        reply = await fetch(running.address, "POST", "/billing/x", body=b"hello")
        async with connect(running.address) as client:
            handshake = await shake_hands(client, "/billing/x")

    for one in (reply, handshake):
        assert (one.status, one.one(b"www-authenticate")) == (401, b"Key")
        assert b"no" in one.body
    assert origin.connections == 0


async def test_http_exception_gives_the_response_that_fastapi_gives() -> None:
    """Also without FastAPI around the application."""
    async with ScriptedOrigin() as origin:
        guard = Guard(HTTPException(403, {"reason": "expired"}))
        proxy = proxy_app(billing(origin.url), guard=guard)
        async with run_app(proxy) as running:
            reply = await fetch(running.address, target="/x")

    assert (reply.status, reply.json()) == (403, {"detail": {"reason": "expired"}})


async def test_guards_run_until_the_first_refusal() -> None:
    """Later guards are not called."""
    passing, refusing, never = Guard(), Guard(Response(status_code=403)), Guard()
    async with guarded([passing, refusing, never]) as (running, origin):
        reply = await fetch(running.address, target="/billing/x")

    assert reply.status == 403
    assert (len(passing.seen), len(refusing.seen), len(never.seen)) == (1, 1, 0)
    assert origin.connections == 0


async def test_guard_runs_before_the_body_is_read() -> None:
    """A client that waits for 100 Continue is refused without its body."""
    async with (
        guarded(Guard(Response(status_code=403))) as (running, _),
        connect(running.address) as client,
    ):
        headers = [(b"Content-Length", b"5"), (b"Expect", b"100-continue")]
        await client.send(request("POST", "/billing/x", headers))
        reply = await client.read_response("POST")

    assert (reply.status, reply.informational) == (403, [])


@pytest.mark.parametrize("extensions", [{}, None])
async def test_refused_websocket_is_closed_where_no_response_can_be_sent(
    extensions: dict[str, Any] | None,
) -> None:
    """Servers turn a close before the accept into their 403."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError("nothing is read")

    proxy = proxy_app("billing", guard=Guard(Response(status_code=401)))
    scope: dict[str, Any] = {"type": "websocket", "path": "/x", "headers": []}
    if extensions is not None:
        scope["extensions"] = extensions
    await proxy(scope, receive, send)

    assert sent == [{"type": "websocket.close", "code": 1000}]


async def test_websocket_exception_refuses_the_handshake() -> None:
    """As in a dependency."""
    async with (
        guarded(Guard(WebSocketException(1008))) as (running, origin),
        connect(running.address) as client,
    ):
        handshake = await shake_hands(client, "/billing/x")

    assert (handshake.status, origin.connections) == (403, 0)


async def test_proxy_error_of_a_guard_gives_a_response() -> None:
    """A guard may call an upstream."""
    async with guarded(Guard(NoAvailableDestination("the auth service is down"))) as (running, _):
        reply = await fetch(running.address, target="/billing/x")

    assert (reply.status, reply.json()["failure"]) == (503, "no_available_destination")


@pytest.mark.parametrize("outcome", [True, False, "", 0])
async def test_anything_else_than_a_response_refuses_the_request(outcome: Any) -> None:
    """A guard that returns ``True`` or ``False`` is an error."""
    async with guarded(Guard(outcome)) as (running, origin):
        reply = await fetch(running.address, target="/billing/x")

    assert (reply.status, origin.connections) == (500, 0)


async def test_guard_that_fails_refuses_the_request() -> None:
    """With 500."""
    async with guarded(Guard(KeyError("tenant"))) as (running, origin):
        reply = await fetch(running.address, target="/billing/x")

    assert (reply.status, origin.connections) == (500, 0)


async def test_guard_runs_for_an_upstream_that_is_not_started() -> None:
    """Refused clients do not see that it is not started."""
    app = FastAPI()
    app.mount("/billing", proxy_app("billing", guard=Guard(Response(status_code=401))))
    async with run_app(app) as running:
        reply = await fetch(running.address, target="/billing/x")

    assert reply.status == 401


async def test_fastapis_security_classes_serve_in_a_guard() -> None:
    """They take an ``HTTPConnection``."""
    bearer = HTTPBearer()

    async def check(connection: HTTPConnection) -> None:
        credentials = await bearer(connection)
        assert credentials is not None
        if credentials.credentials != "s3cret":
            raise HTTPException(403)

    async with guarded(check) as (running, origin):
        replies = [
            await fetch(running.address, target="/billing/x", headers=headers)
            for headers in (
                [],
                [(b"Authorization", b"Bearer x")],
                [(b"Authorization", b"Bearer s3cret")],
            )
        ]

    assert [reply.status for reply in replies] == [401, 403, 200]
    assert origin.connections == 1


async def test_guard_leaves_state_for_transforms() -> None:
    """Its result is sent in a header that no client can forge."""

    async def identify(connection: HTTPConnection) -> None:
        connection.state.tenant = "acme"

    def tell(request: OutboundRequest) -> None:
        request.headers["x-tenant"] = request.inbound.scope["state"]["tenant"]

    async with ScriptedOrigin() as origin:
        proxy = proxy_app(billing(origin.url), guard=identify, transforms=[tell])
        async with run_app(proxy) as running:
            await fetch(running.address, target="/x", headers=[(b"X-Tenant", b"forged")])

    assert origin.request.all(b"x-tenant") == [b"acme"]


async def test_background_task_of_a_refusal_runs() -> None:
    """A refusal is an ordinary response."""
    from starlette.background import BackgroundTask

    refused = asyncio.Event()

    async def notify() -> None:
        refused.set()

    refusal = JSONResponse({}, 429, background=BackgroundTask(notify))
    async with guarded(Guard(refusal)) as (running, _):
        reply = await fetch(running.address, target="/billing/x")
        async with asyncio.timeout(10):
            await refused.wait()

    assert reply.status == 429


def sync(connection: HTTPConnection) -> None:
    """A function that cannot be awaited."""


class Sync:
    """An object that cannot be awaited."""

    def __call__(self, connection: Request) -> None:
        """Decide nothing."""


@pytest.mark.parametrize("guard", [sync, Sync(), partial(sync), [Guard(), sync], ["check"]])
def test_guard_must_be_async(guard: Any) -> None:
    """A guard that is not raises at once."""
    with pytest.raises(TypeError, match="must be an async function"):
        proxy_app("billing", guard=guard)


@pytest.mark.parametrize("guard", [None, (), Guard(), partial(Guard.__call__, Guard()), [Guard()]])
def test_guard_may_be_of_any_async_kind(guard: Any) -> None:
    """Functions, objects, partials, several, none."""
    assert isinstance(proxy_app("billing", guard=guard), ProxyApp)
