"""Lengths of responses: what Content-Length allows, and which statuses have no body."""

from __future__ import annotations

import pytest
from h2.errors import ErrorCodes
from h2.events import StreamReset

from fastapi_proxy_di import Balancer
from fastapi_proxy_di.errors import Failure, UpstreamProtocolError
from fastapi_proxy_di.transport.protocol import Headers, TransportExchange
from tests.support.gateways import billing, gateway
from tests.support.http_client import Ending, fetch
from tests.transport.http2.peer import Peer, asks, hypercorn, scripted, transport_to
from tests.transport.http2.test_streams import body, head

OK = (b":status", b"200")
NO_CONTENT = (b":status", b"204")
NOT_MODIFIED = (b":status", b"304")
HINTS = (b":status", b"103")
THREE = (b"content-length", b"3")
FIVE = (b"content-length", b"5")
TRAILERS = [(b"x-end", b"1")]


async def respond(peer: Peer, stream: int, first: Headers, *rest: bytes | Headers) -> None:
    """Write a head, then bodies and trailers; the last one ends the stream."""
    head(peer, stream, first, end=not rest)
    for number, part in enumerate(rest, 1):
        end = number == len(rest)
        if isinstance(part, bytes):
            body(peer, stream, part, end=end)
        else:
            head(peer, stream, part, end=end)


async def content(exchange: TransportExchange) -> bytes:
    """Read a response to its end."""
    await exchange.head()
    received = b""
    while piece := await exchange.read():
        received += piece
    return received


@pytest.mark.parametrize(
    ("method", "first", "rest", "failure"),
    [
        (b"GET", [OK, FIVE], (), Failure.RESPONSE_MALFORMED),
        (b"GET", [OK, FIVE], (b"thr", TRAILERS), Failure.RESPONSE_BODY),
        (b"GET", [OK, FIVE], (TRAILERS,), Failure.RESPONSE_BODY),
        (b"GET", [OK, FIVE], (b"thr", [THREE]), Failure.RESPONSE_BODY),
        (b"GET", [NOT_MODIFIED], (b"x",), Failure.RESPONSE_BODY),
        (b"GET", [NOT_MODIFIED, FIVE], (b"three",), Failure.RESPONSE_BODY),
        (b"GET", [NO_CONTENT], (b"x",), Failure.RESPONSE_BODY),
        (b"HEAD", [OK, FIVE], (b"three",), Failure.RESPONSE_BODY),
        (b"GET", [OK, FIVE, FIVE], (b"three",), Failure.RESPONSE_MALFORMED),
    ],
)
async def test_wrong_length_is_malformed(
    method: bytes, first: Headers, rest: tuple[bytes | Headers, ...], failure: Failure
) -> None:
    """RFC 9113 section 8.1.1, RFC 9110 sections 8.6, 15.3.5 and 15.4.5; other streams go on."""
    resets: list[int | None] = []

    async def script(peer: Peer) -> None:
        bad, _ = await peer.request()
        good, _ = await peer.request()
        await respond(peer, bad, first, *rest)
        resets.append((await peer.next(StreamReset)).error_code)
        peer.respond(good)
        peer.send(good, b"ok", end=True)
        await peer.left()

    async with scripted(script) as (url, peers), transport_to(url) as transport:
        bad = await transport.start(asks(method), b"", more=False)
        good = transport.reuse(asks(), b"", more=False)
        assert good is not None
        with pytest.raises(UpstreamProtocolError, match="malformed response") as raised:
            await content(bad)
        bad.close()
        await good.head()
        piece = await good.read()
        good.close()

    assert (raised.value.failure, resets) == (failure, [ErrorCodes.PROTOCOL_ERROR])
    assert (piece, len(peers)) == (b"ok", 1)


@pytest.mark.parametrize(
    ("method", "first", "rest", "expected"),
    [
        (b"GET", [NOT_MODIFIED, FIVE], (b"",), b""),
        (b"GET", [NOT_MODIFIED, FIVE], (), b""),
        (b"GET", [NO_CONTENT, FIVE], (b"",), b""),
        (b"HEAD", [OK, FIVE], (b"",), b""),
        (b"HEAD", [OK, FIVE], (), b""),
        (b"GET", [OK, FIVE], (b"thr", b"ee"), b"three"),
        (b"GET", [OK, FIVE], (b"three", TRAILERS), b"three"),
        (b"GET", [OK, FIVE], (b"three", [THREE]), b"three"),
        (b"GET", [HINTS, THREE], ([OK, FIVE], b"three"), b"three"),
        (b"GET", [OK, (b"content-length", b"0")], (), b""),
    ],
)
async def test_right_length(
    method: bytes, first: Headers, rest: tuple[bytes | Headers, ...], expected: bytes
) -> None:
    """A 304, a 204 and the response to a HEAD may have the length of a body that is not sent."""

    async def script(peer: Peer) -> None:
        stream, _ = await peer.request()
        await respond(peer, stream, first, *rest)
        await peer.left()

    async with scripted(script) as (url, _), transport_to(url) as transport:
        exchange = await transport.start(asks(method), b"", more=False)
        received = await content(exchange)
        complete = exchange.complete
        exchange.close()

    assert (received, complete) == (expected, True)


@pytest.mark.e2e
async def test_short_response_with_trailers_breaks_off() -> None:
    """The client sees that bytes are missing, and the destination has a failure."""

    async def script(peer: Peer) -> None:
        stream, _ = await peer.request()
        await respond(peer, stream, [OK, FIVE], b"thr", TRAILERS)
        await peer.left()

    async with (
        scripted(script) as (url, _),
        gateway(url, http_version="2") as gate,
    ):
        response = await fetch(gate.address, target="/billing/x")
        failures = gate.balancer.destinations[0].failures

    assert (response.status, response.ending, failures) == (200, Ending.BROKEN, 1)


@pytest.mark.e2e
async def test_unchanged_responses_of_a_real_server_are_no_failures() -> None:
    """Hypercorn ends them with an empty DATA frame, and sends the Content-Length of its app."""
    async with (
        hypercorn() as port,
        gateway(f"http://127.0.0.1:{port}", http_version="2") as gate,
    ):
        responses = [await fetch(gate.address, target="/billing/unchanged") for _ in range(8)]
        destination = gate.balancer.destinations[0]

    assert [(one.status, one.ending) for one in responses] == [(304, Ending.NO_BODY)] * 8
    assert (destination.failures, destination.ejections) == (0, 0)


async def test_response_without_its_body_is_repeated() -> None:
    """It has no byte that the client could have got, so another destination may respond."""

    async def script(peer: Peer) -> None:
        stream, _ = await peer.request()
        await respond(peer, stream, [OK, FIVE])
        await peer.left()

    async def whole(peer: Peer) -> None:
        stream, _ = await peer.request()
        await respond(peer, stream, [OK, FIVE], b"three")
        await peer.left()

    async with (
        scripted(script) as (url, _),
        scripted(whole) as (other, _),
        Balancer.from_settings(billing(url, other, policy="first", http_version="2")) as balancer,
    ):
        response = await balancer.client.get("/x")

    assert (response.status_code, response.content) == (200, b"three")
