"""In-process apps as destinations: what they see, what they send, how they start and end.

Long, because each test brings the inner app that its helpers here put in place and watch.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, WebSocket
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as connect_websocket
from websockets.typing import Subprotocol

from fastapi_proxy_di import Balancer, SettingsError, Upstream, proxy_router
from fastapi_proxy_di.errors import UpstreamConnectError, UpstreamProtocolError
from fastapi_proxy_di.transport.asgi.exchange import AsgiExchange
from fastapi_proxy_di.transport.asgi.inner_app import InnerApp
from fastapi_proxy_di.transport.asgi.transport import AsgiTransport
from fastapi_proxy_di.transport.asgi.websocket import AsgiWebSocket
from fastapi_proxy_di.transport.protocol import Request as WireRequest
from fastapi_proxy_di.wire.handshake import Close
from fastapi_proxy_di.wire.urls import parse_address
from tests.support.gateways import Gateway, billing, gateway, until
from tests.support.http_client import Ending, connect, fetch, request
from tests.support.servers import StartupFailed, run_app
from tests.websocket.client import Closed, open_websocket

Inner = Callable[[ASGIApp | object], str]
_numbers = itertools.count()


@pytest.fixture
def inner(monkeypatch: pytest.MonkeyPatch) -> Inner:
    """Make an app importable and give its address."""

    def place(app: ASGIApp | object) -> str:
        name = f"inner_app_{next(_numbers)}"
        module = ModuleType(name)
        module.__dict__["app"] = app
        monkeypatch.setitem(sys.modules, name, module)
        return f"asgi://{name}:app"

    return place


def plain(handle: Callable[[Scope, Receive, Send], Any]) -> ASGIApp:
    """Make an ASGI app without a lifespan of a function."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await handle(scope, receive, send)

    return app


def start(status: int = 200, *headers: tuple[bytes, bytes], **more: Any) -> Message:
    """The first message of an answer."""
    return {"type": "http.response.start", "status": status, "headers": list(headers), **more}


def body(data: bytes = b"", *, more: bool = False) -> Message:
    """A further message of an answer."""
    return {"type": "http.response.body", "body": data, "more_body": more}


def inner_tasks() -> list[str]:
    """Names of the tasks in which requests to in-process apps run."""
    return [
        task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("request of")
    ]


# -- what the app sees ----------------------------------------------------------------------


async def test_asgi_app_gets_a_scope_of_its_own(inner: Inner) -> None:
    """As from a server that serves the gateway alone; nothing of our scope leaks."""
    seen: list[Scope] = []

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        await send(start(204))
        await send(body())

    async with gateway(inner(plain(handle)) + "/base%20x") as gate:
        reply = await fetch(gate.address, "GET", "/billing/a%2Fb/%C3%A9;x?q=%20", [(b"X-A", b"1")])

    scope = dict(seen[0])
    headers = dict(scope.pop("headers"))
    assert reply.status == 204
    assert scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/base x/a/b/é;x",
        "raw_path": b"/base%20x/a%2Fb/%C3%A9;x",
        "query_string": b"q=%20",
        "root_path": "/base x",
        "client": ("127.0.0.1", 0),
        "server": ("localhost", 80),
        "state": {},
        "extensions": {"http.response.trailers": {}},
    }
    assert headers[b"host"] == b"localhost"
    assert headers[b"x-a"] == b"1"
    assert headers[b"x-forwarded-prefix"] == b"/billing"


async def test_asgi_app_sees_no_context_of_the_proxied_request(inner: Inner) -> None:
    """Context variables set while a request is handled stay on this side."""
    variable = contextvars.ContextVar("variable", default="none")
    seen: list[str] = []

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(variable.get())
        await send(start())
        await send(body())

    async with Balancer.from_settings(billing(inner(plain(handle)))) as balancer:
        variable.set("ours")
        await balancer.client.get("/")

    assert seen == ["none"]


