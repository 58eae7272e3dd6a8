"""A response that broke off is broken for the client, with any middlewares of the app."""

import asyncio
import contextlib
import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.types import Message, Receive, Scope, Send

from fastapi_proxy_di import proxy_lifespan, proxy_router
from fastapi_proxy_di.errors import ClientDisconnected, UpstreamDisconnected
from fastapi_proxy_di.forwarding.response import TRANSFER, TransferBroken
from fastapi_proxy_di.integration.broken_responses import BrokenResponses
from fastapi_proxy_di.observability.telemetry import REQUEST_SCOPE
from tests.e2e import servers
from tests.integration.stacks import STACKS, app_behind
from tests.support.gateways import billing, gateway_app, pass_through
from tests.support.http_client import Ending, RawResponse, connect, fetch, request
from tests.support.origins import Connection, ScriptedOrigin, chunk
from tests.support.processes import Process
from tests.support.servers import Running, run_app, run_hypercorn

pytestmark = pytest.mark.e2e


Served = AbstractAsyncContextManager[Running | Process]

_BODY = random.Random(7).randbytes(60_000)
"""More than any middleware holds back, and nothing that gzip makes small."""


def uvicorn_httptools(stack: str, url: str) -> Served:
    """Run uvicorn with httptools."""
    return run_app(app_behind(stack, billing(url)), http="httptools")


def uvicorn_h11(stack: str, url: str) -> Served:
    """Run uvicorn with h11."""
    return run_app(app_behind(stack, billing(url)), http="h11")


def hypercorn(stack: str, url: str) -> Served:
    """Run hypercorn in this event loop."""
    return run_hypercorn(app_behind(stack, billing(url)))


def granian(stack: str, url: str) -> Served:
    """Run granian, which needs its own process."""
    environment = {"STACK": stack, "ORIGIN": url}
    return servers.granian("tests.integration.broken:app", environment=environment)


async def nothing(*messages: Message) -> Any:
    """Stand for a ``receive`` or ``send`` that is not called."""


async def _response_to(
    address: tuple[str, int], target: str, break_off: asyncio.Event
) -> RawResponse:
    """Read the head, let the upstream break off, read the rest."""
    break_off.clear()
    async with connect(address) as client:
        await client.send(request(target=target, headers=[(b"Accept-Encoding", b"gzip")]))
        reply = await client.read_head()
        break_off.set()
        return await client.read_body(reply)


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("serve", [uvicorn_httptools, uvicorn_h11, hypercorn, granian])
async def test_client_sees_a_broken_transfer(
    serve: Callable[[str, str], Served], stack: str
) -> None:
    """Neither a last chunk nor the whole length: both framings, as a server takes long to start."""
    break_off = asyncio.Event()

    async def script(connection: Connection) -> None:
        received = await connection.read_request()
        if received.target == b"/length":
            await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + _BODY)
        else:
            head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            await connection.send(head + chunk(_BODY))
        await break_off.wait()
        connection.reset()

    async with ScriptedOrigin(script) as origin, serve(stack, origin.url) as server:
        sized = await _response_to(server.address, "/billing/length", break_off)
        chunked = await _response_to(server.address, "/billing/chunked", break_off)

    assert (sized.status, sized.ending) == (200, Ending.BROKEN)
    assert (chunked.status, chunked.ending) == (200, Ending.BROKEN)
    assert [received.target for received in origin.requests] == [b"/length", b"/chunked"]


@pytest.mark.parametrize("stack", STACKS)
async def test_complete_response_is_unchanged(stack: str) -> None:
    """The wrapper changes nothing."""
    async with ScriptedOrigin() as origin, run_app(app_behind(stack, billing(origin.url))) as app:
        reply = await fetch(app.address, target="/billing/x")

    assert (reply.status, reply.body) == (200, b"ok")
    assert reply.ending is not Ending.BROKEN


