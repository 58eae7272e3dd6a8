"""One exchange on a stream: heads, bodies, trailers, resets."""

from __future__ import annotations

import asyncio

import pytest
from h2.errors import ErrorCodes
from h2.events import DataReceived, StreamReset

from fastapi_proxy_di.errors import (
    Failure,
    UpstreamDisconnected,
    UpstreamProtocolError,
    UpstreamTimeout,
)
from fastapi_proxy_di.transport.protocol import Headers
from tests.support.gateways import gateway, until
from tests.support.http_client import connect, fetch, request
from tests.transport.http2.peer import Peer, asks, scripted, transport_to


async def test_http2_response_with_1xx_and_trailers() -> None:
    """103 is reported, 100 asks for the body, trailers end the response."""

    async def script(peer: Peer) -> None:
        stream, _ = await peer.request()
        peer.h2.send_headers(stream, [(b":status", b"103"), (b"link", b"</a>")])
        peer.h2.send_headers(stream, [(b":status", b"100")])
        peer.flush()
        data = await peer.next(DataReceived)
        peer.respond(stream, 200, (b"x", b"1"), (b"x", b"2"))
        peer.send(stream, data.data)
        peer.h2.send_headers(stream, [(b"x-sum", b"3")], end_stream=True)
        peer.flush()
        await peer.left()

    told: list[tuple[int, Headers]] = []
    async with scripted(script) as (url, _), transport_to(url) as transport:
        exchange = await transport.start(asks(b"POST"), b"", more=True)
        exchange.on_informational = lambda status, headers: told.append((status, headers))
        await exchange.continued()
        await exchange.write(b"hello")
        exchange.finish()
        await exchange.head()
        pieces = [await exchange.read(), await exchange.read()]
        exchange.close()

    assert told == [(103, [(b"link", b"</a>")]), (100, [])]
    assert (exchange.headers, pieces) == ([(b"x", b"1"), (b"x", b"2")], [b"hello", b""])
    assert exchange.trailers == [(b"x-sum", b"3")]


async def test_http2_1xx_without_a_listener_is_dropped() -> None:
    """The final response is the same."""

    async def script(peer: Peer) -> None:
        stream, _ = await peer.request()
        peer.h2.send_headers(stream, [(b":status", b"103")])
        peer.respond(stream, 200)
        peer.send(stream, b"", end=True)
        await peer.left()

    async with scripted(script) as (url, _), transport_to(url) as transport:
        exchange = await transport.start(asks(), b"", more=False)
        await exchange.head()
        assert (exchange.status, await exchange.read()) == (200, b"")
        exchange.close()


async def test_http2_upload_waits_for_windows() -> None:
    """A destination that reads nothing stops the writer, by the window of stream or connection."""
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        stream, _ = await peer.request()
        await go_on.wait()
        size = 0
        while size < 300_000:
            data = await peer.next(DataReceived)
            size += len(data.data)
            peer.h2.acknowledge_received_data(data.flow_controlled_length, stream)
            peer.flush()
        peer.respond(stream, 200)
        peer.send(stream, b"%d" % size, end=True)
        await peer.left()

    async with scripted(script) as (url, _), transport_to(url) as transport:
        exchange = await transport.start(asks(b"POST"), b"a" * 100_000, more=True)
        writing = asyncio.create_task(exchange.write(b"b" * 200_000))
        await asyncio.sleep(0.02)  # nothing tells of what does not happen
        held = not writing.done()
        go_on.set()
        await writing
        exchange.finish()
        await exchange.head()
        size = await exchange.read()
        exchange.close()

    assert (held, size) == (True, b"300000")


@pytest.mark.e2e
async def test_http2_exchange_that_is_closed_early_is_reset() -> None:
    """The destination sees RST_STREAM at once; the connection is used again."""
    asked = asyncio.Event()
    resets: list[int | None] = []

    async def script(peer: Peer) -> None:
        await peer.request()
        asked.set()
        resets.append((await peer.next(StreamReset)).error_code)
        stream, _ = await peer.request()
        peer.respond(stream)
        peer.send(stream, b"next", end=True)
        await peer.left()

    async with scripted(script) as (url, peers), gateway(url, http_version="2") as gate:
        async with connect(gate.address) as client:
            await client.send(request("GET", "/billing/"))
            await asked.wait()
        await until(lambda: resets)
        reply = await fetch(gate.address, "GET", "/billing/")

    assert (resets, reply.body, len(peers)) == ([ErrorCodes.CANCEL], b"next", 1)


