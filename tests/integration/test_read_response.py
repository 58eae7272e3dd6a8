"""``response.read()`` and ``response.iter_bytes()``: the app reads the body of a response."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from fastapi import Depends, FastAPI, Request, Response

from fastapi_proxy_di import AnswerTooLarge, Balancer, Upstream, proxy_lifespan
from fastapi_proxy_di.upstream.proxied_response import ProxiedResponse
from tests.support.gateways import Gateway, billing, until
from tests.support.http_client import Ending, RawResponse, connect, fetch, request
from tests.support.origins import (
    Connection,
    PeerLeft,
    ScriptedOrigin,
    always,
    chunk,
    response_bytes,
)
from tests.support.servers import run_app

pytestmark = pytest.mark.e2e

Endpoint = Callable[[ProxiedResponse], Awaitable[object]]
GZIP = [(b"content-encoding", b"gzip")]


@contextlib.asynccontextmanager
async def reading(url: str, endpoint: Endpoint, **settings: object) -> AsyncIterator[Gateway]:
    """Run an app whose endpoint gets the response of a forwarded request."""
    app = FastAPI(lifespan=proxy_lifespan)
    mention = Upstream(billing(url, **settings))

    @app.api_route("/x", methods=["GET", "HEAD"])
    async def x(request: Request, upstream: Balancer = Depends(mention)) -> object:
        return await endpoint(await upstream.forward(request))

    async with run_app(app) as running:
        yield Gateway(running, app)


async def ask(url: str, endpoint: Endpoint, **settings: object) -> RawResponse:
    """Send one request through such an app."""
    async with reading(url, endpoint, **settings) as gateway:
        reply = await fetch(gateway.address, target="/x")
        await until(lambda: not gateway.in_flight)
    return reply


async def test_body_is_read_and_sent_as_it_came() -> None:
    """The app gets it decoded, the client in gzip; a second call gives the same."""
    packed = gzip.compress(b'{"total": 70}')
    seen: list[object] = []

    async def endpoint(response: ProxiedResponse) -> Response:
        with pytest.raises(AttributeError, match=r"await response\.read"):
            _ = response.body
        seen.extend([await response.read(), await response.read(), response.body])
        return response

    async with ScriptedOrigin(always(response_bytes(200, packed, GZIP))) as origin:
        reply = await ask(origin.url, endpoint)

    assert seen == [b'{"total": 70}'] * 3
    assert (reply.body, reply.one(b"content-encoding")) == (packed, b"gzip")
    assert reply.one(b"content-length") == str(len(packed)).encode()


async def test_body_makes_another_response() -> None:
    """The one that was read is not sent, and its connection serves the next request."""

    async def endpoint(response: ProxiedResponse) -> object:
        return {"doubled": 2 * json.loads(await response.read())["total"]}

    body = response_bytes(200, b'{"total": 70}')
    async with ScriptedOrigin(always(body)) as origin, reading(origin.url, endpoint) as gateway:
        replies = [await fetch(gateway.address, target="/x") for _ in range(3)]
        (destination,) = gateway.balancer.status().destinations

    assert [json.loads(reply.body) for reply in replies] == [{"doubled": 140}] * 3
    assert origin.connections == 1
    assert destination.recent_failed_attempts == 0


@pytest.mark.parametrize("coded", [False, True])
async def test_longer_body_than_the_limit_is_still_sent(coded: bool) -> None:
    """Also one that is short as long as it is encoded; a larger limit reads it on."""
    body = bytes(300_000)
    sent = gzip.compress(body) if coded else body

    async def endpoint(response: ProxiedResponse) -> Response:
        with pytest.raises(AnswerTooLarge, match="larger than 1000 bytes") as raised:
            await response.read(1000)
        assert raised.value.status == 502
        with pytest.raises(AnswerTooLarge):
            await response.read(100_000)
        assert await response.read() == body
        return response

    head = response_bytes(200, sent, GZIP if coded else [])
    async with ScriptedOrigin(always(head)) as origin:
        assert (await ask(origin.url, endpoint)).body == sent


async def test_rest_of_a_body_that_is_too_long_streams() -> None:
    """Nothing beyond the limit is read before the response is sent."""
    more = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        await connection.send(head + chunk(bytes(2000)))
        await more.wait()
        await connection.send(chunk(b"rest") + b"0\r\n\r\n")

    async def endpoint(response: ProxiedResponse) -> Response:
        with pytest.raises(AnswerTooLarge):
            await response.read(1000)
        more.set()
        return response

    async with ScriptedOrigin(script) as origin:
        assert (await ask(origin.url, endpoint)).body == bytes(2000) + b"rest"


async def test_body_is_given_in_pieces() -> None:
    """Decoded, instead of being sent; then the response has ended."""
    body = b"".join(number.to_bytes(4, "big") for number in range(100_000))

    async def endpoint(response: ProxiedResponse) -> object:
        pieces = [piece async for piece in response.iter_bytes()]
        assert len(pieces) > 1
        assert b"".join(pieces) == body
        with pytest.raises(RuntimeError, match="sent or closed"):
            await response.read()
        return {"read": True}

    packed = response_bytes(200, gzip.compress(body), GZIP)
    async with ScriptedOrigin(always(packed)) as origin:
        assert (await ask(origin.url, endpoint)).status == 200


async def test_reading_that_ends_early_closes_the_response() -> None:
    """The destination, which would send for ever, sees the end."""
    left = asyncio.Event()

    async def endless(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        with contextlib.suppress(PeerLeft):
            while True:
                await connection.send(chunk(bytes(10_000)))
        left.set()

    async def endpoint(response: ProxiedResponse) -> object:
        async with contextlib.aclosing(response.iter_bytes()) as pieces:
            async for _ in pieces:
                break
        return {}

    async with ScriptedOrigin(endless) as origin:
        assert (await ask(origin.url, endpoint)).status == 200
        await asyncio.wait_for(left.wait(), 10)


@pytest.mark.parametrize("returned", [False, True])
async def test_response_that_breaks_off_fails_the_read(returned: bool) -> None:
    """And is broken off for the client if it is returned all the same."""

    async def cut(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhello")

    async def endpoint(response: ProxiedResponse) -> Response:
        if not returned:
            await response.read()
        with contextlib.suppress(Exception):
            await response.read()
        return response

    async with ScriptedOrigin(cut) as origin, reading(origin.url, endpoint) as gateway:
        async with connect(gateway.address) as client:
            await client.send(request("GET", "/x", [], None))
            if returned:
                assert (await client.read_response("GET")).ending is Ending.BROKEN
            else:
                assert (await client.read_response("GET")).status == 502
        await until(lambda: not gateway.in_flight)
        (destination,) = gateway.balancer.status().destinations
    assert destination.recent_failed_attempts == 1


@pytest.mark.parametrize("coding", [b"compress", b"gzip"])
async def test_body_that_cannot_be_decoded_is_a_failure(coding: bytes) -> None:
    """An unknown coding, or bytes that are none of it; the response may be returned."""

    async def endpoint(response: ProxiedResponse) -> Response:
        await response.read()
        return response

    head = response_bytes(200, b"not packed", [(b"content-encoding", coding)])
    async with ScriptedOrigin(always(head)) as origin:
        reply = await ask(origin.url, endpoint)

    assert (reply.status, json.loads(reply.body)["failure"]) == (502, "response_body")


async def test_response_without_a_body_is_empty() -> None:
    """Of a HEAD, and a 204."""

    async def endpoint(response: ProxiedResponse) -> Response:
        assert await response.read() == b""
        return response

    async with (
        ScriptedOrigin(always(response_bytes(204))) as origin,
        reading(origin.url, endpoint) as gateway,
    ):
        assert (await fetch(gateway.address, target="/x")).status == 204
        assert (await fetch(gateway.address, "HEAD", "/x")).status == 204


@pytest.mark.parametrize("settings", [{}, {"streams": {"idle": 30}}])
async def test_stream_that_was_read_is_shown_to_its_tap_and_sent_whole(
    settings: dict[str, object],
) -> None:
    """Also where the pace of streams is watched."""
    body = b"data: one\n\ndata: two\n\n"
    seen: list[str] = []
    app = FastAPI(lifespan=proxy_lifespan)
    stream = response_bytes(200, body, [(b"content-type", b"text/event-stream")])
    async with ScriptedOrigin(always(stream)) as origin:
        mention = Upstream(billing(origin.url, **settings))

        @app.get("/x")
        async def x(request: Request, upstream: Balancer = Depends(mention)) -> Response:
            response = await upstream.forward(request, tap=lambda event, _: seen.append(event.data))
            assert await response.read() == body
            return response

        async with run_app(app) as running:
            reply = await fetch(running.address, target="/x")

    assert (reply.body, seen) == (body, ["one", "two"])
