"""Malformed responses: they end their stream and leave the other streams alone."""

from __future__ import annotations

import asyncio

import pytest
from h2.errors import ErrorCodes
from h2.events import StreamReset
from hyperframe.frame import DataFrame, HeadersFrame

from fastapi_proxy_di import Balancer
from fastapi_proxy_di.errors import Failure, ProxyError, UpstreamProtocolError
from fastapi_proxy_di.transport.http2 import connection as http2_connection
from fastapi_proxy_di.transport.http2.transport import Http2Transport
from fastapi_proxy_di.transport.protocol import Headers, TransportExchange
from tests.support.gateways import billing, gateway, until
from tests.support.http_client import connect, fetch
from tests.transport.http2.peer import Peer, asks, hypercorn, respond_to_all, scripted, transport_to

OK = (b":status", b"200")


def head(peer: Peer, stream: int, headers: Headers, *, end: bool = False) -> None:
    """Write a HEADERS frame that ``h2`` would refuse to send."""
    frame = HeadersFrame(stream, peer.h2.encoder.encode(headers), flags=["END_HEADERS"])
    if end:
        frame.flags.add("END_STREAM")
    peer.writer.write(frame.serialize())


def body(peer: Peer, stream: int, data: bytes, *, end: bool = False) -> None:
    """Write a DATA frame that ``h2`` would refuse to send."""
    frame = DataFrame(stream, data)
    if end:
        frame.flags.add("END_STREAM")
    peer.writer.write(frame.serialize())


async def whole(exchange: TransportExchange) -> None:
    """Read a response whose body is one piece."""
    await exchange.head()
    await exchange.read()


@pytest.mark.parametrize(
    "headers",
    [
        [OK, (b"connection", b"close")],
        [OK, (b"transfer-encoding", b"chunked")],
        [OK, (b"keep-alive", b"5")],
        [OK, (b"x", b"secret ")],
        [OK, (b"x", b"\tsecret")],
        [OK, (b"x", b"secret\r\ny: 1")],
        [OK, (b"X-Upper", b"1")],
        [OK, (b"a b", b"1")],
        [OK, (b"", b"1")],
        [OK, (b"content-length", b"two")],
        [OK, (b"content-length", b"2"), (b"content-length", b"3")],
        [(b":status", b"abc")],
        [(b":status", b"099")],
        [(b":status", b"99")],
        [(b":status", b"600")],
        [(b":status", b"1xx")],
        [(b":status", b"101")],
        [(b"x", b"1")],
        [(b"x", b"1"), OK],
        [OK, OK],
        [OK, (b":path", b"/")],
    ],
)
@pytest.mark.parametrize("end", [False, True])
async def test_malformed_head_ends_its_stream_alone(headers: Headers, end: bool) -> None:
    """RFC 9113 sections 8.1.1, 8.2 and 8.3: PROTOCOL_ERROR; header compression stays right."""
    resets: list[tuple[int, int | None]] = []

    async def script(peer: Peer) -> None:
        bad, _ = await peer.request()
        good, _ = await peer.request()
        head(peer, bad, [*headers, (b"x-kept", b"in the table")], end=end)
        reset = await peer.next(StreamReset)
        resets.append((reset.stream_id, reset.error_code))
        body(peer, bad, b"sent before the reset arrived")  # no fault, RFC 9113 section 5.1
        head(peer, bad, [(b"x-late", b"1")], end=True)
        peer.respond(good, 200, (b"x-kept", b"in the table"), (b"x-late", b"1"))
        peer.send(good, b"ok", end=True)
        await peer.left()

    async with scripted(script) as (url, peers), transport_to(url) as transport:
        bad = await transport.start(asks(b"POST"), b"x", more=False)
        good = transport.reuse(asks(), b"", more=False)
        assert good is not None
        with pytest.raises(UpstreamProtocolError, match="malformed response") as raised:
            await bad.head()
        bad.close()
        await good.head()
        piece = await good.read()
        good.close()

    assert raised.value.failure is Failure.RESPONSE_MALFORMED
    assert "secret" not in str(raised.value)
    assert resets == [(1, ErrorCodes.PROTOCOL_ERROR)]
    assert (good.headers, piece, len(peers)) == (
        [(b"x-kept", b"in the table"), (b"x-late", b"1")],
        b"ok",
        1,
    )


