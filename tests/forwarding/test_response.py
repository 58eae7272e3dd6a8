"""The response to the client, and the end of its exchange."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from types import SimpleNamespace
from typing import Any

import pytest

from fastapi_proxy_di.errors import ClientDisconnected, ClientStalled, UpstreamDisconnected
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.response import (
    TRANSFER,
    TransferBroken,
    UpstreamResponse,
    break_off,
    client_closed_request,
)
from tests.forwarding.samples import exchange_with
from tests.transport.http1.stand_in import StandIn, exchange_over

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"


class Client:
    """Records the messages to the server, and the end of the exchange."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.messages: list[Any] = []
        self.finished: list[BaseException | None] = []
        self.rest_ran = False
        self._error = error

    async def send(self, message: Any) -> None:
        if self._error is not None:
            raise self._error
        self.messages.append(message)

    async def receive(self) -> Any:
        raise AssertionError("an response never reads")

    def end(self, exchange: Exchange, failure: BaseException | None) -> Awaitable[None] | None:
        exchange.end_attempt()
        self.finished.append(failure)
        return self._rest()

    async def _rest(self) -> None:
        self.rest_ran = True


def response_over(
    peer: StandIn, data: bytes, client: Client, *, trailers: bool = False
) -> UpstreamResponse:
    """Make a response whose exchange has received these bytes."""
    sent = exchange_over(peer)
    sent.feed(memoryview(data), 0.0)
    return UpstreamResponse(exchange_with(sent), sent.headers, trailers=trailers, end=client.end)


async def test_complete_response_is_sent_and_finished_once() -> None:
    """In one message if all has arrived; a second call raises."""
    peer, client = StandIn(), Client()
    response = response_over(peer, OK + b"hello", client)
    await response({}, client.receive, client.send)

    assert client.messages == [
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]},
        {"type": "http.response.body", "body": b"hello", "more_body": False},
    ]
    assert client.finished == [None]
    assert client.rest_ran
    assert peer.end == "released"
    with pytest.raises(RuntimeError, match="already"):
        await response({}, client.receive, client.send)
    await response.aclose()
    assert client.finished == [None]


async def test_trailers_are_announced_and_sent() -> None:
    """Announced with the head, sent after the body."""
    client = Client()
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-T: y\r\n\r\n"
    await response_over(StandIn(), data, client, trailers=True)({}, client.receive, client.send)

    assert client.messages[0]["trailers"] is True
    assert client.messages[-1] == {"type": "http.response.trailers", "headers": [(b"x-t", b"y")]}


async def test_response_that_breaks_off_is_never_ended() -> None:
    """The received part is sent, without a last message; the scope has the mark."""
    peer, client = StandIn(), Client()
    exchange = exchange_over(peer)
    exchange.feed(memoryview(OK + b"hel"), 0.0)
    exchange.ended(None)
    response = UpstreamResponse(exchange_with(exchange), [], trailers=False, end=client.end)
    transfer = SimpleNamespace(broken_by=None)
    await response({TRANSFER: transfer}, client.receive, client.send)

    assert [message.get("body") is not None for message in client.messages] == [False, True]
    assert transfer.broken_by is client.finished[0]
    assert client.messages[1] == {
        "type": "http.response.body",
        "body": b"hel",
        "more_body": True,
    }
    assert isinstance(client.finished[0], UpstreamDisconnected)
    assert peer.end == "aborted"


async def test_server_that_cannot_send_ends_the_exchange() -> None:
    """The exception of the server is raised, and the exchange ends."""
    peer, client = StandIn(), Client(OSError("gone"))
    with pytest.raises(OSError, match="gone"):
        await response_over(peer, OK, client)({}, client.receive, client.send)

    assert isinstance(client.finished[0], OSError)
    assert peer.end == "aborted"


async def test_cancelled_response_ends_the_exchange() -> None:
    """The cancellation is raised."""
    peer, client = StandIn(), Client()
    sending = asyncio.ensure_future(
        response_over(peer, OK + b"hel", client)({}, client.receive, client.send)
    )
    for _ in range(3):
        await asyncio.sleep(0)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending

    assert isinstance(client.finished[0], asyncio.CancelledError)
    assert peer.end == "aborted"


async def test_unused_response_ends_its_exchange() -> None:
    """Closed, or garbage collected."""
    peer, client = StandIn(), Client()
    await response_over(peer, OK, client).aclose()
    assert isinstance(client.finished[0], ClientDisconnected)
    assert client.rest_ran
    assert peer.end == "aborted"

    peer, client = StandIn(), Client()
    response = response_over(peer, OK, client)
    del response
    assert isinstance(client.finished[0], ClientDisconnected)
    assert not client.rest_ran
    assert peer.end == "aborted"


async def test_forgotten_response_with_nothing_to_await() -> None:
    """The end of a short exchange gives no awaitable."""
    ended: list[BaseException | None] = []

    def response(data: bytes) -> UpstreamResponse:
        sent = exchange_over(StandIn())
        sent.feed(memoryview(data), 0.0)
        return UpstreamResponse(
            exchange_with(sent),
            [],
            trailers=False,
            end=lambda exchange, failure: ended.append(failure),
        )

    forgotten = response(OK)
    del forgotten
    await response(OK).aclose()
    client = Client()
    await response(OK + b"hello")({}, client.receive, client.send)

    assert client.messages[-1]["body"] == b"hello"
    assert [type(error) for error in ended] == [
        ClientDisconnected,
        ClientDisconnected,
        type(None),
    ]


def test_break_off_without_a_wrapper_raises() -> None:
    """Else a middleware might complete the response."""
    with pytest.raises(TransferBroken):
        break_off({}, UpstreamDisconnected("gone"))
    with pytest.raises(TransferBroken):
        break_off({}, ClientStalled("reads nothing"))
    break_off({}, ClientDisconnected("left"))


async def test_client_closed_request_is_an_empty_response() -> None:
    """Servers and middlewares expect a response."""
    client = Client()
    response = client_closed_request()
    await response({}, client.receive, client.send)
    await response.aclose()

    assert [message["type"] for message in client.messages] == [
        "http.response.start",
        "http.response.body",
    ]
    assert client.messages[0]["status"] == 499