async def test_asgi_app_reads_the_body_as_it_comes(inner: Inner) -> None:
    """Pieces arrive before the client has sent the rest; the end is told once."""
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
        reply = await client.read_answer()

    rest = b"".join(pieces.get_nowait() for _ in range(pieces.qsize()))
    assert (first, rest, reply.body) == (b"one", b"two", b"done")


async def test_asgi_app_that_asks_for_the_body_sends_100_continue(inner: Inner) -> None:
    """The client is asked for its body when the app reads it, and not before."""
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
            taken = await client.read_answer()
        async with connect(gate.address) as client:
            await client.send(request("POST", "/billing/refuses", headers))
            refused = await client.read_answer()

    assert (informational.status, taken.status, refused.status) == (100, 200, 403)
    assert order == ["asked", "body"]


async def test_asgi_app_that_does_not_read_holds_up_the_client(inner: Inner) -> None:
    """Backpressure: no more than some pieces are held for a slow app."""
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


# -- what the app sends ---------------------------------------------------------------------


async def test_asgi_app_streams_with_backpressure(inner: Inner) -> None:
    """The first piece is there at once; a client that does not read stops the app."""
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


async def test_asgi_answer_keeps_headers_in_order(inner: Inner) -> None:
    """Repeats survive, names are lower case."""
    cookies = [(b"Set-Cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"X-Z", b"\xe9")]

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(201, *cookies))
        await send(body(b"made"))

    async with gateway(inner(plain(handle))) as gate:
        reply = await fetch(gate.address, "GET", "/billing/")

    assert (reply.status, reply.body) == (201, b"made")
    assert reply.all(b"set-cookie") == [b"a=1", b"b=2"]
    assert reply.one(b"x-z") == b"\xe9"


async def test_asgi_answer_to_head_has_no_body(inner: Inner) -> None:
    """The length stays, the bytes go, whatever the app sends."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, (b"content-length", b"5")))
        await send(body(b"hello"))

    async with gateway(inner(plain(handle))) as gate, connect(gate.address) as client:
        await client.send(request("HEAD", "/billing/"))
        head = await client.read_answer("HEAD")
        await client.send(request("GET", "/billing/"))
        get = await client.read_answer()

    assert (head.status, head.one(b"content-length"), head.body) == (200, b"5", b"")
    assert get.body == b"hello"


async def test_asgi_answer_may_have_trailers(inner: Inner) -> None:
    """Trailers end the answer; a server without the extension drops them."""

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
    exchange = await transport.start(WireRequest(b"GET", b"/", [], 1.0), b"", more=False)
    await exchange.head()
    pieces = [await exchange.read(), await exchange.read()]
    await transport.aclose()

    assert (pieces, exchange.trailers) == ([b"hello", b""], [(b"x-sum", b"1"), (b"x-sum", b"2")])
    assert exchange.complete


async def test_asgi_app_goes_on_after_its_answer(inner: Inner) -> None:
    """Background tasks run to their end; ``receive`` then tells of the disconnect."""
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


# -- faults ---------------------------------------------------------------------------------


async def _raises(scope: Scope, receive: Receive, send: Send) -> None:
    raise LookupError("nothing here")


async def _returns(scope: Scope, receive: Receive, send: Send) -> None:
    return


async def _bad_status(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(101))


async def _bad_name(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(200, (b"x y", b"1")))


async def _bad_value(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(200, (b"x", b"1\r\nset-cookie: a=1")))


async def _bad_length(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(200, (b"content-length", b"many")))


async def _two_lengths(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(200, (b"content-length", b"1"), (b"content-length", b"2")))


async def _body_first(scope: Scope, receive: Receive, send: Send) -> None:
    await send(body(b"x"))


@pytest.mark.parametrize(
    ("handle", "failure"),
    [
        (_raises, "response_head"),
        (_returns, "response_head"),
        (_body_first, "response_head"),
        (_bad_status, "response_malformed"),
        (_bad_name, "response_malformed"),
        (_bad_value, "response_malformed"),
        (_bad_length, "response_malformed"),
        (_two_lengths, "response_malformed"),
    ],
)
async def test_asgi_fault_before_the_head_is_502(
    inner: Inner, handle: Callable[[Scope, Receive, Send], Any], failure: str
) -> None:
    """Nothing has been sent, so the client gets a clean answer; the destination is blamed."""
    async with gateway(inner(plain(handle))) as gate:
        reply = await fetch(gate.address, "POST", "/billing/")
        failures = gate.balancer.destinations[0].failures

    assert (reply.status, reply.json()["failure"], failures) == (502, failure, 1)


async def _raises_late(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start())
    await send(body(b"x", more=True))
    raise LookupError("lost")


async def _returns_early(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start())
    await send(body(b"x", more=True))


async def _too_long(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(200, (b"content-length", b"2")))
    await send(body(b"x", more=True))
    await send(body(b"yz"))


async def _too_short(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(200, (b"content-length", b"3")))
    await send(body(b"x"))


@pytest.mark.parametrize("handle", [_raises_late, _returns_early, _too_long, _too_short])
async def test_asgi_fault_after_the_head_breaks_the_transfer(
    inner: Inner, handle: Callable[[Scope, Receive, Send], Any]
) -> None:
    """An answer that ends cleanly is whole; this one does not."""
    async with gateway(inner(plain(handle))) as gate:
        reply = await fetch(gate.address, "GET", "/billing/")
        await until(lambda: not gate.in_flight)
        failures = gate.balancer.destinations[0].failures

    assert (reply.status, reply.ending, failures) == (200, Ending.BROKEN, 1)


async def test_asgi_app_that_raises_is_logged(
    inner: Inner, caplog: pytest.LogCaptureFixture
) -> None:
    """With its traceback, as a server logs it; the 500 that it sent before is the answer."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(500))
        await send(body(b"sorry"))
        raise LookupError("inside")

    async with gateway(inner(plain(handle))) as gate:
        reply = await fetch(gate.address, "GET", "/billing/")
        await until(lambda: caplog.records)

    record = caplog.records[0]
    assert (reply.status, reply.body) == (500, b"sorry")
    assert (record.name, record.levelno) == ("fastapi_proxy_di.asgi", logging.ERROR)
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], LookupError)


