"""One access record for each exchange, and the reasons of picks."""

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


def records(caplog: pytest.LogCaptureFixture, name: str = "access") -> list[dict[str, Any]]:
    """Give the attributes of the records of one logger."""
    return [vars(one) for one in caplog.records if one.name == f"fastapi_proxy_di.{name}"]


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


# -- explain ----------------------------------------------------------------------------


def test_explain_is_off_by_default() -> None:
    """No response shows an address."""
    app = gateway_app()

    with stand_in(app, "billing", reply()), TestClient(app) as client:
        response = client.get("/billing/x")

    assert "x-proxy-explain" not in response.headers


def test_explain_shows_the_reason_in_a_header() -> None:
    """Policy, candidates, and the destinations left out; an entry for each attempt."""
    app = gateway_app()
    destinations = {
        "ejected": refuse(),
        "ok": reply(),
        "spare": reply(),
        "resting": reply(),
        "busy": reply(),
    }
    settings: dict[str, Any] = {
        "explain": "header",
        "policy": "first",
        "ejection": {"consecutive": 1, "max_share": 1},
    }

    with (
        stand_in(app, "billing", destinations, **settings) as billing,
        TestClient(app) as client,
    ):

        @app.post("/prepare")
        async def prepare(upstream: Billing) -> None:
            await upstream.drain("http://spare")
            upstream.configure_destination("http://busy", max_requests=1)
            upstream.configure_destination("http://resting", tier=1)

        client.post("/prepare")
        first = client.get("/billing/x").headers["x-proxy-explain"]
        billing.flip("resting", healthy=False)
        second = client.get("/billing/x").headers["x-proxy-explain"]

    assert first == (
        "first picked http://ejected of 3: http://ejected, http://ok, http://busy;"
        " out: http://spare (draining), http://resting (tier 1)"
        " | first picked http://ok of 2: http://ok, http://busy;"
        " out: http://ejected (tried), http://spare (draining), http://resting (tier 1)"
    )
    assert second == (
        "first picked http://ok of 2: http://ok, http://busy; out: http://ejected (ejected),"
        " http://spare (draining), http://resting (unhealthy)"
    )


def test_explain_shows_full_and_panic() -> None:
    """Limits and panic are reasons, too."""
    app = gateway_app()
    settings: dict[str, Any] = {"explain": "header", "policy": "first"}

    with (
        stand_in(app, "billing", {"a": reply(), "b": reply()}, **settings) as billing,
        TestClient(app) as client,
    ):

        @app.post("/prepare")
        async def prepare(upstream: Billing) -> None:
            upstream.configure_destination("http://a", max_requests=1)

        client.post("/prepare")
        client.get("/billing/x")
        full = client.get("/billing/x").headers["x-proxy-explain"]
        billing.flip(healthy=False)
        panic = client.get("/billing/x").headers["x-proxy-explain"]

    assert full == "first picked http://b of 1: http://b; out: http://a (full)"
    assert panic == "first in panic picked http://b of 1: http://b; out: http://a (full)"


def test_explain_shortens_long_lists() -> None:
    """A large pool is shortened."""
    app = gateway_app()
    many = {f"d{number}": reply() for number in range(20)}

    with (
        stand_in(app, "billing", many, policy="first", explain="header"),
        TestClient(app) as client,
    ):
        explained = client.get("/billing/x").headers["x-proxy-explain"]

    assert explained.startswith("first picked http://d0 of 20: http://d0, ")
    assert explained.endswith("http://d7 and 12 more")


def test_explain_logs_that_no_destination_is_available(caplog: pytest.LogCaptureFixture) -> None:
    """The log has picks and their absence; no header is set."""
    caplog.set_level(logging.INFO, "fastapi_proxy_di.explain")
    app = gateway_app()
    settings: dict[str, Any] = {"explain": "log", "when_none_available": "fail", "policy": "first"}

    with (
        stand_in(app, "billing", reply(), **settings) as billing,
        TestClient(app) as client,
    ):
        response = client.get("/billing/x")
        billing.flip(healthy=False)
        client.get("/billing/x")

    assert "x-proxy-explain" not in response.headers
    assert [(one["message"], one["destination"]) for one in records(caplog, "explain")] == [
        ("first picked http://billing of 1: http://billing", "http://billing"),
        ("first picked none of 0; out: http://billing (unhealthy)", None),
    ]


def test_explain_in_the_log_follows_its_level(caplog: pytest.LogCaptureFixture) -> None:
    """Below INFO the log says nothing."""
    caplog.set_level(logging.WARNING, "fastapi_proxy_di.explain")
    app = gateway_app()

    with stand_in(app, "billing", reply(), explain="log"), TestClient(app) as client:
        client.get("/billing/x")

    assert records(caplog, "explain") == []


@pytest.mark.parametrize(
    ("headers", "how"), [({"x-session": "7"}, b"affinity"), ({}, b"power_of_two_choices")]
)
def test_explain_sets_the_header_of_handshakes(headers: dict[str, str], how: bytes) -> None:
    """A 101 has the header; it names affinity for known clients."""
    app = gateway_app()
    affinity = {"header": "x-session", "key": "0123456789abcdef0123456789abcdef"}

    with (
        stand_in(app, "billing", echo(), explain="header", affinity=affinity),
        TestClient(app) as client,
        client.websocket_connect("/live", headers=headers) as live,
    ):
        fields: Any = live.extra_headers
        explained = dict(fields)[b"x-proxy-explain"]

    assert explained.startswith(how + b" picked http://billing of 1")


def test_explain_off_in_yaml_is_off() -> None:
    """YAML reads ``off`` as false."""
    app = gateway_app()

    with stand_in(app, "billing", reply(), explain=False), TestClient(app) as client:
        response = client.get("/billing/x")

    assert response.status_code == 200


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
