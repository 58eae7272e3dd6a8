"""Bodies that other code has read: forwarded if they were kept, else refused at once."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI, Form, Request, Response
from starlette.middleware.base import RequestResponseEndpoint
from starlette.types import Message

from fastapi_proxy_di import (
    Balancer,
    RequestBodyConsumed,
    Upstream,
    proxy_lifespan,
    proxy_router,
)
from fastapi_proxy_di.upstream.client_request import take_body
from tests.support.gateways import billing, gateway_app, until
from tests.support.http_client import connect, fetch, request
from tests.support.origins import Connection, ScriptedOrigin, chunk, response_bytes
from tests.support.servers import run_app
from tests.support.taken import record_taken

pytestmark = pytest.mark.e2e


async def read_body(request: Request) -> None:
    """Read the body the way Starlette keeps it."""
    await request.body()


async def read_stream(request: Request) -> None:
    """Read the body as a stream, which keeps nothing."""
    async for _ in request.stream():
        pass


async def read_form(request: Request) -> None:
    """Read the body as a form."""
    await request.form()


def _proxied(url: str, reads: Callable[..., Awaitable[None]]) -> FastAPI:
    return gateway_app(url, router={"websocket": False}, include={"dependencies": [Depends(reads)]})


def _injected(url: str, reads: Callable[..., Awaitable[None]]) -> FastAPI:
    app = FastAPI(lifespan=proxy_lifespan)
    upstream = Upstream(billing(url))

    @app.post("/billing/x", dependencies=[Depends(reads)])
    async def x(request: Request, balancer: Balancer = Depends(upstream)) -> Response:
        return await balancer.forward(request, "/x")

    return app


_FACES = [_proxied, _injected]


@pytest.mark.parametrize("face", _FACES)
@pytest.mark.parametrize("chunked", [False, True])
async def test_body_that_was_kept_is_sent(
    face: Callable[[str, Callable[..., Awaitable[None]]], FastAPI], chunked: bool
) -> None:
    """After ``request.body()`` in a dependency the body is sent, with its length."""
    async with (
        ScriptedOrigin() as origin,
        run_app(face(origin.url, read_body)) as running,
        connect(running.address) as client,
    ):
        if chunked:
            head = request("POST", "/billing/x", [(b"Transfer-Encoding", b"chunked")])
            await client.send(head + chunk(b"hel") + chunk(b"lo") + chunk(b""))
        else:
            await client.send(request("POST", "/billing/x", body=b"hello"))
        reply = await client.read_response()

    assert reply.status == 200
    assert origin.request.body == b"hello"
    assert origin.request.one(b"content-length") == b"5"
    assert not origin.request.chunked


@pytest.mark.parametrize("face", _FACES)
@pytest.mark.parametrize("reads", [read_stream, read_form])
async def test_body_that_was_consumed_is_an_error_at_once(
    face: Callable[[str, Callable[..., Awaitable[None]]], FastAPI],
    reads: Callable[..., Awaitable[None]],
) -> None:
    """500 instead of a hang, and nothing is sent."""
    form = [(b"Content-Type", b"application/x-www-form-urlencoded")]
    async with ScriptedOrigin() as origin, run_app(face(origin.url, reads)) as running:
        reply = await fetch(running.address, "POST", "/billing/x", form, b"a=1")

    assert reply.status == 500
    assert origin.requests == []


async def test_consumed_body_can_be_replaced() -> None:
    """``override_body`` does not need the client's body."""
    app = FastAPI(lifespan=proxy_lifespan)
    caught: list[RequestBodyConsumed] = []

    async with ScriptedOrigin() as origin:
        upstream = Upstream(billing(origin.url))

        @app.post("/x")
        async def x(
            request: Request,
            a: Annotated[str, Form()],
            balancer: Balancer = Depends(upstream),
        ) -> Response:
            with pytest.raises(RequestBodyConsumed) as info:
                await balancer.forward(request)
            caught.append(info.value)
            return await balancer.forward(request, override_body={"a": a})

        form = [(b"Content-Type", b"application/x-www-form-urlencoded")]
        async with run_app(app) as running:
            reply = await fetch(running.address, "POST", "/x", form, b"a=1")

    assert reply.status == 200
    assert len(caught) == 1
    assert origin.request.body.replace(b" ", b"") == b'{"a":"1"}'


