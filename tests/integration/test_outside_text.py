"""Text of clients and destinations, wherever it is shown: on one line, printable and bounded."""

from __future__ import annotations

import contextlib
import json
import logging
import traceback
from urllib.parse import quote

import pytest
from fastapi import FastAPI, WebSocket
from fastapi.testclient import TestClient

from fastapi_proxy_di import Balancer, Event, ProxyError, ProxySettings, proxy_lifespan
from fastapi_proxy_di.cli import main
from fastapi_proxy_di.integration.problems import problem
from fastapi_proxy_di.supervision.events import DestinationEjected
from fastapi_proxy_di.testing import reply, stand_in
from tests.support.gateways import billing, gateway, gateway_app
from tests.support.http_client import connect, fetch
from tests.support.origins import ScriptedOrigin, always
from tests.support.servers import dead_port
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


HOSTILE = {
    "line ends": (b"%0d%0aINFO%20fake", b"a\tb"),
    "escapes": (b"%1b%5b31m", b"\x1b[31mred"),
    "C1 control": (b"%c2%9b31m", b"\x9b31m"),
    "line separator": (b"%e2%80%a8", "a\u2028b".encode()),
    "right to left": (b"%e2%80%ae", "a\u202eb".encode()),
    "NUL": (b"%00", b"a\x00b"),
    "invalid UTF-8": (b"%ff%fe%c3", b"\xff\xfe\xc3"),
    "broken escapes": (b"%zz%", b"\x7f"),
    "formats": (b"%25s%25(x)s%7B0%7D", b"%s %(x)s {0}"),
}
"""A path, and the value of a header, as they travel."""

_HEADS = {
    "status line": b"HTTP/1.1 200 %b\r\nContent-Length: 0\r\n\r\n",
    "version": b"HTTP/%b 200 OK\r\n\r\n",
    "header value": b"HTTP/1.1 200 OK\r\nX: %b\r\nContent-Length: 0\r\n\r\n",
    "header name": b"HTTP/1.1 200 OK\r\n%b: 1\r\nContent-Length: 0\r\n\r\n",
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: %b\r\n\r\n",
    "coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: %b\r\n\r\n",
    "chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%b\r\n",
    "redirect": b"HTTP/1.1 302 Found\r\nLocation: http://%b/\r\nContent-Length: 0\r\n\r\n",
    "handshake": (
        b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n"
    ),
}
"""Responses of a destination with hostile text in each place that has text."""


def shown(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Give all that our loggers have written."""
    ours = [one for one in caplog.records if one.name.startswith("fastapi_proxy_di")]
    attributes = [value for one in ours for value in vars(one).values() if isinstance(value, str)]
    return [one.getMessage() for one in ours] + attributes


@pytest.mark.e2e
@pytest.mark.parametrize(("path", "value"), HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("server", ["httptools", "h11"])
async def test_no_client_writes_to_the_log(
    server: str, path: bytes, value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """By path, header, Host or id, whether a destination responds or none; nor to a problem."""
    caplog.set_level(logging.DEBUG, "fastapi_proxy_di")
    app = FastAPI()
    proxy_lifespan.configure(app, ProxySettings(request_id=True))
    replies = []
    async with ScriptedOrigin() as origin:
        for url in (origin.url, f"http://127.0.0.1:{dead_port()}"):
            async with gateway(url, app=app, server={"http": server}) as gate:
                quiet = await fetch(gate.address, target=b"/billing/" + path)
                assert quiet.status in (200, 502)
                replies.append(quiet)
                for headers, host in (
                    ([(b"X-Request-ID", value), (b"Max-Forwards", value)], b"gateway.test"),
                    ([(b"Connection", value), (value, b"1")], b"gateway.test"),
                    ([], value),
                ):
                    target = b"/billing/\xff" + path
                    replies.append(await fetch(gate.address, "GET", target, headers, host=host))
            app = FastAPI()

    assert all(text.isprintable() for text in shown(caplog))
    problems = [one.json() for one in replies if b"problem" in (one.one(b"content-type") or b"")]
    assert all(str(text).isprintable() for one in problems for text in one.values())


@pytest.mark.e2e
@pytest.mark.parametrize("value", [value for _, value in HOSTILE.values()], ids=HOSTILE)
async def test_no_destination_writes_to_the_log(
    value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """By whatever part of a response; nor to a problem document."""
    caplog.set_level(logging.DEBUG, "fastapi_proxy_di")
    replies = []
    for head in _HEADS.values():
        script = always(head % value)
        async with ScriptedOrigin(script) as origin, gateway(origin.url) as gate:
            replies.append(await fetch(gate.address, target="/billing/x"))
        # Another gateway, because the second failure of a kind is only counted.
        async with (
            ScriptedOrigin(script) as origin,
            gateway(origin.url) as gate,
            connect(gate.address) as client,
        ):
            with contextlib.suppress(EOFError):  # a refusal that breaks off
                await shake_hands(client, "/billing/x")

    problems = [one.json() for one in replies if one.status == 502]
    texts = [str(text) for one in problems for text in one.values()]
    assert texts
    assert all(text.isprintable() for text in [*texts, *shown(caplog)])


def test_problem_quotes_its_detail() -> None:
    """A status page's refusal may name what was asked for."""
    document = json.loads(bytes(problem(404, "no\r\n\x1b[31m\u2028 such").body))

    assert document["detail"] == r"no\r\n\x1b[31m\u2028 such"