async def test_asgi_app_may_not_send_out_of_order(inner: Inner) -> None:
    """Each message has its time; a second answer has none."""
    raised: list[str] = []

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        for message in (start(), {"type": "http.response.trailers", "headers": []}):
            try:
                await send(message)
            except RuntimeError as error:
                raised.append(str(error))
        await send(body(b"ok"))
        try:
            await send(body(b"more"))
        except RuntimeError as error:
            raised.append(str(error))

    async with gateway(inner(plain(handle))) as gate:
        reply = await fetch(gate.address, "GET", "/billing/")
        await until(lambda: len(raised) == 3)

    assert reply.body == b"ok"
    assert [text.split("'")[1] for text in raised] == [
        "http.response.start",
        "http.response.trailers",
        "http.response.body",
    ]


# -- clients that leave ---------------------------------------------------------------------


async def test_asgi_app_is_told_of_a_client_that_left(inner: Inner) -> None:
    """``http.disconnect`` comes, ``send`` raises, the count goes; no failure is noted."""
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


async def test_asgi_app_that_waits_for_room_is_told_of_a_client_that_left(inner: Inner) -> None:
    """A ``send`` that is held up ends."""
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
    """A stalled upload is woken by the end of its exchange."""

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


async def test_asgi_upload_ends_when_the_app_has_answered(inner: Inner) -> None:
    """An app that answers without reading leaves no upload behind."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"enough"))

    async def large() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"x" * 65536

    async with Balancer.from_settings(billing(inner(plain(handle)))) as balancer:
        reply = await balancer.client.post("/", content=large())

    assert reply.text == "enough"


# -- the lifespan ---------------------------------------------------------------------------


async def test_asgi_lifespan_runs_within_the_gateways(inner: Inner) -> None:
    """Start before the first probe, its state in every request, shutdown awaited."""
    order: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        await asyncio.sleep(0)
        order.append("up")
        yield {"name": "state"}
        await asyncio.sleep(0)
        order.append("down")

    app = FastAPI(lifespan=lifespan)

    @app.get("/health")
    async def health() -> None:
        order.append("probed")

    @app.get("/state")
    async def state(request: Request) -> str:
        name: str = request.state.name
        request.state.name = "changed"
        return name

    async with gateway(inner(app), health={"path": "/health"}) as gate:
        healthy = gate.balancer.destinations[0].healthy
        names = [(await fetch(gate.address, "GET", "/billing/state")).json() for _ in range(2)]

    assert (order, healthy) == (["up", "probed", "down"], True)
    assert names == ["state", "state"]


async def test_asgi_lifespan_that_fails_stops_the_start(inner: Inner) -> None:
    """The gateway does not start, says why, and closes what it had started."""
    order: list[str] = []

    @asynccontextmanager
    async def good(app: FastAPI) -> AsyncIterator[None]:
        order.append("up")
        yield
        order.append("down")

    @asynccontextmanager
    async def bad(app: FastAPI) -> AsyncIterator[None]:
        raise LookupError("no database")
        yield

    urls = inner(FastAPI(lifespan=good)), inner(FastAPI(lifespan=bad))
    with pytest.raises(StartupFailed, match="failed to start: LookupError: no database"):
        await gateway(*urls).__aenter__()

    assert order == ["up", "down"]


async def test_asgi_lifespan_that_reports_a_failure_without_raising(inner: Inner) -> None:
    """The text of ``lifespan.startup.failed`` is the reason."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no licence"})

    with pytest.raises(StartupFailed, match="failed to start: no licence"):
        await gateway(inner(app)).__aenter__()


