"""A response that broke off is broken for the client, whatever middlewares the app has."""

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
    """Uvicorn with its fast parser."""
    return run_app(app_behind(stack, billing(url)), http="httptools")


def uvicorn_h11(stack: str, url: str) -> Served:
    """Uvicorn with the parser in Python."""
    return run_app(app_behind(stack, billing(url)), http="h11")


def hypercorn(stack: str, url: str) -> Served:
    """hypercorn, in this event loop."""
    return run_hypercorn(app_behind(stack, billing(url)))


def granian(stack: str, url: str) -> Served:
    """granian, which runs in no event loop but its own."""
    environment = {"STACK": stack, "ORIGIN": url}
    return servers.granian("tests.integration.broken:app", environment=environment)


async def _response_to(
    address: tuple[str, int], target: str, break_off: asyncio.Event
) -> RawResponse:
    """Read the head, let the upstream break off, read on."""
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
async def test_whole_response_passes(stack: str) -> None:
    """The wrapper changes nothing of it."""
    async with ScriptedOrigin() as origin, run_app(app_behind(stack, billing(origin.url))) as app:
        reply = await fetch(app.address, target="/billing/x")

    assert (reply.status, reply.body) == (200, b"ok")
    assert reply.ending is not Ending.BROKEN


async def test_app_is_left_as_it_was() -> None:
    """The wrapper stands around the middlewares while the app runs, start after start."""
    async with ScriptedOrigin() as origin:
        app = gateway_app(origin.url)
        app.middleware_stack = stack = app.build_middleware_stack()
        for _ in range(2):
            async with run_app(app):
                assert isinstance(app.middleware_stack, BrokenResponses)
                assert app.middleware_stack.app is stack
            assert app.middleware_stack is stack


async def test_app_that_was_not_built_takes_middlewares_again() -> None:
    """The lifespan alone builds no middlewares for good: more may be added after its end."""
    async with ScriptedOrigin() as origin:
        app = gateway_app(origin.url)
        async with proxy_lifespan(app):
            assert isinstance(app.middleware_stack, BrokenResponses)
        app.add_middleware(BaseHTTPMiddleware, dispatch=pass_through)

        assert app.middleware_stack is None


async def test_middleware_put_around_meanwhile_stays() -> None:
    """The end of the app takes away the wrapper only where it put it."""
    async with ScriptedOrigin() as origin:
        app = gateway_app(origin.url)
        async with run_app(app):
            assert app.middleware_stack is not None
            app.middleware_stack = outer = BaseHTTPMiddleware(app.middleware_stack, pass_through)
        assert app.middleware_stack is outer


async def test_mounted_app_is_wrapped_once() -> None:
    """Its middlewares and those of the app around it end nothing."""

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
async def test_only_the_last_message_of_a_marked_response_is_held_back(
    failure: Exception, expected: AbstractContextManager[Any]
) -> None:
    """All else passes as the very objects that were sent."""
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

    async def receive() -> Message:
        raise AssertionError("not read")

    with expected:
        await BrokenResponses(app)({"type": "http"}, receive, send)

    assert [id(message) for message in sent] == [id(start), id(more), id(more)]