_CLIENT_BODIES = [None, b"", b"hello", b"x" * 300_000]


def _authorizing(url: str, *, closes: bool) -> FastAPI:
    """Make an app whose dependency sends another body before the client's is read."""
    app = FastAPI(lifespan=proxy_lifespan)
    upstream = Upstream(billing(url))

    async def authorize(request: Request, balancer: Annotated[Balancer, Depends(upstream)]) -> None:
        response = await balancer.forward(request, "/auth", override_body=b"token")
        if closes:
            await response.aclose()

    @app.post("/own/x", dependencies=[Depends(authorize)])
    async def x(request: Request) -> Response:
        return Response(await request.body())

    app.include_router(proxy_router(upstream), prefix="/billing", dependencies=[Depends(authorize)])
    return app


@pytest.mark.parametrize("body", _CLIENT_BODIES, ids=["none", "empty", "small", "large"])
@pytest.mark.parametrize("closes", [True, False])
@pytest.mark.parametrize("path", ["/own/x", "/billing/x"])
async def test_body_is_kept_while_a_dependency_sends_another(
    path: str, closes: bool, body: bytes | None
) -> None:
    """The part that was read to notice a disconnect is not lost."""

    async def script(connection: Connection) -> None:
        while True:
            received = await connection.read_request()
            if received.target == b"/auth":
                await until(
                    lambda: taken.messages
                )  # the client is watched, its first part was read
            await connection.send(response_bytes(body=received.body))

    async with ScriptedOrigin(script) as origin:
        app = _authorizing(origin.url, closes=closes)
        taken = record_taken(app)
        async with run_app(app) as running, asyncio.timeout(30):
            reply = await fetch(running.address, "POST", path, body=body)

    assert reply.status == 200
    assert reply.body == (body or b"")
    assert origin.requests[0].body == b"token"


@pytest.mark.parametrize("body", _CLIENT_BODIES[:3], ids=["none", "empty", "small"])
async def test_disconnect_is_seen_while_another_body_is_sent(body: bytes | None) -> None:
    """The upstream's connection is closed at once."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.peer_left()

    async with (
        ScriptedOrigin(script) as origin,
        run_app(_authorizing(origin.url, closes=True)) as running,
    ):
        async with connect(running.address) as client:
            await client.send(request("POST", "/own/x", body=body))
            await until(lambda: origin.requests)
        await origin.all_left()


async def test_body_read_by_a_middleware_is_sent() -> None:
    """Starlette replays the body that ``@app.middleware`` has read."""

    async def reading(request: Request, call_next: RequestResponseEndpoint) -> Response:
        await request.body()
        return await call_next(request)

    async with ScriptedOrigin() as origin:
        app = gateway_app(origin.url)
        app.middleware("http")(reading)
        async with run_app(app) as running:
            reply = await fetch(running.address, "POST", "/billing/x", body=b"hello")

    assert reply.status == 200
    assert origin.request.body == b"hello"


@pytest.mark.parametrize("reads", [read_body, read_stream])
@pytest.mark.parametrize(("method", "body"), [("GET", None), ("POST", b"")])
async def test_request_without_body_behind_a_dependency_that_reads_is_sent(
    reads: Callable[..., Awaitable[None]], method: str, body: bytes | None
) -> None:
    """There is no body to lose, however it was read."""
    async with ScriptedOrigin() as origin, run_app(_proxied(origin.url, reads)) as running:
        reply = await fetch(running.address, method, "/billing/x", body=body)

    assert reply.status == 200
    assert origin.request.body == b""
    assert not origin.request.chunked


@pytest.mark.parametrize(
    ("method", "headers", "refused"),
    [
        ("POST", [], True),
        ("GET", [], False),
        ("POST", [(b"content-length", b"0")], False),
        ("GET", [(b"content-length", b"5")], True),
    ],
)
async def test_body_of_http_2_that_was_read_as_a_stream_is_refused(
    method: str, headers: list[tuple[bytes, bytes]], refused: bool
) -> None:
    """There, no header has to say that a request has a body."""
    scope = {"type": "http", "http_version": "2", "method": method, "headers": headers}

    async def receive() -> Message:
        return {"type": "http.request", "body": b"hello", "more_body": False}

    request = Request(scope, receive)
    await read_stream(request)

    if refused:
        with pytest.raises(RequestBodyConsumed):
            take_body(request)
    else:
        assert take_body(request) == b""