@pytest.mark.parametrize(
    ("length", "data", "end", "failure"),
    [
        (b"2", b"three", False, Failure.RESPONSE_BODY),
        (b"9", b"three", True, Failure.RESPONSE_BODY),
        (None, b"early", False, Failure.RESPONSE_MALFORMED),
    ],
)
async def test_malformed_body_ends_its_stream_alone(
    length: bytes | None, data: bytes, end: bool, failure: Failure
) -> None:
    """Longer or shorter than Content-Length (RFC 9113 section 8.1.1), or before the head."""
    resets: list[int | None] = []

    async def script(peer: Peer) -> None:
        bad, _ = await peer.request()
        good, _ = await peer.request()
        if length is not None:
            head(peer, bad, [OK, (b"content-length", length)])
        body(peer, bad, data, end=end)
        resets.append((await peer.next(StreamReset)).error_code)
        peer.respond(good)
        peer.send(good, b"ok", end=True)
        await peer.left()

    async with scripted(script) as (url, peers), transport_to(url) as transport:
        bad = await transport.start(asks(), b"", more=False)
        good = transport.reuse(asks(), b"", more=False)
        assert good is not None
        with pytest.raises(UpstreamProtocolError, match="malformed response") as raised:
            await whole(bad)
        bad.close()
        await good.head()
        piece = await good.read()
        good.close()

    assert (raised.value.failure, resets) == (failure, [ErrorCodes.PROTOCOL_ERROR])
    assert (piece, len(peers)) == (b"ok", 1)