async def test_asgi_lifespan_that_breaks_later_is_logged(
    inner: Inner, caplog: pytest.LogCaptureFixture
) -> None:
    """While running: an error record; requests go on."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await Response("ok")(scope, receive, send)
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        raise LookupError("cron died")

    async with gateway(inner(app)) as gate:
        await until(lambda: any("lifespan of asgi" in one.message for one in caplog.records))
        reply = await fetch(gate.address, "GET", "/billing/")

    assert reply.body == b"ok"


@pytest.mark.parametrize("raises", [False, True])
async def test_asgi_shutdown_that_fails_is_logged_and_stops_nothing(
    inner: Inner, caplog: pytest.LogCaptureFixture, raises: bool
) -> None:
    """The rest still closes."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "disk full"})
        await send({"type": "lifespan.shutdown.complete"})
        if raises:
            raise LookupError("disk full")

    async with gateway(inner(app)):
        pass

    records = [one for one in caplog.records if one.name == "fastapi_proxy_di.settings"]
    assert [str(one.exc_info[1].exceptions) for one in records if one.exc_info] == [  # type: ignore[union-attr]
        f"({records[0].exc_info[1].exceptions[0]!r},)"  # type: ignore[union-attr, index]
    ]
    assert "disk full" in repr(records[0].exc_info)


async def test_asgi_app_of_two_destinations_has_one_lifespan(inner: Inner) -> None:
    """Two base paths are one app; two upstreams are two lifespans."""
    starts: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        starts.append("up")
        yield
        starts.append("down")

    url = inner(FastAPI(lifespan=lifespan))
    async with Balancer.from_settings(billing(url + "/a", url + "/b")):
        async with Balancer.from_settings(billing(url)):
            two = list(starts)
        one = list(starts)

    assert (two, one, starts) == (["up", "up"], ["up", "up", "down"], ["up", "up", "down", "down"])


