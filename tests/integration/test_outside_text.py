"""Text of clients and destinations, wherever it is shown: on one line, printable and bounded."""

from __future__ import annotations

import logging
import traceback
from urllib.parse import quote

import pytest
from fastapi import FastAPI, WebSocket
from fastapi.testclient import TestClient

from fastapi_proxy_di import Balancer, Event, ProxyError
from fastapi_proxy_di.cli import main
from fastapi_proxy_di.supervision.events import DestinationEjected
from fastapi_proxy_di.testing import reply, stand_in
from tests.support.gateways import billing, gateway, gateway_app
from tests.support.http_client import connect
from tests.support.origins import ScriptedOrigin, always
from tests.support.websocket_client import shake_hands

KINDS = {
    "line end": "a\r\nb",
    "title of a terminal": "\x1b]0;title\x07",
    "C1 control": "\x9b31m",
    "right to left": "a\u202eb",
    "line separator": "a\u2028b\u2029c",
    "NUL": "a\x00b",
    "long": "x" * 10_000,
}
INNER = "asgi://tests.integration.inner_apps:fails_with_text"
"""An app that fails with a text of all kinds."""


def safe(text: str) -> bool:
    """Whether a text may be a part of a line of a log."""
    return text.isprintable() and len(text) < 1_000


@pytest.mark.parametrize("text", KINDS.values(), ids=KINDS)
def test_error_quotes_its_message(text: str) -> None:
    """Whatever a transport puts into it."""
    assert safe(str(ProxyError(f"malformed response: {text}")))


@pytest.mark.parametrize("text", KINDS.values(), ids=KINDS)
async def test_failure_that_a_lease_reports_is_quoted(
    text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """In the event of the ejection, and in the log."""
    events: list[Event] = []
    settings = billing("http://10.0.0.1:1", "http://10.0.0.2:1", ejection={"consecutive": 1})
    async with Balancer.from_settings(settings) as balancer:
        balancer.subscribe(events.append)
        async with balancer.lease() as lease:
            lease.failed(text)

    (event,) = (event for event in events if isinstance(event, DestinationEjected))
    assert safe(event.reason)
    assert all(safe(record.getMessage()) for record in caplog.records)
    assert any("is ejected" in record.getMessage() for record in caplog.records)


def test_fault_that_check_shows_is_quoted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table has one line for each destination."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", INNER)
    monkeypatch.setenv("UPSTREAM_BILLING_HEALTH__PATH", "/")

    assert main(["check", "billing"]) == 1

    out = capsys.readouterr().out
    assert all(line.isprintable() for line in out.split("\n"))
    row = out.split("\n")[1]
    assert r"a\r\nb \x1b]0;title\x07 \x9b31m \u202e \u2028 \x00xxx" in row
    assert "x" * 500 not in row


@pytest.mark.e2e
@pytest.mark.parametrize("value", [b"\x9b31m", "a\u202eb".encode(), b"x" * 10_000])
async def test_header_of_a_destination_is_quoted(value: bytes) -> None:
    """Neither an error nor its traceback has a header's value as it came."""
    shown: list[str] = []
    app = FastAPI()

    @app.exception_handler(ProxyError)
    async def show(websocket: WebSocket, error: ProxyError) -> None:
        shown.extend((str(error), "".join(traceback.format_exception(error))))
        await websocket.close()

    head = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    origin = ScriptedOrigin(always(head + b"Sec-WebSocket-Accept: " + value + b"\r\n\r\n"))
    async with origin, gateway(origin.url, app=app) as gate, connect(gate.address) as client:
        await shake_hands(client, "/billing/x")

    text, trace = shown
    assert "WebSocket handshake" in text
    assert safe(text)
    assert value.decode("latin-1") not in trace
    assert all(line.isprintable() for line in trace.split("\n"))


@pytest.mark.parametrize("text", KINDS.values(), ids=KINDS)
def test_access_record_shows_a_path_on_one_line(
    text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A path has at most 2000 characters there."""
    caplog.set_level(logging.INFO, "fastapi_proxy_di.access")
    app = gateway_app("http://billing.internal")

    with stand_in(app, "billing", reply()), TestClient(app) as client:
        client.get("/billing/" + quote(text))

    (record,) = (one for one in caplog.records if one.name == "fastapi_proxy_di.access")
    assert record.getMessage().isprintable()
    assert len(record.getMessage()) < 2_200
