"""One exchange with an in-process app: bodies both ways, backpressure, early ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.background import BackgroundTask
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from fastapi_proxy_di import Balancer
from fastapi_proxy_di.errors import UpstreamConnectError, UpstreamProtocolError
from fastapi_proxy_di.transport.asgi.exchange import AsgiExchange
from fastapi_proxy_di.transport.asgi.inner_app import InnerApp
from fastapi_proxy_di.transport.asgi.transport import AsgiTransport
from fastapi_proxy_di.transport.protocol import OutgoingRequest
from fastapi_proxy_di.wire.addresses import parse_address
from tests.support.gateways import billing, gateway, until
from tests.support.http_client import connect, fetch, request
from tests.transport.asgi.apps import Inner, body, inner_tasks, plain, start


@pytest.mark.e2e
async def test_asgi_app_reads_the_body_as_it_comes(inner: Inner) -> None:
    """Pieces arrive before the client has sent the rest; the end arrives once."""
    pieces: asyncio.Queue[bytes] = asyncio.Queue()

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        more = True
        while more:
            message = await receive()
            more = message["more_body"]
            pieces.put_nowait(message["body"])
        await send(start())
        await send(body(b"done"))

    async with gateway(inner(plain(handle))) as gate, connect(gate.address) as client:
        await client.send(
            b"POST /billing/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        await client.send(b"3\r\none\r\n")
        first = await pieces.get()
        await client.send(b"3\r\ntwo\r\n0\r\n\r\n")
        reply = await client.read_response()

    rest = b"".join(pieces.get_nowait() for _ in range(pieces.qsize()))
    assert (first, rest, reply.body) == (b"one", b"two", b"done")


@pytest.mark.e2e
async def test_asgi_app_that_asks_for_the_body_sends_100_continue(inner: Inner) -> None:
    """The client gets 100 Continue when the app reads the body, and not before."""
    order: list[str] = []
    ready = asyncio.Event()

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/refuses":
            await send(start(403))
            await send(body())
            return
        await ready.wait()
        order.append("asked")
        message = await receive()
        order.append(message["body"].decode())
        await send(start())
        await send(body())

    headers = [(b"Expect", b"100-continue"), (b"Content-Length", b"4")]
    async with gateway(inner(plain(handle))) as gate:
        async with connect(gate.address) as client:
            await client.send(request("POST", "/billing/takes", headers))
            await until(inner_tasks)
            ready.set()
            informational = await client.read_head()
            await client.send(b"body")
            taken = await client.read_response()
        async with connect(gate.address) as client:
            await client.send(request("POST", "/billing/refuses", headers))
            refused = await client.read_response()

    assert (informational.status, taken.status, refused.status) == (100, 200, 403)
    assert order == ["asked", "body"]


async def test_asgi_app_that_does_not_read_holds_up_the_client(inner: Inner) -> None:
    """Only a few pieces are buffered for a slow app."""
    sent = 0
    go_on = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield b"x" * 16384

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await go_on.wait()
        size = 0
        while (message := await receive())["more_body"]:
            size += len(message["body"])
        await send(start())
        await send(body(b"%d" % size))

    async with Balancer.from_settings(billing(inner(plain(handle)))) as balancer:
        call = asyncio.create_task(balancer.client.post("/", content=endless()))
        await until(lambda: sent >= 5)
        await asyncio.sleep(0.05)  # nothing tells of what does not happen
        held = sent
        go_on.set()
        reply = await call

    assert held < 10
    assert reply.text == str(100 * 16384)


async def test_asgi_app_streams_with_backpressure(inner: Inner) -> None:
    """The first piece arrives at once; a client that does not read stops the app."""
    sent = 0

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send(start())
        for _ in range(100):
            await send(body(b"x" * 16384, more=True))
            sent += 1
        await send(body())

    async with (
        Balancer.from_settings(billing(inner(plain(handle)))) as balancer,
        balancer.client.stream("GET", "/") as reply,
    ):
        await asyncio.sleep(0.05)  # nothing tells of what does not happen
        held = sent
        size = len(await reply.aread())

    assert held < 10
    assert (size, sent) == (100 * 16384, 100)


@pytest.mark.e2e
async def test_asgi_response_keeps_headers_in_order(inner: Inner) -> None:
    """Repeats are kept, names are lower-case."""
    cookies = [(b"Set-Cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"X-Z", b"\xe9")]

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(201, *cookies))
        await send(body(b"made"))

    async with gateway(inner(plain(handle))) as gate:
        reply = await fetch(gate.address, "GET", "/billing/")

    assert (reply.status, reply.body) == (201, b"made")
    assert reply.all(b"set-cookie") == [b"a=1", b"b=2"]
    assert reply.one(b"x-z") == b"\xe9"


@pytest.mark.e2e
async def test_asgi_response_to_head_has_no_body(inner: Inner) -> None:
    """The length is kept, the body is dropped, whatever the app sends."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, (b"content-length", b"5")))
        await send(body(b"hello"))

    async with gateway(inner(plain(handle))) as gate, connect(gate.address) as client:
        await client.send(request("HEAD", "/billing/"))
        head = await client.read_response("HEAD")
        await client.send(request("GET", "/billing/"))
        get = await client.read_response()

    assert (head.status, head.one(b"content-length"), head.body) == (200, b"5", b"")
    assert get.body == b"hello"


