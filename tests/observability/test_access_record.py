"""One access record for each exchange."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.testclient import TestClient
from starlette.testclient import WebSocketDenialResponse
from starlette.types import Message, Scope
from starlette.websockets import WebSocketDisconnect

from fastapi_proxy_di import Attempt, Failure
from fastapi_proxy_di.testing import (
    accept,
    close,
    echo,
    refuse,
    reply,
    reset,
    stall,
    stand_in,
)
from tests.testing.apps import Billing, gateway_app


@pytest.fixture
def access(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Record the access records."""
    caplog.set_level(logging.INFO, "fastapi_proxy_di.access")
    return caplog


def records(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """Give the attributes of the records."""
    return [vars(one) for one in caplog.records if one.name == "fastapi_proxy_di.access"]


def only(record: dict[str, Any], *names: str) -> tuple[Any, ...]:
    """Give some attributes of a record."""
    return tuple(record[name] for name in names)


def test_record_describes_an_exchange(access: pytest.LogCaptureFixture) -> None:
    """Upstream, destination, attempts, status, bytes, timings, and the side that ended it."""
    app = gateway_app()

    with (
        stand_in(app, "billing", {"b": refuse(), "a": reply("12345", 201)}, policy="first"),
        TestClient(app) as client,
    ):
        client.post("/billing/pay?secret=1", content=b"123")

    (record,) = records(access)
    assert only(record, "upstream", "destination", "method", "path", "status", "protocol") == (
        "billing",
        "http://a",
        "POST",
        "/billing/pay",
        201,
        "http",
    )
    assert record["attempts"] == (
        Attempt("http://b", Failure.CONNECT),
        Attempt("http://a", status=201),
    )
    assert only(record, "received_bytes", "sent_bytes", "ended_by", "failure") == (
        3,
        5,
        "complete",
        None,
    )
    assert 0 < record["head_ms"] <= record["total_ms"]
    assert "secret" not in access.text


def test_record_is_one_line_whatever_the_client_sent(access: pytest.LogCaptureFixture) -> None:
    """Line ends and escapes of a path stay percent-encoded; other fields have none."""
    app = gateway_app()

    with stand_in(app, "billing", reply()), TestClient(app) as client:
        client.get("/billing/a%0d%0a%1b[31m%E2%80%AEb")

    (record,) = records(access)
    assert record["path"] == "/billing/a%0d%0a%1b[31m%E2%80%AEb"
    assert record["message"].isprintable()


def test_record_is_not_made_where_the_logger_is_off(caplog: pytest.LogCaptureFixture) -> None:
    """By default there is no record."""
    app = gateway_app()

    with stand_in(app, "billing", reply()), TestClient(app) as client:
        client.get("/billing/x")

    assert records(caplog) == []


def test_record_of_a_retry_by_status(access: pytest.LogCaptureFixture) -> None:
    """The attempt has the status of its response."""
    app = gateway_app()
    settings: dict[str, Any] = {"retries": {"statuses": [503], "backoff": 0}, "policy": "first"}

    with (
        stand_in(app, "billing", {"b": reply(status=503), "a": reply()}, **settings),
        TestClient(app) as client,
    ):
        client.get("/billing/x")

    (record,) = records(access)
    assert record["attempts"] == (
        Attempt("http://b", status=503),
        Attempt("http://a", status=200),
    )


@pytest.mark.parametrize(
    ("fault", "settings", "expected"),
    [
        (refuse(), {}, (502, "connect", "destination", "http://billing")),
        (stall(), {"timeouts": {"activity": 0.05}}, (504, "activity_timeout", "destination", None)),
        (stall(), {"timeouts": {"total": 0.05}}, (504, "total_timeout", "proxy", None)),
        (refuse(), {"retries": {"hedge_after": 60}}, (502, "connect", "destination", None)),
        (reply(), {"limits": {"max_body_bytes": 1}}, (413, "request_body_too_large", "client", 0)),
    ],
)
def test_record_of_a_failure(
    access: pytest.LogCaptureFixture,
    fault: Any,
    settings: dict[str, Any],
    expected: tuple[object, ...],
) -> None:
    """A request without a response has a record with the client's status."""
    app = gateway_app()
    method = "GET" if "retries" in settings else "POST"

    with stand_in(app, "billing", fault, **settings), TestClient(app) as client:
        client.request(method, "/billing/x", content=b"12" if method == "POST" else None)

    (record,) = records(access)
    assert only(record, "status", "failure", "ended_by") == expected[:3]
    assert record["head_ms"] is None
    if expected[3] == 0:
        assert only(record, "destination", "attempts") == (None, ())
    else:
        assert record["destination"] == "http://billing"


async def test_record_of_a_response_that_breaks_off(access: pytest.LogCaptureFixture) -> None:
    """The status was sent, and the destination ended it."""
    app = gateway_app()

    with stand_in(app, "billing", reset(b"part", 206)), TestClient(app) as client:
        client.get("/billing/x")

    (record,) = records(access)
    assert only(record, "status", "failure", "ended_by", "sent_bytes") == (
        206,
        "response_body",
        "destination",
        4,
    )


class Sending:
    """The ASGI functions of a server whose client fails or waits."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error
        self.head = asyncio.Event()

    async def receive(self) -> Message:  # pragma: no cover - asked only where the test is slow
        """Wait for ever, because the client sends nothing more."""
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, message: Message) -> None:
        """Take the head, then fail or wait."""
        self.head.set()
        if self.error is not None:
            raise self.error
        await asyncio.Event().wait()


def scope_of(app: FastAPI) -> Scope:
    """Make the scope of a request."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/billing/x",
        "raw_path": b"/billing/x",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"gateway")],
        "client": ("127.0.0.1", 1),
        "server": None,
        "app": app,
    }


