"""One HTTP/2 connection with several streams: windows, settings, GOAWAY, garbage."""

from __future__ import annotations

import asyncio

import pytest
from h2.errors import ErrorCodes
from h2.events import DataReceived
from h2.settings import SettingCodes

from fastapi_proxy_di.errors import (
    Failure,
    UpstreamDisconnected,
    UpstreamProtocolError,
)
from tests.support.gateways import until
from tests.transport.http2.peer import Peer, asks, respond_to_all, scripted, transport_to


async def test_http2_upload_waits_for_a_full_socket() -> None:
    """With very large windows, the socket's own buffer stops the writer."""
    go_on = asyncio.Event()
    window = 2**30

    async def script(peer: Peer) -> None:
        peer.h2.increment_flow_control_window(window)
        peer.flush()
        stream, _ = await peer.request()
        await go_on.wait()
        size = 0
        while size < 2**24:
            size += len((await peer.next(DataReceived)).data)
        peer.respond(stream, 200)
        peer.send(stream, b"%d" % size, end=True)
        await peer.left()

    settings: dict[SettingCodes, int] = {SettingCodes.INITIAL_WINDOW_SIZE: window}
    async with (
        scripted(script, settings=settings) as (url, _),
        transport_to(url) as transport,
    ):
        exchange = await transport.start(asks(b"POST"), b"", more=True)
        writing = asyncio.create_task(exchange.write(b"b" * 2**24))
        await asyncio.sleep(0.02)  # nothing tells of what does not happen
        held = not writing.done()
        go_on.set()
        await writing
        exchange.finish()
        await exchange.head()
        size = await exchange.read()
        exchange.close()

    assert (held, size) == (True, b"%d" % 2**24)


async def test_http2_unread_response_delays_no_other() -> None:
    """Each stream has its own window."""

    async def script(peer: Peer) -> None:
        slow, _ = await peer.request()
        peer.respond(slow)
        sent = 0
        while sent < 10**6 and (room := peer.h2.local_flow_control_window(slow)):
            peer.send(slow, b"x" * min(room, 16384))
            sent += min(room, 16384)
        held.append(sent)
        other, _ = await peer.request()
        peer.respond(other)
        peer.send(other, b"quick", end=True)
        await peer.left()

    held: list[int] = []
    async with scripted(script) as (url, peers), transport_to(url) as transport:
        slow = await transport.start(asks(), b"", more=False)
        await slow.head()
        await until(lambda: slow.stalled_by_reader)
        quick = transport.reuse(asks(), b"", more=False)
        assert quick is not None
        await quick.head()
        body = await quick.read()
        quick.close()
        size = 0
        while size < held[0]:
            size += len(await slow.read())
        slow.close()

    assert (body, quick.reused, len(peers)) == (b"quick", True, 1)
    assert (size, held) == (256 * 1024, [256 * 1024])


async def test_http2_reset_right_after_a_window_is_no_fault() -> None:
    """A window for a stream that the next frame resets does not break the connection."""

    async def script(peer: Peer) -> None:
        stream, _ = await peer.request()
        peer.h2.increment_flow_control_window(1000)
        peer.h2.increment_flow_control_window(1000, stream)
        peer.h2.reset_stream(stream, ErrorCodes.REFUSED_STREAM)
        peer.flush()
        await respond_to_all(peer)

    async with scripted(script) as (url, peers), transport_to(url) as transport:
        refused = await transport.start(asks(b"POST"), b"x" * 100_000, more=False)
        other = transport.reuse(asks(), b"", more=False)
        assert other is not None
        with pytest.raises(UpstreamDisconnected, match="reset the stream") as raised:
            await refused.head()
        await other.head()
        body = await other.read()
        other.close()
        await until(lambda: not next(iter(transport._connections)).streams)

    assert (body, len(peers)) == (b"ok", 1)
    assert raised.value.failure is Failure.NOT_PROCESSED


