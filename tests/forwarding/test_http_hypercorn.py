"""Hypercorn: early hints and trailers on HTTP/2, and its own Date."""

import asyncio
from collections.abc import Sequence

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    Event,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    TrailersReceived,
)

from tests.support.gateways import gateway_app
from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin, always, chunk, response_bytes
from tests.support.servers import run_hypercorn

pytestmark = pytest.mark.e2e


RESPONSE = (
    b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n"
    + chunk(b"hello")
    + b"0\r\nX-Sum: 1\r\n\r\n"
)


async def _get(
    address: tuple[str, int],
    path: str,
    *,
    method: str = "GET",
    headers: Sequence[tuple[str, str]] = (),
) -> list[Event]:
    """Send a request over HTTP/2 with prior knowledge and give the events of its stream."""
    reader, writer = await asyncio.open_connection(*address)
    connection = H2Connection(H2Configuration(header_encoding=None))
    connection.initiate_connection()
    pseudo = [(":method", method), (":scheme", "http"), (":authority", "gateway.test")]
    sent = [*pseudo, (":path", path), ("te", "trailers"), *headers]
    connection.send_headers(1, sent, end_stream=True)
    events: list[Event] = []
    async with asyncio.timeout(10):
        while not any(isinstance(event, StreamEnded) for event in events):
            writer.write(connection.data_to_send())
            events += connection.receive_data(await reader.read(1 << 16))
        writer.close()
        await writer.wait_closed()
    return [event for event in events if getattr(event, "stream_id", 0) == 1]


async def test_hints_and_trailers_pass_through_hypercorn() -> None:
    """Hints before the response and trailers after it, on a real connection."""
    async with (
        ScriptedOrigin(always(RESPONSE)) as origin,
        run_hypercorn(gateway_app(origin.url)) as running,
    ):
        hint, head, body, trailers, _ = await _get(running.address, "/billing/x")

    assert isinstance(hint, InformationalResponseReceived)
    assert isinstance(head, ResponseReceived)
    assert isinstance(body, DataReceived)
    assert isinstance(trailers, TrailersReceived)
    assert (b":status", b"103") in hint.headers
    assert (b"link", b"</a.css>; rel=preload") in hint.headers
    assert (b":status", b"200") in head.headers
    assert body.data == b"hello"
    assert trailers.headers == [(b"x-sum", b"1")]
    assert origin.request.one(b"te") == b"trailers"


async def test_date_and_server_are_not_doubled_by_hypercorn() -> None:
    """Hypercorn adds its own headers, so those of the destination are dropped."""
    theirs = [(b"Date", b"Mon, 01 Jan 2001 00:00:00 GMT"), (b"Server", b"origin/1")]
    async with (
        ScriptedOrigin(always(response_bytes(body=b"ok", headers=theirs))) as origin,
        run_hypercorn(gateway_app(origin.url)) as running,
    ):
        reply = await fetch(running.address, target="/billing/x")

    assert (reply.one(b"server") or b"").startswith(b"hypercorn")
    assert reply.one(b"date") not in (None, theirs[0][1])


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "GET"])
async def test_http2_request_without_a_body_has_a_length_if_bodies_are_usual(method: str) -> None:
    """RFC 9110 section 8.6: nothing in HTTP/2 frames says so, and servers respond 411."""
    async with ScriptedOrigin() as origin, run_hypercorn(gateway_app(origin.url)) as gate:
        await _get(gate.address, "/billing/x", method=method)

    assert origin.request.method == method.encode()
    assert origin.request.all(b"content-length") == ([] if method == "GET" else [b"0"])
    assert origin.request.all(b"transfer-encoding") == []


async def test_http1_cookie_headers_stay_as_they_came() -> None:
    """RFC 6265 section 5.4 allows one only, but joining is the destination's decision."""
    cookies = [(b"Cookie", b"a=1"), (b"Cookie", b"b=2")]
    async with ScriptedOrigin() as origin, run_hypercorn(gateway_app(origin.url)) as gate:
        await fetch(gate.address, target="/billing/x", headers=cookies)

    assert origin.request.all(b"cookie") == [b"a=1", b"b=2"]


async def test_http2_host_beside_the_same_authority_is_one() -> None:
    """RFC 9113 section 8.3.1 allows both; hypercorn gives both."""
    async with ScriptedOrigin() as origin, run_hypercorn(gateway_app(origin.url)) as gate:
        await _get(gate.address, "/billing/x", headers=[("host", "gateway.test")])

    assert origin.request.one(b"x-forwarded-host") == b"gateway.test"