async def test_asgi_destination_that_joins_later_starts_then(inner: Inner) -> None:
    """Its lifespan starts with its first request, and ends with its removal."""
    order: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        order.append("up")
        yield
        order.append("down")

    app = FastAPI(lifespan=lifespan)
    app.add_route("/", lambda request: JSONResponse("later"))
    first, later = inner(FastAPI()), inner(app)
    async with Balancer.from_settings(billing(first)) as balancer:
        balancer.replace_destinations([later])
        reply, _ = await asyncio.gather(balancer.client.get("/"), balancer.client.get("/"))
        up = list(order)
        balancer.replace_destinations([first])
        await until(lambda: "down" in order)
        balancer.replace_destinations([later])
        again = await balancer.client.get("/")

    assert (reply.json(), again.json(), up) == ("later", "later", ["up"])
    assert order == ["up", "down", "up", "down"]


async def test_asgi_destination_that_joins_and_fails_to_start_is_unreachable(inner: Inner) -> None:
    """At run time a failed start is a failed connection: others serve."""

    @asynccontextmanager
    async def bad(app: FastAPI) -> AsyncIterator[None]:
        raise LookupError("no database")
        yield

    async with Balancer.from_settings(billing(inner(FastAPI()))) as balancer:
        balancer.replace_destinations([inner(FastAPI(lifespan=bad))])
        with pytest.raises(httpx.ConnectError, match="no database") as raised:
            await balancer.client.get("/")

    assert isinstance(raised.value, UpstreamConnectError)


async def test_asgi_app_that_never_ends_is_stopped_at_shutdown(inner: Inner) -> None:
    """Told first, cancelled after a second; its client's transfer breaks."""
    cancelled = asyncio.Event()

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    url = inner(plain(handle))
    inner_app = InnerApp(url.removeprefix("asgi://"))
    transport = AsgiTransport(inner_app, parse_address(url))
    exchange = await transport.start(WireRequest(b"GET", b"/", [], 1.0), b"", more=False)
    await exchange.head()
    await transport.aclose()
    await transport.aclose()

    assert cancelled.is_set()
    with pytest.raises(UpstreamConnectError, match="shut down"):
        await exchange.read()
    with pytest.raises(UpstreamConnectError, match="shut down"):
        await transport.start(WireRequest(b"GET", b"/", [], 1.0), b"", more=False)
    assert transport.reuse(WireRequest(b"GET", b"/", [], 1.0), b"", more=False) is None


async def test_asgi_app_cancelled_from_outside_breaks_its_answer(inner: Inner) -> None:
    """A task that somebody cancels must not leave its client waiting."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        for task in asyncio.all_tasks():
            if task.get_name().startswith("request of"):
                task.cancel()
        await receive()
        await receive()

    async with gateway(inner(plain(handle))) as gate:
        reply = await fetch(gate.address, "GET", "/billing/")

    assert reply.status == 502


async def test_asgi_exchange_has_no_socket() -> None:
    """Nothing to hand over: an app's WebSocket is given whole."""
    with pytest.raises(UpstreamProtocolError, match="no socket"):
        AsgiExchange({"method": "GET"}, b"", more=False).detach()


async def test_asgi_exchange_that_failed_takes_no_more_of_the_body() -> None:
    """Whoever still writes learns why it ended."""
    exchange = AsgiExchange({"method": "POST"}, b"", more=True)
    exchange.fail(UpstreamConnectError("the upstream is shut down"))
    with pytest.raises(UpstreamConnectError, match="shut down"):
        await exchange.write(b"x")


async def test_asgi_websocket_that_ended_drops_what_is_sent() -> None:
    """As any: how it ended is told by ``recv``, which keeps the first end only."""
    channel = AsgiWebSocket()
    channel.start_close(Close())
    channel.app_ended("raised", LookupError())
    await channel.send("late")

    assert (await channel.recv(), channel.sent_messages) == (None, 0)
    assert (channel.close_code, channel.error) == (1005, None)


