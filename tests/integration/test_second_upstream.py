"""A request whose forwarding failed goes to a second upstream, with its body."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi import Depends, FastAPI, Request, Response
from starlette.types import Message, Scope

from fastapi_proxy_di import (
    Balancer,
    ProxyError,
    RequestBodyConsumed,
    Upstream,
    UpstreamSettings,
    proxy_lifespan,
)
from tests.support.gateways import billing
from tests.support.http_client import connect, fetch, request
from tests.support.origins import Connection, ScriptedOrigin
from tests.support.servers import Running, dead_port, run_app

pytestmark = pytest.mark.e2e


class Second(UpstreamSettings, name="second"):
    """Settings of the upstream that is asked when the first one fails."""


@dataclass(slots=True)
class Shop:
    """A running app that forwards to the first upstream, then to the second."""

    running: Running
    failed: asyncio.Event = field(default_factory=asyncio.Event)
    errors: list[ProxyError] = field(default_factory=list)


@contextlib.asynccontextmanager
async def shop(first: str, second: str, **settings: Any) -> AsyncIterator[Shop]:
    """Run the app; ``settings`` are those of the first upstream."""
    app = FastAPI(lifespan=proxy_lifespan)
    one, two = Upstream(billing(first, **settings)), Upstream(Second(destinations=[second]))

    @app.api_route("/x", methods=["GET", "POST"])
    async def x(
        request: Request, a: Balancer = Depends(one), b: Balancer = Depends(two)
    ) -> Response:
        try:
            return await a.forward(request)
        except ProxyError as error:
            made.errors.append(error)
            made.failed.set()
        return await b.forward(request)

    async with run_app(app) as running:
        made = Shop(running)
        yield made


async def closes(connection: Connection) -> None:
    """Read a request, and close without a response."""
    await connection.read_request()


@pytest.mark.parametrize("size", [0, 5, 60_000, 200_000])
async def test_body_goes_to_the_second_upstream_if_nothing_was_sent(size: int) -> None:
    """The connection was refused; also more than ``replay_bytes``, whose rest was not read."""
    body = b"x" * size
    async with (
        ScriptedOrigin() as origin,
        shop(f"http://127.0.0.1:{dead_port()}", origin.url) as made,
    ):
        reply = await fetch(made.running.address, "POST", "/x", body=body)

    assert reply.status == 200
    assert origin.request.body == body
    assert [error.request_sent for error in made.errors] == [False]


async def test_body_goes_to_the_second_upstream_after_it_was_sent() -> None:
    """All of it is kept; the error says that bytes have left, so the app decides."""
    async with (
        ScriptedOrigin(closes) as first,
        ScriptedOrigin() as second,
        shop(first.url, second.url) as made,
    ):
        reply = await fetch(made.running.address, "POST", "/x", body=b"hello")

    assert reply.status == 200
    assert (first.request.body, second.request.body) == (b"hello", b"hello")
    assert [error.request_sent for error in made.errors] == [True]


async def test_body_that_is_not_kept_is_gone() -> None:
    """More than ``replay_bytes`` of it were sent."""
    async with (
        ScriptedOrigin(closes) as first,
        ScriptedOrigin() as second,
        shop(first.url, second.url) as made,
    ):
        reply = await fetch(made.running.address, "POST", "/x", body=bytes(200_000))

    assert reply.status == RequestBodyConsumed().status
    assert second.requests == []


async def test_rest_of_a_streamed_body_goes_to_the_second_upstream() -> None:
    """The first upstream has got the beginning, the second gets all of it."""

    async def closes_early(connection: Connection) -> None:
        await connection.read_head()
        await connection.reader.readuntil(b"hel")

    async with (
        ScriptedOrigin(closes_early) as first,
        ScriptedOrigin() as second,
        shop(first.url, second.url) as made,
        connect(made.running.address) as client,
    ):
        await client.send(request("POST", "/x", [(b"Transfer-Encoding", b"chunked")]))
        await client.send(b"3\r\nhel\r\n")
        await asyncio.wait_for(made.failed.wait(), 10)
        await client.send(b"2\r\nlo\r\n0\r\n\r\n")
        reply = await client.read_response()

    assert reply.status == 200
    assert second.request.body == b"hello"
    assert [error.request_sent for error in made.errors] == [True]


async def test_request_without_a_body_goes_to_the_second_upstream() -> None:
    """The connection was refused."""
    async with (
        ScriptedOrigin() as origin,
        shop(f"http://127.0.0.1:{dead_port()}", origin.url) as made,
    ):
        reply = await fetch(made.running.address, "GET", "/x")

    assert reply.status == 200
    assert [error.request_sent for error in made.errors] == [False]


async def test_body_without_a_length_that_is_not_kept_is_gone() -> None:
    """As HTTP/2 clients send it: no header says that there is a body."""
    pieces = [b"x" * 100_000, b"x" * 100_000, b"rest"]
    sent: list[Message] = []

    async def receive() -> Message:
        if not pieces:
            await asyncio.Event().wait()
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    async def send(message: Message) -> None:
        sent.append(message)

    async def closes_in_the_middle(connection: Connection) -> None:
        await connection.read_head()
        await connection.reader.readexactly(100_000)

    app = FastAPI(lifespan=proxy_lifespan)
    async with ScriptedOrigin(closes_in_the_middle) as first, ScriptedOrigin() as second:
        one, two = Upstream(billing(first.url)), Upstream(Second(destinations=[second.url]))

        @app.post("/x")
        async def x(
            request: Request, a: Balancer = Depends(one), b: Balancer = Depends(two)
        ) -> Response:
            with contextlib.suppress(ProxyError):
                return await a.forward(request)
            return await b.forward(request)

        scope: Scope = {
            "type": "http",
            "http_version": "2",
            "method": "POST",
            "path": "/x",
            "raw_path": b"/x",
            "query_string": b"",
            "headers": [],
        }
        async with app.router.lifespan_context(app):
            await app(scope, receive, send)

    assert sent[0]["status"] == RequestBodyConsumed().status
    assert second.requests == []
