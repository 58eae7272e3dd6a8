"""Middlewares of the app also work for proxied responses."""

import gzip
from typing import Any

import pytest
from fastapi import FastAPI, Request
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import Response
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from tests.support.gateways import gateway_app
from tests.support.http_client import connect, fetch, request
from tests.support.origins import (
    Connection,
    Headers,
    ScriptedOrigin,
    always,
    chunk,
    echo,
    response_bytes,
)
from tests.support.servers import run_app
from tests.support.websocket_client import open_websocket
from tests.websocket.gateways import serving
from tests.websocket.upstreams import EchoApp, echo_server

pytestmark = pytest.mark.e2e


_ORIGIN: Headers = [(b"Origin", b"https://app.test")]
_GZIP: Headers = [(b"Accept-Encoding", b"gzip")]


class Marking(BaseHTTPMiddleware):
    """A middleware that changes a request and its response."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Refuse marked requests; mark the others."""
        if "x-refuse" in request.headers:
            return Response("refused", 403)
        response = await call_next(request)
        response.headers["x-marked"] = "yes"
        return response


def _behind(middleware: Any, url: str, **options: Any) -> FastAPI:
    app = gateway_app(url)
    app.add_middleware(middleware, **options)
    return app


async def test_base_http_middleware_sees_and_changes() -> None:
    """It refuses before a request is forwarded, and adds headers to a streamed response."""
    body = b"x" * 300_000
    async with (
        ScriptedOrigin(
            always(
                response_bytes(body=body, headers=[(b"Set-Cookie", b"a"), (b"Set-Cookie", b"b")])
            )
        ) as origin,
        run_app(_behind(Marking, origin.url)) as running,
    ):
        refused = await fetch(running.address, target="/billing/x", headers=[(b"X-Refuse", b"1")])
        before = origin.connections
        reply = await fetch(running.address, target="/billing/x")

    assert (refused.status, refused.body, before) == (403, b"refused", 0)
    assert (reply.one(b"x-marked"), reply.body, reply.whole) == (b"yes", body, True)
    assert reply.all(b"set-cookie") == [b"a", b"b"]


async def test_base_http_middleware_lets_uploads_through() -> None:
    """A chunked upload is streamed."""
    async with (
        ScriptedOrigin(echo) as origin,
        run_app(_behind(Marking, origin.url)) as running,
        connect(running.address) as client,
    ):
        head = request("POST", "/billing/x", [(b"Transfer-Encoding", b"chunked")])
        await client.send(head + chunk(b"one ") + chunk(b"two") + b"0\r\n\r\n")
        reply = await client.read_response()

    assert reply.status == 200
    assert origin.request.body == b"one two"


async def test_gzip_compresses_plain_responses() -> None:
    """Without the original length."""
    text = b"all work and no play " * 500
    reply_bytes = response_bytes(body=text, headers=[(b"Content-Type", b"text/plain")])
    async with (
        ScriptedOrigin(always(reply_bytes)) as origin,
        run_app(_behind(GZipMiddleware, origin.url)) as running,
    ):
        reply = await fetch(running.address, target="/billing/x", headers=_GZIP)

    assert reply.one(b"content-encoding") == b"gzip"
    assert gzip.decompress(reply.body) == text
    assert reply.whole


async def test_gzip_leaves_encoded_responses() -> None:
    """A compressed response is not compressed again."""
    packed = gzip.compress(b"all work and no play " * 500)
    reply_bytes = response_bytes(
        body=packed, headers=[(b"Content-Type", b"text/plain"), (b"Content-Encoding", b"gzip")]
    )
    async with (
        ScriptedOrigin(always(reply_bytes)) as origin,
        run_app(_behind(GZipMiddleware, origin.url)) as running,
    ):
        reply = await fetch(running.address, target="/billing/x", headers=_GZIP)

    assert reply.all(b"content-encoding") == [b"gzip"]
    assert reply.body == packed