async def test_record_of_a_disconnect(access: pytest.LogCaptureFixture) -> None:
    """A failed ``send`` means that the client ended it."""
    app = gateway_app()
    server = Sending(OSError("gone"))

    async with stand_in(app, "billing", reply("x")):
        with pytest.raises(OSError, match="gone"):
            await app(scope_of(app), server.receive, server.send)

    (record,) = records(access)
    assert only(record, "status", "ended_by") == (200, "client")


async def test_record_of_a_shutdown(access: pytest.LogCaptureFixture) -> None:
    """A request that the server cancels is ended by the proxy, once."""
    app = gateway_app()
    server = Sending(None)

    async with stand_in(app, "billing", reply("x")):
        task = asyncio.create_task(app(scope_of(app), server.receive, server.send))
        await server.head.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    (record,) = records(access)
    assert only(record, "status", "ended_by") == (200, "proxy")


async def test_record_of_a_response_that_is_not_used(access: pytest.LogCaptureFixture) -> None:
    """A response that an endpoint drops has a record, too."""
    app = gateway_app()

    @app.get("/other")
    async def other(request: Request, billing: Billing) -> Response:
        await billing.forward(request, "/x")
        return Response("own")

    with stand_in(app, "billing", reply("x")), TestClient(app) as client:
        response = client.get("/other")

    (record,) = records(access)
    assert (response.text, record["status"], record["sent_bytes"]) == ("own", 200, 0)


def test_record_of_a_tunnel(access: pytest.LogCaptureFixture) -> None:
    """The record has the bytes of messages, the end and the close code."""
    app = gateway_app()

    with (
        stand_in(app, "billing", echo()),
        TestClient(app) as client,
        client.websocket_connect("/live") as live,
    ):
        live.send_text("hello")
        live.receive_text()
        live.close(4000)

    (record,) = records(access)
    assert only(record, "protocol", "status", "destination", "ended_by", "end", "code") == (
        "websocket",
        101,
        "http://billing",
        "client",
        "client_closed",
        4000,
    )
    assert only(record, "received_bytes", "sent_bytes") == (5, 5)


def test_record_of_a_tunnel_that_the_upstream_closed(access: pytest.LogCaptureFixture) -> None:
    """The destination has ended it."""
    app = gateway_app()

    with (
        stand_in(app, "billing", close(4001)),
        TestClient(app) as client,
        client.websocket_connect("/live") as live,
        pytest.raises(WebSocketDisconnect),
    ):
        live.receive_text()

    assert only(records(access)[0], "ended_by", "end", "code") == (
        "destination",
        "upstream_closed",
        4001,
    )


def test_record_of_a_message_that_is_too_big(access: pytest.LogCaptureFixture) -> None:
    """The side that sent it has ended the tunnel."""
    app = gateway_app()
    settings: dict[str, Any] = {"websocket": {"max_message_bytes": 3}}

    with (
        stand_in(app, "billing", [echo(), accept("12345")], **settings),
        TestClient(app) as client,
    ):
        with client.websocket_connect("/live") as live:
            live.send_text("hello")
            with pytest.raises(WebSocketDisconnect):
                live.receive_text()
        with client.websocket_connect("/live") as live, pytest.raises(WebSocketDisconnect):
            live.receive_text()

    assert [one["ended_by"] for one in records(access)] == ["client", "destination"]


async def test_record_of_a_drained_tunnel(access: pytest.LogCaptureFixture) -> None:
    """The proxy has ended it."""
    app = gateway_app()

    with stand_in(app, "billing", echo()) as billing, TestClient(app) as client:

        @app.post("/drain")
        async def drain(upstream: Billing) -> None:
            await upstream.drain("http://billing", timeout=0.01)

        with client.websocket_connect("/live") as live:
            live.send_text("x")
            live.receive_text()
            client.post("/drain")
            with pytest.raises(WebSocketDisconnect):
                live.receive_text()

    assert (records(access)[-1]["ended_by"], billing.tried) == ("proxy", ["billing"])


def test_record_of_a_refused_handshake(access: pytest.LogCaptureFixture) -> None:
    """The record has the status, and no end of a tunnel."""
    app = gateway_app()

    with (
        stand_in(app, "billing", reply("no", 403)),
        TestClient(app) as client,
        pytest.raises(WebSocketDenialResponse),
        client.websocket_connect("/live"),
    ):
        raise AssertionError  # pragma: no cover

    (record,) = records(access)
    assert only(record, "status", "ended_by") == (403, "complete")
    assert "end" not in record


def test_record_of_the_gateways_own_response(access: pytest.LogCaptureFixture) -> None:
    """``Max-Forwards`` is 0, so there is no destination."""
    app = gateway_app()

    with stand_in(app, "billing", {"a": reply("x")}), TestClient(app) as client:
        response = client.request("OPTIONS", "/billing/x", headers={"max-forwards": "0"})

    (record,) = records(access)
    assert response.status_code == 200
    assert only(record, "status", "destination", "attempts", "ended_by") == (
        200,
        None,
        (),
        "complete",
    )