async def test_asgi_websocket_that_is_broken_off_frees_an_app_that_waits() -> None:
    """A message that nobody will take is an error of ``send``."""
    channel = AsgiWebSocket()
    sending = asyncio.create_task(channel.take_from_app({"type": "websocket.send", "text": "x"}))
    await asyncio.sleep(0)
    channel.abort()
    with pytest.raises(OSError, match="has ended"):
        await sending


async def test_asgi_websocket_does_not_wait_for_ever_for_its_app(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An app that goes on after the end holds up the client for a bounded time."""
    monkeypatch.setattr("fastapi_proxy_di.transport.asgi.websocket._CLOSE_SECONDS", 0.01)
    channel = AsgiWebSocket()
    channel.start_close(Close(1000))
    await asyncio.wait_for(channel.wait_closed(), 10)

    assert channel.close_code == 1000


async def test_asgi_client_that_takes_nothing_is_its_own_fault(inner: Inner) -> None:
    """The activity timeout blames who does not read, not the app that waits for room."""
    raised = asyncio.Event()

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        try:
            while True:
                await send(body(b"x" * 65536, more=True))
        except OSError:
            raised.set()

    settings = billing(inner(plain(handle)), timeouts={"activity": 0.05})
    async with (
        Balancer.from_settings(settings) as balancer,
        balancer.client.stream("GET", "/"),
    ):
        async with asyncio.timeout(10):
            await raised.wait()
        failures = balancer.destinations[0].failures

    assert failures == 0


# -- addresses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("asgi://no.such.module:app", "importing no.such.module failed: ModuleNotFoundError"),
        ("asgi://json:app", "json has no attribute 'app'"),
        ("asgi://json:decoder.app", "json has no attribute 'decoder.app'"),
        ("asgi://sys:path", "'path' is not an ASGI app"),
    ],
)
async def test_asgi_address_that_leads_nowhere_is_a_fault_of_the_settings(
    address: str, text: str
) -> None:
    """It is told at start, with the address."""
    app = FastAPI()
    app.include_router(proxy_router(billing(address)))
    with pytest.raises(StartupFailed) as raised:
        await run_app(app).__aenter__()

    assert isinstance(raised.value.__cause__, SettingsError)
    assert (
        f"upstream 'billing': destinations (UPSTREAM_BILLING_DESTINATIONS): {address}: {text}"
        in str(raised.value)
    )


# -- WebSockets -----------------------------------------------------------------------------


async def talk(
    gate: Gateway,
    say: Callable[[ClientConnection], Any],
    path: str = "/billing/ws",
    offer: tuple[str, ...] = (),
) -> Any:
    """Open a WebSocket through the gateway in a thread and use it."""

    def run() -> Any:
        url = f"ws://{gate.running.authority}{path}"
        offered = [Subprotocol(name) for name in offer] or None
        with connect_websocket(url, subprotocols=offered) as websocket:
            return say(websocket)

    return await asyncio.to_thread(run)


def closing(websocket: ClientConnection) -> tuple[int, str]:
    """Wait for the close of the other side."""
    with pytest.raises(ConnectionClosed) as closed:
        websocket.recv(timeout=5)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


async def test_asgi_websocket_goes_through(inner: Inner) -> None:
    """Subprotocol, header fields, messages of both kinds, and the client's close code."""
    ended: list[tuple[int, str]] = []
    app = FastAPI()

    @app.websocket("/ws")
    async def echo(websocket: WebSocket) -> None:
        assert websocket.scope["subprotocols"] == ["v1", "v2"]
        await websocket.accept("v2", [(b"x-server", b"inner")])
        await websocket.send_text(await websocket.receive_text())
        await websocket.send_bytes(await websocket.receive_bytes())
        message = await websocket.receive()
        ended.append((message["code"], message["reason"]))

    def say(websocket: ClientConnection) -> tuple[Any, ...]:
        assert websocket.response is not None
        websocket.send("hé")
        text = websocket.recv(timeout=5)
        websocket.send(b"\x00")
        data = websocket.recv(timeout=5)
        websocket.close(4001, "enough")
        return (websocket.subprotocol, websocket.response.headers["x-server"], text, data)

    async with gateway(inner(app)) as gate:
        heard = await talk(gate, say, offer=("v1", "v2"))
        await until(lambda: ended and not gate.in_flight)

    assert heard == ("v2", "inner", "hé", b"\x00")
    assert ended == [(4001, "enough")]


async def test_asgi_websocket_close_of_the_app_reaches_the_client(inner: Inner) -> None:
    """Code and reason pass, behind the messages that came before."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "bye"})
        await send({"type": "websocket.close", "code": 4002, "reason": "done"})
        seen.append((await receive())["code"])
        for message in ({"type": "websocket.send", "text": "more"}, {"type": "websocket.close"}):
            try:
                await send(message)
            except OSError:
                seen.append(message["type"])

    seen: list[Any] = []
    async with gateway(inner(plain(handle))) as gate:
        # Not the library's client: that of websockets 12 loses what comes just before a close.
        async with open_websocket(gate.address, "/billing/ws") as websocket:
            heard = [await websocket.recv(), await websocket.recv()]
        await until(lambda: len(seen) == 3)

    assert heard == ["bye", Closed(4002, "done")]
    assert seen == [4002, "websocket.send", "websocket.close"]


@pytest.mark.parametrize(("raises", "code"), [(False, 1000), (True, 1011)])
async def test_asgi_websocket_ends_with_its_app(inner: Inner, raises: bool, code: int) -> None:
    """To return is a close, to raise is the server's fault and counts as one."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        if raises:
            raise LookupError

    async with gateway(inner(plain(handle))) as gate:
        closed, _ = await talk(gate, closing)
        await until(lambda: not gate.in_flight)
        failures = gate.balancer.destinations[0].failures

    assert (closed, failures) == (code, int(raises))


@pytest.mark.parametrize(
    ("messages", "status", "text"),
    [
        ([{"type": "websocket.close", "code": 1000}], 403, b""),
        (
            [
                {**start(418, (b"x-why", b"tea")), "type": "websocket.http.response.start"},
                {**body(b"short"), "type": "websocket.http.response.body"},
            ],
            418,
            b"short",
        ),
    ],
)
async def test_asgi_websocket_refusal_reaches_the_client(
    inner: Inner, messages: list[Message], status: int, text: bytes
) -> None:
    """A close before the handshake is 403, a denial response is itself."""
    after: list[str] = []

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for message in messages:
            await send(message)
        after.append((await receive())["type"])

    async with gateway(inner(plain(handle))) as gate:
        with pytest.raises(InvalidStatus) as refused:
            await talk(gate, closing)
        await until(lambda: after)

    assert refused.value.response.status_code == status
    assert (refused.value.response.body or b"") == text
    assert after == ["websocket.disconnect"]


async def test_asgi_websocket_fault_before_the_handshake_is_502(inner: Inner) -> None:
    """Nobody was accepted, so there is a status to send."""
    async with gateway(inner(plain(_raises))) as gate:
        with pytest.raises(InvalidStatus) as refused:
            await talk(gate, closing)

    assert refused.value.response.status_code == 502


async def test_asgi_websocket_app_may_listen_before_it_accepts(inner: Inner) -> None:
    """A reader that waits already gets the first message after the handshake."""
    heard: list[Any] = []

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        reader = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        await send({"type": "websocket.accept"})
        message: Any = await reader
        heard.append(message["text"])
        with pytest.raises(RuntimeError, match=r"websocket\.accept"):
            await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})

    def say(websocket: ClientConnection) -> tuple[int, str]:
        websocket.send("first")
        return closing(websocket)

    async with gateway(inner(plain(handle))) as gate:
        close = await talk(gate, say)

    assert (heard, close) == (["first"], (1000, ""))