async def test_http2_early_response_ends_the_upload() -> None:
    """A refusal arrives in the middle of the upload; the stream is reset."""
    resets: list[int | None] = []

    async def script(peer: Peer) -> None:
        stream, _ = await peer.request()
        peer.respond(stream, 413)
        peer.send(stream, b"too large", end=True)
        resets.append((await peer.next(StreamReset)).error_code)
        await peer.left()

    async with scripted(script) as (url, _), transport_to(url) as transport:
        exchange = await transport.start(asks(b"POST"), b"x", more=True)
        await exchange.head()
        body = await exchange.read()
        exchange.close()
        exchange.close()
        await exchange.write(b"late")
        exchange.finish()
        await until(lambda: resets)

    assert (exchange.status, body, resets) == (413, b"too large", [ErrorCodes.CANCEL])


async def test_http2_reset_after_a_complete_response_is_no_failure() -> None:
    """RST_STREAM after the response only stops the upload (RFC 9113 section 8.1)."""

    async def script(peer: Peer) -> None:
        stream, _ = await peer.request()
        peer.respond(stream)
        peer.send(stream, b"enough", end=True)
        peer.h2.reset_stream(stream, ErrorCodes.NO_ERROR)
        peer.flush()
        await peer.left()

    async with scripted(script) as (url, _), transport_to(url) as transport:
        exchange = await transport.start(asks(b"POST"), b"x", more=True)
        await exchange.head()
        await until(lambda: exchange._connection is None)  # type: ignore[attr-defined]
        await exchange.write(b"late")
        exchange.finish()
        body = await exchange.read()
        exchange.close()

    assert (body, exchange.complete) == (b"enough", True)


@pytest.mark.parametrize("responded", [False, True])
async def test_http2_reset_fails_only_its_exchange(responded: bool) -> None:
    """Before and after the head."""

    async def script(peer: Peer) -> None:
        stream, _ = await peer.request()
        if responded:
            peer.respond(stream)
        peer.h2.reset_stream(stream, ErrorCodes.INTERNAL_ERROR)
        peer.flush()
        await peer.left()

    async with scripted(script) as (url, _), transport_to(url) as transport:
        exchange = await transport.start(asks(), b"", more=False)
        if responded:
            await exchange.head()
        with pytest.raises(UpstreamDisconnected, match="reset the stream") as raised:
            await (exchange.read() if responded else exchange.head())
        exchange.close()
        connections = transport.connections

    failure = Failure.RESPONSE_BODY if responded else Failure.RESPONSE_HEAD
    assert (raised.value.failure, connections) == (failure, 1)


async def test_http2_exchange_keeps_its_first_error() -> None:
    """Later errors are ignored."""

    async def script(peer: Peer) -> None:
        await peer.left()

    async with scripted(script) as (url, _), transport_to(url) as transport:
        exchange = await transport.start(asks(), b"", more=False)
        exchange.fail(UpstreamTimeout("too slow"))
        exchange.fail(UpstreamTimeout("too late"))
        with pytest.raises(UpstreamTimeout, match="too slow"):
            await exchange.head()
        with pytest.raises(UpstreamProtocolError, match="no socket"):
            exchange.detach()


async def test_http2_head_over_the_limit_is_refused() -> None:
    """The stream is reset."""

    async def script(peer: Peer) -> None:
        stream, _ = await peer.request()
        peer.respond(stream, 200, (b"x", b"y" * 2000))
        await peer.next(StreamReset)
        done.set()

    done = asyncio.Event()
    async with (
        scripted(script) as (url, _),
        transport_to(url, max_response_header_bytes=1024) as transport,
    ):
        exchange = await transport.start(asks(), b"", more=False)
        with pytest.raises(
            UpstreamProtocolError,
            match="max_response_header_bytes=1024",
        ):
            await exchange.head()
        exchange.close()
        await asyncio.wait_for(done.wait(), 10)
