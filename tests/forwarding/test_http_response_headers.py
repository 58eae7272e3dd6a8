"""Response headers: order and repeats are kept, hop-by-hop headers removed, none doubled."""

from typing import Any

import pytest

from tests.support.gateways import gateway
from tests.support.http_client import Ending, RawResponse, connect, fetch, request
from tests.support.origins import Headers, ScriptedOrigin, always, response_bytes

pytestmark = pytest.mark.e2e


_SERVERS_OWN = {b"date", b"server"}


def _theirs(reply: RawResponse) -> Headers:
    """Give the headers that the server does not add itself."""
    return [(name.lower(), value) for name, value in reply.headers if name not in _SERVERS_OWN]


async def _through(raw: bytes, **settings: Any) -> RawResponse:
    """Send a GET through a gateway to an origin that sends these bytes."""
    async with ScriptedOrigin(always(raw)) as origin, gateway(origin.url, **settings) as gate:
        return await fetch(gate.address, target="/billing/x")


async def test_three_cookies_stay_three_headers() -> None:
    """Joining them would break their dates."""
    cookies = [b"a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT", b"b=2; Secure", b"a=3; Path=/x"]
    reply = await _through(
        response_bytes(body=b"ok", headers=[(b"Set-Cookie", c) for c in cookies])
    )

    assert reply.all(b"set-cookie") == cookies


async def test_response_headers_keep_order_and_repeats() -> None:
    """Repeated names are not joined."""
    pairs = [
        (b"x-b", b"1"),
        (b"vary", b"accept"),
        (b"x-a", b"2"),
        (b"set-cookie", b"a=1"),
        (b"x-b", b"3"),
        (b"vary", b"cookie"),
        (b"x-b", b"1"),
        (b"content-length", b"2"),
    ]
    reply = await _through(response_bytes(body=b"ok", headers=pairs, length=False))

    assert _theirs(reply) == pairs


async def test_response_headers_keep_bytes() -> None:
    """Values are bytes: latin-1, UTF-8, tabs, quotes and nothing at all."""
    pairs = [
        (b"x-latin", b"caf\xe9"),
        (b"x-utf8", "é".encode()),
        (b"x-tab", b"a\tb"),
        (b"etag", b'W/"a,b"'),
        (b"x-empty", b""),
        (b"x-long", b"y" * 8000),
    ]
    reply = await _through(response_bytes(body=b"ok", headers=pairs))

    assert _theirs(reply) == [*pairs, (b"content-length", b"2")]


async def test_no_response_header_is_added() -> None:
    """No type, cache or buffering header is added."""
    reply = await _through(response_bytes(body=b"ok"))

    assert _theirs(reply) == [(b"content-length", b"2")]


@pytest.mark.parametrize("http", ["httptools", "h11"])
async def test_blanks_around_values_are_cut_off(http: str) -> None:
    """RFC 9112 section 5.1; h11 refuses to send a Content-Length with a blank behind."""
    raw = b"HTTP/1.1 200 OK\r\nX-A:\t b c \t\r\nContent-Length: 2 \r\n\r\nok"
    reply = await _through(raw, server={"http": http})

    assert reply.body == b"ok"
    assert _theirs(reply) == [(b"x-a", b"b c"), (b"content-length", b"2")]


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\nX-A: b\nContent-Length: 2\n\nok",
        b"HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 2\n\nok",
        b"HTTP/1.1 200 OK\nX-A: b\nTransfer-Encoding: chunked\n\n2 \r\nok\r\n0\r\n\r\n",
    ],
)
async def test_bare_line_feeds_and_blanks_behind_chunk_sizes_are_read(raw: bytes) -> None:
    """RFC 9112 section 2.2: as devices send them, and nginx, curl and Go read them."""
    reply = await _through(raw)

    assert (reply.status, reply.body, reply.one(b"x-a")) == (200, b"ok", b"b")


async def test_alternative_service_of_the_upstream_is_dropped() -> None:
    """RFC 7838 section 3: it names ports of the upstream's own host, not of the gateway."""
    raw = response_bytes(body=b"ok", headers=[(b"Alt-Svc", b'h3=":443"; ma=86400')])

    assert _theirs(await _through(raw)) == [(b"content-length", b"2")]


async def test_date_and_server_are_not_doubled() -> None:
    """Uvicorn adds its own headers, so those of the destination are dropped."""
    raw = response_bytes(
        body=b"ok",
        headers=[(b"Date", b"Mon, 01 Jan 2001 00:00:00 GMT"), (b"Server", b"origin/1")],
    )
    reply = await _through(raw)

    assert reply.one(b"server") == b"uvicorn"
    assert reply.one(b"date") is not None