@pytest.mark.parametrize("malformed", [False, True])
async def test_window_of_dropped_streams_is_given_back(
    malformed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that nobody reads do not use up the window of the connection."""
    window = 2**17
    monkeypatch.setattr(http2_connection, "_CONNECTION_WINDOW_BYTES", window)

    async def script(peer: Peer) -> None:
        for _ in range(8):
            stream, _ = await peer.request()
            peer.respond(stream, 200, (b"content-length", b"40000"))
            for _ in range(4):
                peer.send(stream, b"x" * 10_000)
            if malformed:
                body(peer, stream, b"x" * 10_000)
                peer.h2.outbound_flow_control_window -= 10_000
                await peer.next(StreamReset)
            else:
                peer.h2.reset_stream(stream, ErrorCodes.INTERNAL_ERROR)
                peer.flush()
        await respond_to_all(peer)

    async with scripted(script) as (url, peers), transport_to(url) as transport:
        for _ in range(8):
            dropped = transport.reuse(asks(), b"", more=False) or await transport.start(
                asks(), b"", more=False
            )
            await dropped.head()
            await until(lambda: dropped._error)  # type: ignore[attr-defined]  # noqa: B023
            dropped.close()
        last = transport.reuse(asks(), b"", more=False)
        assert last is not None
        await last.head()
        last.close()

    assert (last.status, len(peers)) == (200, 1)


async def test_lost_connection_counts_once_however_many_streams_it_has() -> None:
    """A connection that breaks under five requests is one failure, not five."""

    async def script(peer: Peer) -> None:
        for _ in range(5):
            await peer.request()

    async with (
        scripted(script) as (url, _),
        scripted(respond_to_all) as (other, _),
        Balancer.from_settings(
            billing(url, other, policy="first", http_version="2", ejection={"consecutive": 2})
        ) as balancer,
    ):
        results = await asyncio.gather(
            *(balancer.client.post("/x") for _ in range(5)), return_exceptions=True
        )
        once = len(balancer.available)
        results += await asyncio.gather(
            *(balancer.client.post("/x") for _ in range(5)), return_exceptions=True
        )
        twice = len(balancer.available)

    assert all(isinstance(result, ProxyError) for result in results)
    assert (once, twice) == (2, 1)


async def test_lost_connection_counts_once_for_responses_that_have_begun() -> None:
    """Five responses that break off with their connection are one failure, not five."""

    async def script(peer: Peer) -> None:
        streams = [(await peer.request())[0] for _ in range(5)]
        for stream in streams:
            peer.respond(stream)

    async with (
        scripted(script) as (url, _),
        scripted(respond_to_all) as (other, _),
        Balancer.from_settings(
            billing(url, other, policy="first", http_version="2", ejection={"consecutive": 2})
        ) as balancer,
    ):
        results = await asyncio.gather(
            *(balancer.client.get("/x") for _ in range(5)), return_exceptions=True
        )
        failures = balancer.destinations[0].failures

    assert [getattr(result, "failure", None) for result in results] == [Failure.RESPONSE_BODY] * 5
    assert failures == 1


@pytest.mark.parametrize("place", ["final", "informational", "trailers"])
async def test_head_over_the_limit_ends_its_stream_alone(place: str) -> None:
    """RFC 9113 section 10.5.1: the state of header compression stays right."""
    large = [(b"x-large", b"y" * 4_000), (b"x-kept", b"in the table")]

    async def script(peer: Peer) -> None:
        bad, _ = await peer.request()
        good, _ = await peer.request()
        if place == "trailers":
            head(peer, bad, [OK])
            head(peer, bad, large, end=True)
        else:
            head(peer, bad, [OK if place == "final" else (b":status", b"103"), *large])
        await peer.next(StreamReset)
        peer.respond(good, 200, (b"x-kept", b"in the table"))
        peer.send(good, b"ok", end=True)
        await peer.left()

    async with (
        scripted(script) as (url, peers),
        transport_to(url, max_response_header_bytes=1024) as transport,
    ):
        bad = await transport.start(asks(), b"", more=False)
        good = transport.reuse(asks(), b"", more=False)
        assert good is not None
        with pytest.raises(UpstreamProtocolError, match="max_response_header_bytes=1024"):
            await whole(bad)
        bad.close()
        await good.head()
        piece = await good.read()
        good.close()

    assert (good.headers, piece, len(peers)) == ([(b"x-kept", b"in the table")], b"ok", 1)


async def test_head_far_over_the_limit_is_not_decoded() -> None:
    """A few bytes may refer to a large field again and again; memory stays bounded."""

    async def script(peer: Peer) -> None:
        bad, _ = await peer.request()
        await peer.request()
        head(peer, bad, [OK, *[(b"x-large", b"y" * 2_000)] * 10])
        await peer.left()

    async with (
        scripted(script) as (url, _),
        transport_to(url, max_response_header_bytes=1024) as transport,
    ):
        bad = await transport.start(asks(), b"", more=False)
        good = transport.reuse(asks(), b"", more=False)
        assert good is not None
        for one in (bad, good):
            with pytest.raises(UpstreamProtocolError, match="Oversized header block"):
                await one.head()
            one.close()


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("limit", "fields", "statuses"),
    [
        (65_536, (60, 66, 200, 500), (200, 502, 502, 502)),
        (300_000, (66, 200, 300), (200, 200, 502)),
        (2_048, (1, 2, 15), (200, 502, 502)),
    ],
)
async def test_large_head_of_a_real_server_leaves_the_other_streams(
    limit: int, fields: tuple[int, ...], statuses: tuple[int, ...]
) -> None:
    """An open stream on the same connection goes on, and the limit is that of the settings."""
    limits = {"max_response_header_bytes": limit}
    async with (
        hypercorn() as port,
        gateway(
            f"http://127.0.0.1:{port}",
            http_version="2",
            limits=limits,
            ejection={"enabled": False},
            retries={"attempts": 1},
        ) as gate,
        connect(gate.address) as client,
    ):
        await client.send(
            b"POST /billing/stream HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        await client.send(b"3\r\none\r\n")
        await client.read_head()
        await client.read_chunk()
        responses = [await fetch(gate.address, target=f"/billing/large?{one}") for one in fields]
        route = next(iter(gate.balancer._running.transports.by_destination.values()))
        assert isinstance(route.transport, Http2Transport)
        connections = route.transport.connections
        await client.send(b"3\r\ntwo\r\n0\r\n\r\n")
        piece = await client.read_chunk()

    assert tuple(response.status for response in responses) == statuses
    kept = {response.one(b"x-kept") for response in responses if response.status == 200}
    assert kept == {b"in the table"}
    assert (connections, piece) == (1, b"two")