async def test_wrapper_is_removed_at_the_end() -> None:
    """The app has the wrapper only while it runs, at every start."""
    async with ScriptedOrigin() as origin:
        app = gateway_app(origin.url)
        app.middleware_stack = stack = app.build_middleware_stack()
        for _ in range(2):
            async with run_app(app):
                assert isinstance(app.middleware_stack, BrokenResponses)
                assert app.middleware_stack.app is stack
            assert app.middleware_stack is stack


async def test_request_is_that_of_the_context_until_its_end() -> None:
    """A request of an app that is called in process, inside another request."""
    seen: list[Scope | None] = []
    inner: Scope = {"type": "websocket"}
    outer: Scope = {"type": "http"}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(REQUEST_SCOPE.get())
        if scope is outer:
            await BrokenResponses(app)(inner, receive, send)
            seen.append(REQUEST_SCOPE.get())

    await BrokenResponses(app)(outer, nothing, nothing)

    assert seen == [outer, inner, outer]
    assert REQUEST_SCOPE.get() is None


async def test_middlewares_can_be_added_after_the_lifespan() -> None:
    """The lifespan leaves no built middleware stack."""
    async with ScriptedOrigin() as origin:
        app = gateway_app(origin.url)
        async with proxy_lifespan(app):
            assert isinstance(app.middleware_stack, BrokenResponses)
        app.add_middleware(BaseHTTPMiddleware, dispatch=pass_through)

        assert app.middleware_stack is None


async def test_middleware_put_around_meanwhile_stays() -> None:
    """The wrapper is only removed from where it was put."""
    async with ScriptedOrigin() as origin:
        app = gateway_app(origin.url)
        async with run_app(app):
            assert app.middleware_stack is not None
            app.middleware_stack = outer = BaseHTTPMiddleware(app.middleware_stack, pass_through)
        assert app.middleware_stack is outer


async def test_mounted_app_is_wrapped_once() -> None:
    """The middlewares of both apps complete nothing."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        await connection.send(head + chunk(_BODY))
        connection.close()

    async with ScriptedOrigin(script) as origin:
        inner = app_behind("base", billing(origin.url))
        outer = FastAPI(lifespan=lambda app: proxy_lifespan(inner))
        outer.mount("/inner", inner)
        outer.include_router(proxy_router(billing(origin.url)), prefix="/billing")
        outer.middleware("http")(pass_through)
        async with run_app(outer) as running:
            endings = [
                (await fetch(running.address, target=target)).ending
                for target in ("/inner/billing/x", "/billing/x")
            ]

    assert endings == [Ending.BROKEN, Ending.BROKEN]


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (UpstreamDisconnected("gone"), pytest.raises(TransferBroken)),
        # No error to log: the client knows.
        (ClientDisconnected("left"), contextlib.nullcontext()),
    ],
)
async def test_only_the_last_message_of_a_broken_response_is_withheld(
    failure: Exception, expected: AbstractContextManager[Any]
) -> None:
    """All other messages are passed on unchanged."""
    sent: list[Message] = []
    start: Message = {"type": "http.response.start", "status": 200, "headers": []}
    more: Message = {"type": "http.response.body", "body": b"x", "more_body": True}
    last: Message = {"type": "http.response.body", "body": b""}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start)
        await send(more)
        scope[TRANSFER].broken_by = failure
        await send(more)
        await send(last)

    async def send(message: Message) -> None:
        sent.append(message)

    with expected:
        await BrokenResponses(app)({"type": "http"}, nothing, send)

    assert [id(message) for message in sent] == [id(start), id(more), id(more)]


async def test_wrapper_inside_middlewares_raises_what_broke_off() -> None:
    """A middleware that keeps the response back until the end must not send it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope[TRANSFER].broken_by = UpstreamDisconnected("gone")

    with pytest.raises(TransferBroken):
        await BrokenResponses(app, raises=True)({"type": "http"}, nothing, nothing)