async def test_date_and_server_can_be_forwarded() -> None:
    """``response_server_headers=pass`` is for servers started without their own."""
    theirs = [(b"date", b"Mon, 01 Jan 2001 00:00:00 GMT"), (b"server", b"origin/1")]
    reply = await _through(
        response_bytes(body=b"ok", headers=theirs),
        response_server_headers="pass",
        server={"date_header": False, "server_header": False},
    )

    assert reply.headers == [*theirs, (b"content-length", b"2")]


@pytest.mark.parametrize(
    "header",
    [
        (b"Connection", b"keep-alive"),
        (b"Keep-Alive", b"timeout=5"),
        (b"Proxy-Connection", b"keep-alive"),
        (b"Upgrade", b"h2c, h2"),
    ],
)
async def test_hop_by_hop_response_header_is_removed(header: tuple[bytes, bytes]) -> None:
    """RFC 9110 section 7.6.1: these headers are for the gateway only."""
    reply = await _through(response_bytes(body=b"ok", headers=[header, (b"X-Kept", b"1")]))

    assert _theirs(reply) == [(b"x-kept", b"1"), (b"content-length", b"2")]


@pytest.mark.parametrize("connection", [[b"X-Hop, close"], [b"close", b"x-hop"], [b",X-HOP,"]])
async def test_nominated_response_header_is_removed(connection: list[bytes]) -> None:
    """Every header that the destination's Connection names."""
    pairs = [(b"X-Hop", b"secret"), (b"X-Kept", b"1")]
    pairs += [(b"Connection", value) for value in connection]
    reply = await _through(response_bytes(body=b"ok", headers=pairs))

    assert _theirs(reply) == [(b"x-kept", b"1"), (b"content-length", b"2")]


async def test_nominated_length_still_frames_the_response() -> None:
    """Connection cannot remove the framing."""
    raw = response_bytes(body=b"ok", headers=[(b"Connection", b"Content-Length, Set-Cookie")])
    reply = await _through(raw)

    assert reply.body == b"ok"
    assert reply.whole


async def test_not_modified_has_no_length() -> None:
    """A 304 may have the length of a body it does not send; uvicorn would wait for it."""
    raw = b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nContent-Length: 42\r\n\r\n'
    async with (
        ScriptedOrigin(always(raw)) as origin,
        gateway(origin.url) as gate,
        connect(gate.address) as client,
    ):
        for _ in range(2):
            await client.send(request(target="/billing/x", headers=[(b"If-None-Match", b'"x"')]))
            reply = await client.read_response()

            assert reply.status == 304
            assert _theirs(reply) == [(b"etag", b'"x"')]

    assert origin.connections == 1


@pytest.mark.parametrize("header", [b"", b"Content-Length: 0\r\n"])
async def test_no_content_has_no_body(header: bytes) -> None:
    """A 204 ends at its head, and both connections are used again."""
    raw = b"HTTP/1.1 204 No Content\r\nX-A: 1\r\n" + header + b"\r\n"
    async with (
        ScriptedOrigin(always(raw)) as origin,
        gateway(origin.url) as gate,
        connect(gate.address) as client,
    ):
        for _ in range(2):
            await client.send(request("DELETE", "/billing/x"))
            reply = await client.read_response()

            assert reply.status == 204
            assert reply.one(b"x-a") == b"1"
            assert reply.one(b"transfer-encoding") is None

    assert origin.connections == 1


@pytest.mark.parametrize(
    "status", [200, 201, 203, 206, 299, 301, 307, 400, 401, 404, 418, 429, 451]
)
async def test_status_is_forwarded(status: int) -> None:
    """Every final status; no redirect is followed, nothing retried."""
    raw = response_bytes(status, b"body", [(b"Location", b"http://other.example/x")])
    async with ScriptedOrigin(always(raw)) as origin, gateway(origin.url) as gate:
        reply = await fetch(gate.address, target="/billing/x")

    assert (reply.status, reply.body) == (status, b"body")
    assert reply.one(b"location") == b"http://other.example/x"
    assert len(origin.requests) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504, 599])
async def test_error_status_of_the_destination_is_forwarded(status: int) -> None:
    """By default an error response is not retried."""
    raw = response_bytes(status, b"body", [(b"Retry-After", b"7")])
    async with ScriptedOrigin(always(raw)) as origin, gateway(origin.url) as gate:
        reply = await fetch(gate.address, target="/billing/x")

    assert (reply.status, reply.body, reply.ending) == (status, b"body", Ending.LENGTH)
    assert reply.one(b"retry-after") == b"7"
    assert len(origin.requests) == 1
