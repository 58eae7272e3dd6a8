"""In-process apps that raise, or send messages that are not allowed."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from tests.support.gateways import gateway, until
from tests.support.http_client import Ending, fetch
from tests.transport.asgi.apps import Inner, body, plain, raises, start

pytestmark = pytest.mark.e2e


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
        (raises, "response_head"),
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
    """Nothing was sent, so the client gets a 502; the failure counts against the destination."""
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
    """A response that ends cleanly would be taken for complete."""
    async with gateway(inner(plain(handle))) as gate:
        reply = await fetch(gate.address, "GET", "/billing/")
        await until(lambda: not gate.in_flight)
        failures = gate.balancer.destinations[0].failures

    assert (reply.status, reply.ending, failures) == (200, Ending.BROKEN, 1)


async def test_asgi_app_that_raises_is_logged(
    inner: Inner, caplog: pytest.LogCaptureFixture
) -> None:
    """With its traceback, as by a server; a 500 that was sent before is the response."""

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
    assert re.fullmatch(r"billing: asgi://\S+ raised LookupError", record.getMessage())
    assert vars(record)["upstream"] == "billing"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], LookupError)


async def test_asgi_app_may_not_send_out_of_order(inner: Inner) -> None:
    """No message may come before or after its place, and no second response."""
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