async def test_asgi_response_may_have_trailers(inner: Inner) -> None:
    """Trailers end the response; a server without the extension drops them."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, (b"trailer", b"x-sum"), trailers=True))
        await send(body(b"hello"))
        for value, more in ((b"1", True), (b"2", False)):
            await send(
                {
                    "type": "http.response.trailers",
                    "headers": [(b"X-Sum", value)],
                    "more_trailers": more,
                }
            )

    app = InnerApp(inner(plain(handle)).removeprefix("asgi://"))
    transport = AsgiTransport(app, parse_address(f"asgi://{app.name}"))
    # Twice: the trailers of one response are not those of another.
    for _ in range(2):
        exchange = await transport.start(OutgoingRequest(b"GET", b"/", [], 1.0), b"", more=False)
        await exchange.head()
        pieces = [await exchange.read(), await exchange.read()]

        assert pieces == [b"hello", b""]
        assert exchange.trailers == [(b"x-sum", b"1"), (b"x-sum", b"2")]
        assert exchange.complete
    await transport.aclose()


@pytest.mark.e2e
async def test_asgi_app_goes_on_after_its_response(inner: Inner) -> None:
    """Background tasks run to their end; ``receive`` then gives the disconnect."""
    done = asyncio.Event()
    went_on = asyncio.Event()

    async def work() -> None:
        await went_on.wait()
        done.set()

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await Response("ok", background=BackgroundTask(work))(scope, receive, send)
        told.append((await receive())["type"])

    told: list[str] = []
    async with gateway(inner(plain(handle))) as gate:
        reply = await fetch(gate.address, "GET", "/billing/")
        before = done.is_set()
        went_on.set()
        await until(lambda: told)

    assert (reply.body, before, told) == (b"ok", False, ["http.disconnect"])


@pytest.mark.e2e
async def test_asgi_app_sees_the_disconnect_of_the_client(inner: Inner) -> None:
    """``receive`` gives ``http.disconnect``, ``send`` raises, and no failure is counted."""
    seen: list[str] = []
    began = asyncio.Event()

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        began.set()
        await receive()
        seen.append((await receive())["type"])
        try:
            await send(start())
        except OSError:
            seen.append("OSError")
            raise

    async with gateway(inner(plain(handle))) as gate:
        async with connect(gate.address) as client:
            await client.send(request("GET", "/billing/"))
            await began.wait()
        await until(lambda: not gate.in_flight and not inner_tasks())
        failures = gate.balancer.destinations[0].failures

    assert (seen, failures) == (["http.disconnect", "OSError"], 0)


@pytest.mark.e2e
async def test_asgi_stream_ends_when_the_client_leaves(inner: Inner) -> None:
    """Starlette's own streaming ends at once, silent or not."""
    ended = asyncio.Event()

    async def events() -> AsyncIterator[str]:
        try:
            yield "data: 1\n\n"
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await StreamingResponse(events())(scope, receive, send)

    async with gateway(inner(plain(handle))) as gate:
        async with connect(gate.address) as client:
            await client.send(request("GET", "/billing/"))
            await client.read_head()
            await client.read_chunk()
        async with asyncio.timeout(10):
            await ended.wait()
        await until(lambda: not gate.in_flight and not inner_tasks())


async def test_asgi_waiting_send_raises_at_the_disconnect(inner: Inner) -> None:
    """A ``send`` that waits for a slow client ends."""
    raised = asyncio.Event()

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        try:
            while True:
                await send(body(b"x" * 65536, more=True))
        except OSError:
            raised.set()

    async with Balancer.from_settings(billing(inner(plain(handle)))) as balancer:
        async with balancer.client.stream("GET", "/"):
            pass
        async with asyncio.timeout(10):
            await raised.wait()


async def test_asgi_upload_ends_with_a_timeout(inner: Inner) -> None:
    """The end of the exchange ends an upload that waits for the app."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.get_running_loop().create_future()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536

    async with Balancer.from_settings(
        billing(inner(plain(handle)), timeouts={"total": 0.05})
    ) as balancer:
        with pytest.raises(httpx.ReadTimeout):
            await balancer.client.post("/", content=endless())
        in_flight = balancer.destinations[0].in_flight

    assert in_flight == 0


async def test_asgi_upload_ends_when_the_app_has_responded(inner: Inner) -> None:
    """An app that responds without reading leaves no upload behind."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"enough"))

    async def large() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"x" * 65536

    async with Balancer.from_settings(billing(inner(plain(handle)))) as balancer:
        reply = await balancer.client.post("/", content=large())

    assert reply.text == "enough"


async def test_asgi_exchange_has_no_socket() -> None:
    """``detach`` raises, because the WebSocket is given by another method."""
    with pytest.raises(UpstreamProtocolError, match="no socket"):
        AsgiExchange({"method": "GET"}, b"", more=False).detach()


async def test_asgi_exchange_that_failed_takes_no_more_of_the_body() -> None:
    """``offer`` raises the error of the exchange."""
    exchange = AsgiExchange({"method": "POST"}, b"", more=True)
    exchange.fail(UpstreamConnectError("the upstream is shut down"))
    with pytest.raises(UpstreamConnectError, match="shut down"):
        await exchange.write(b"x")


async def test_asgi_client_that_reads_nothing_is_at_fault(inner: Inner) -> None:
    """The activity timeout counts against the client, not against the app that waits."""
    raised = asyncio.Event()

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        try:
            while True:
                await send(body(b"x" * 65536, more=True))
        except OSError:
            raised.set()

    settings = billing(inner(plain(handle)), timeouts={"activity": 0.5})
    async with (
        Balancer.from_settings(settings) as balancer,
        balancer.client.stream("GET", "/"),
    ):
        async with asyncio.timeout(10):
            await raised.wait()
        failures = balancer.destinations[0].failures

    assert failures == 0