async def test_http2_streams_end_with_their_connection() -> None:
    """Every exchange of the connection fails."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.request()

    async with scripted(script) as (url, _), transport_to(url) as transport:
        one = await transport.start(asks(), b"", more=False)
        two = transport.reuse(asks(b"POST"), b"", more=True)
        assert two is not None
        for exchange in (one, two):
            with pytest.raises(UpstreamDisconnected, match="closed the connection"):
                await exchange.head()
        with pytest.raises(UpstreamDisconnected):
            await two.write(b"x")
        assert transport.connections == 0


async def test_http2_goaway_lets_accepted_streams_finish() -> None:
    """Streams that were not accepted fail and may be retried."""

    async def script(peer: Peer) -> None:
        first, _ = await peer.request()
        if len(peers) > 1:
            peer.respond(first)
            peer.send(first, b"second connection", end=True)
        else:
            await peer.request()
            peer.h2.close_connection(last_stream_id=first)
            peer.flush()
            await go_on.wait()
            # h2 sends nothing behind its own GOAWAY, so these frames are written by hand.
            peer.writer.write(bytes.fromhex("000001 01 04 00000001 88".replace(" ", "")))
            peer.writer.write(bytes.fromhex("000005 00 01 00000001".replace(" ", "")) + b"first")
        await peer.left()

    go_on = asyncio.Event()
    async with scripted(script) as (url, peers), transport_to(url) as transport:
        kept = await transport.start(asks(), b"", more=False)
        dropped = transport.reuse(asks(), b"", more=False)
        assert dropped is not None
        with pytest.raises(UpstreamDisconnected, match="ended the connection") as raised:
            await dropped.head()
        nothing = transport.reuse(asks(), b"", more=False)
        again = await transport.start(asks(), b"", more=False)
        await again.head()
        second = await again.read()
        again.close()
        go_on.set()
        await kept.head()
        first = await kept.read()
        kept.close()
        await until(lambda: transport.connections == 1)

    assert (nothing, first, second) == (None, b"first", b"second connection")
    assert raised.value.failure is Failure.NOT_PROCESSED


@pytest.mark.parametrize("responded", [False, True])
async def test_http2_garbage_breaks_the_connection(responded: bool) -> None:
    """Every incomplete exchange of the connection fails."""

    async def script(peer: Peer) -> None:
        done, _ = await peer.request()
        peer.respond(done)
        peer.send(done, b"", end=True)
        stream, _ = await peer.request()
        if responded:
            peer.respond(stream)
        await go_on.wait()
        peer.writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await peer.left()

    go_on = asyncio.Event()
    async with scripted(script) as (url, _), transport_to(url) as transport:
        whole = await transport.start(asks(), b"", more=False)
        exchange = transport.reuse(asks(), b"", more=False)
        assert exchange is not None
        await whole.head()
        await until(lambda: whole.complete)
        if responded:
            await exchange.head()
        go_on.set()
        with pytest.raises(UpstreamProtocolError, match="malformed") as raised:
            await (exchange.read() if responded else exchange.head())
        end = await whole.read()
        await until(lambda: not transport.connections)

    failure = Failure.RESPONSE_BODY if responded else Failure.RESPONSE_MALFORMED
    assert (raised.value.failure, end) == (failure, b"")


async def test_http2_settings_may_change_during_an_exchange() -> None:
    """A window that a new setting opens lets a body continue."""

    async def script(peer: Peer) -> None:
        stream, _ = await peer.request()
        peer.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 100})
        peer.flush()
        # PRIORITY says nothing to a client, and is no fault (RFC 9113 section 5.3.2).
        peer.writer.write(bytes.fromhex("000005 02 00 00000001 00000000 10".replace(" ", "")))
        size = 0
        while size < 50:
            size += len((await peer.next(DataReceived)).data)
        peer.respond(stream)
        peer.send(stream, b"%d" % size, end=True)
        await peer.left()

    settings: dict[SettingCodes, int] = {SettingCodes.INITIAL_WINDOW_SIZE: 10}
    async with (
        scripted(script, settings=settings) as (url, _),
        transport_to(url) as transport,
    ):
        exchange = await transport.start(asks(b"POST"), b"x" * 50, more=False)
        await exchange.head()
        size = await exchange.read()
        exchange.close()

    assert size == b"50"