async def test_asgi_websocket_app_is_told_of_a_client_that_vanished(inner: Inner) -> None:
    """Without a close frame the app sees 1006, and what it still sends fails."""
    seen: list[Any] = []

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        seen.append((await receive())["code"])
        try:
            await send({"type": "websocket.send", "bytes": b"x"})
        except OSError:
            seen.append("OSError")

    async with gateway(inner(plain(handle))) as gate:
        await talk(gate, lambda one: one.socket.close())
        await until(lambda: len(seen) == 2 and not gate.in_flight)

    assert seen == [1006, "OSError"]


async def test_asgi_websocket_handshake_that_takes_too_long_is_given_up(inner: Inner) -> None:
    """The app is told before it has accepted, and its late answer fails."""
    seen: list[Any] = []

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        seen.append((await receive())["code"])
        try:
            await send({"type": "websocket.accept"})
        except OSError:
            seen.append("OSError")

    async with gateway(inner(plain(handle)), websocket={"open_timeout": 0.05}) as gate:
        with pytest.raises(InvalidStatus) as refused:
            await talk(gate, closing)
        await until(lambda: len(seen) == 2)

    assert refused.value.response.status_code == 504
    assert seen == [1006, "OSError"]


async def test_asgi_websocket_messages_wait_for_who_reads_slowly(inner: Inner) -> None:
    """Backpressure both ways: neither side runs ahead of the other by much."""
    sent = 0
    go_on = asyncio.Event()

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await receive()
        await send({"type": "websocket.accept"})
        await go_on.wait()
        size = 0
        for _ in range(8):
            size += len((await receive())["bytes"])
        for _ in range(64):
            await send({"type": "websocket.send", "bytes": b"x" * 65536})
            sent += 1
        await send({"type": "websocket.close", "code": 4000, "reason": str(size)})

    async with (
        gateway(inner(plain(handle))) as gate,
        open_websocket(gate.address, "/billing/ws") as websocket,
    ):
        for _ in range(8):
            await websocket.send(b"y" * 65536)
        go_on.set()
        heard = [await websocket.recv() for _ in range(64)]
        ended = await websocket.ended()

    assert heard == [b"x" * 65536] * 64
    assert ended == Closed(4000, str(8 * 65536))