async def test_gzip_does_not_hold_event_streams() -> None:
    """An event arrives while the stream is open."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" + chunk(b"data: 1\n\n")
        )
        await connection.peer_left()

    async with (
        ScriptedOrigin(script) as origin,
        run_app(_behind(GZipMiddleware, origin.url)) as running,
        connect(running.address) as client,
    ):
        await client.send(request("GET", "/billing/events", _GZIP))
        await client.read_head()

        assert await client.read_chunk() == b"data: 1\n\n"


async def test_cors_middleware_responds_to_preflights_itself() -> None:
    """The response of the real request gets its headers."""
    async with (
        ScriptedOrigin() as origin,
        run_app(_behind(CORSMiddleware, origin.url, allow_origins=["https://app.test"])) as running,
    ):
        asked = [*_ORIGIN, (b"Access-Control-Request-Method", b"GET")]
        preflight = await fetch(running.address, "OPTIONS", "/billing/x", asked)
        before = origin.connections
        options = await fetch(running.address, "OPTIONS", "/billing/x")
        reply = await fetch(running.address, "GET", "/billing/x", _ORIGIN)

    assert (preflight.status, before) == (200, 0)
    assert preflight.one(b"access-control-allow-origin") == b"https://app.test"
    assert reply.one(b"access-control-allow-origin") == b"https://app.test"
    assert (options.status, len(origin.requests)) == (200, 2)


async def test_cors_headers_are_not_doubled() -> None:
    """If the upstream sends CORS headers as well, the browser gets those of the app."""
    allowed = response_bytes(headers=[(b"Access-Control-Allow-Origin", b"*")])
    async with (
        ScriptedOrigin(always(allowed)) as origin,
        run_app(_behind(CORSMiddleware, origin.url, allow_origins=["https://app.test"])) as running,
    ):
        reply = await fetch(running.address, "GET", "/billing/x", _ORIGIN)

    assert reply.all(b"access-control-allow-origin") == [b"https://app.test"]


@pytest.mark.parametrize(
    ("trusted", "seen"), [("127.0.0.1", b"203.0.113.7"), ("10.0.0.1", b"127.0.0.1")]
)
async def test_proxy_headers_name_the_client(trusted: str, seen: bytes) -> None:
    """The upstream gets the address that the middleware takes from a trusted peer."""
    headers = [(b"X-Forwarded-For", b"203.0.113.7"), (b"X-Forwarded-Proto", b"https")]
    async with ScriptedOrigin() as origin:
        app = _behind(ProxyHeadersMiddleware, origin.url, trusted_hosts=trusted)
        async with run_app(app, proxy_headers=False) as running:
            await fetch(running.address, target="/billing/x", headers=headers)

    assert origin.request.all(b"x-forwarded-for") == [seen]
    assert origin.request.all(b"x-forwarded-proto") == [
        b"https" if seen != b"127.0.0.1" else b"http"
    ]


async def test_trusted_host_refuses_before_forwarding() -> None:
    """An unknown Host reaches no destination."""
    async with (
        ScriptedOrigin() as origin,
        run_app(_behind(TrustedHostMiddleware, origin.url, allowed_hosts=["ours.test"])) as running,
    ):
        refused = await fetch(running.address, target="/billing/x", host=b"other.test")
        before = origin.connections
        reply = await fetch(running.address, target="/billing/x", host=b"ours.test")

    assert (refused.status, before) == (400, 0)
    assert reply.status == 200


@pytest.mark.parametrize(
    ("middleware", "options"),
    [
        (Marking, {}),
        (GZipMiddleware, {}),
        (CORSMiddleware, {"allow_origins": ["https://app.test"]}),
        (ProxyHeadersMiddleware, {}),
        (TrustedHostMiddleware, {"allowed_hosts": ["gateway.test"]}),
    ],
)
async def test_websocket_is_tunnelled(middleware: Any, options: dict[str, Any]) -> None:
    """With each of them."""
    async with (
        echo_server(EchoApp()) as echo,
        serving(_behind(middleware, echo.url, **options)) as gateway,
        open_websocket(gateway.address, "/billing/live", _ORIGIN) as client,
    ):
        await client.send("hello")

        assert await client.recv() == "hello"


async def test_all_middlewares_work_together() -> None:
    """A stack as apps have it."""
    text = b"all work and no play " * 500
    async with ScriptedOrigin(
        always(response_bytes(body=text, headers=[(b"Content-Type", b"text/plain")]))
    ) as origin:
        app = gateway_app(origin.url)
        app.add_middleware(Marking)
        app.add_middleware(GZipMiddleware)
        app.add_middleware(CORSMiddleware, allow_origins=["*"])
        app.add_middleware(ProxyHeadersMiddleware)
        async with run_app(app) as running:
            reply = await fetch(running.address, target="/billing/x", headers=[*_ORIGIN, *_GZIP])

    assert gzip.decompress(reply.body) == text
    assert reply.one(b"x-marked") == b"yes"
    assert reply.one(b"access-control-allow-origin") == b"*"