async def test_asgi_websocket_message_that_is_too_big_ends_it(inner: Inner) -> None:
    """The limit of the settings holds for apps: 1009 to both."""
    seen: list[Any] = []

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "éé"})
        try:
            await send({"type": "websocket.send", "text": "ééé"})
        except OSError:
            seen.append((await receive())["code"])

    async with gateway(inner(plain(handle)), websocket={"max_message_bytes": 4}) as gate:
        async with open_websocket(gate.address, "/billing/ws") as websocket:
            first, ended = await websocket.recv(), await websocket.ended()
        await until(lambda: seen)

    assert (first, ended.code, seen) == ("éé", 1009, [1009])


async def test_asgi_websocket_is_drained(inner: Inner) -> None:
    """A drain closes it with 1001; an app that takes its time holds up nobody."""
    told = asyncio.Event()
    release = asyncio.Event()

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        assert (await receive())["code"] == 1001
        told.set()
        await release.wait()

    url = inner(plain(handle))
    async with gateway(url) as gate:
        tunnel = asyncio.create_task(talk(gate, closing))
        await until(lambda: gate.in_flight)
        await until(lambda: Upstream("billing").of(gate.app)._websocket._tunnels)
        await gate.balancer.drain(url, timeout=0.01)
        code, _ = await tunnel
        await told.wait()
        await until(lambda: not gate.in_flight, 3)
        release.set()

    assert code == 1001
