"""Backpressure in both directions: memory stays bounded if either side is slow."""

from __future__ import annotations

import asyncio

import pytest

from fastapi_proxy_di.transport.exchange import BODY_HIGH_WATER_BYTES
from fastapi_proxy_di.transport.http1.connection import Http1Connection
from fastapi_proxy_di.transport.http1.exchange import Http1Exchange
from fastapi_proxy_di.transport.read_buffer import READ_BUFFER_BYTES
from tests.support.gateways import until
from tests.support.origins import Connection, ScriptedOrigin, response_bytes
from tests.transport.http1.engine import body_of, engine, exchange_on, get, post
from tests.transport.loops import on_every_loop

SIZE = 32 << 20


def buffered(exchange: Http1Exchange) -> int:
    """Bytes of the body that wait for a reader."""
    return exchange._buffered


@on_every_loop
async def test_reader_that_waits_stops_the_destination() -> None:
    """At most one read over the high-water mark is buffered; the rest stays at the destination."""
    sent = 0

    async def script(connection: Connection) -> None:
        nonlocal sent
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
        while sent < SIZE:
            await connection.send(b"x" * 65536)
            sent += 65536
        await connection.peer_left()

    async with ScriptedOrigin(script) as origin, engine(origin) as transport:
        exchange = await exchange_on(transport, get())
        await exchange.head()
        await until(lambda: exchange.stalled_by_reader)
        before = sent
        for _ in range(50):
            await asyncio.sleep(0)
        # The kernel's buffers fill; ours do not.
        assert buffered(exchange) <= BODY_HIGH_WATER_BYTES + READ_BUFFER_BYTES
        assert sent < SIZE // 2
        assert before > 0

        taken = 0
        while piece := await exchange.read():
            taken += len(piece)
            assert len(piece) <= BODY_HIGH_WATER_BYTES + READ_BUFFER_BYTES
        assert taken == SIZE
        exchange.close()
        assert transport.idle == 1


@on_every_loop
async def test_destination_stays_stopped_until_the_next_read() -> None:
    """While a slow client takes one piece, no further piece is buffered."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(response_bytes(body=b"x" * SIZE))

    async with ScriptedOrigin(script) as origin, engine(origin) as transport:
        exchange = await exchange_on(transport, get())
        await exchange.head()
        await until(lambda: exchange.stalled_by_reader)
        piece = await exchange.read()
        assert exchange.stalled_by_reader
        assert buffered(exchange) == 0
        rest = await body_of(exchange)
        exchange.close()

    assert len(piece) < 2 * BODY_HIGH_WATER_BYTES
    assert len(piece) + len(rest) == SIZE


@on_every_loop
async def test_close_of_a_stalled_exchange_closes_its_connection() -> None:
    """Reading may be paused when the client disconnects."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
        await connection.send(b"x" * SIZE)

    async with ScriptedOrigin(script) as origin, engine(origin) as transport:
        exchange = await exchange_on(transport, get())
        await exchange.head()
        await until(lambda: exchange.stalled_by_reader)
        exchange.close()
        assert not exchange.stalled_by_reader
        await origin.all_left()
        await until(lambda: transport.connections == 0)


@on_every_loop
async def test_connection_is_readable_again_after_a_stalled_response() -> None:
    """Reading paused at the last piece must resume for the next response."""

    async def script(connection: Connection) -> None:
        body = b"x" * (BODY_HIGH_WATER_BYTES + 10)
        while True:
            await connection.read_request()
            await connection.send(response_bytes(body=body))

    async with ScriptedOrigin(script) as origin, engine(origin) as transport:

        async def leave_unread() -> None:
            exchange = await exchange_on(transport, get())
            await exchange.head()
            await until(lambda: exchange.complete)
            exchange.close()
            assert transport.idle == 1

        for _ in range(3):
            await leave_unread()

    assert origin.connections == 1


@on_every_loop
async def test_slow_destination_stops_the_writer() -> None:
    """``write`` returns only when the destination reads."""
    may_read = asyncio.Event()

    async def script(connection: Connection) -> None:
        received = await connection.read_head()
        await may_read.wait()
        assert len(await connection.read_body(received)) == SIZE
        await connection.send(response_bytes(body=b"ok"))
        await connection.peer_left()

    async with ScriptedOrigin(script) as origin, engine(origin) as transport:
        exchange = await exchange_on(transport, post(SIZE), b"", more=True)
        written = 0

        async def upload() -> None:
            nonlocal written
            while written < SIZE:
                await exchange.write(b"x" * 65536)
                written += 65536
            exchange.finish()

        uploading = asyncio.ensure_future(upload())
        await until(lambda: origin.requests)
        for _ in range(200):
            await asyncio.sleep(0)
        assert written < SIZE // 2
        assert not uploading.done()

        may_read.set()
        await uploading
        assert await body_of(exchange) == b"ok"
        assert transport.idle == 1


@pytest.mark.parametrize("how", ["close", "reset", "cancel", "abort"])
@on_every_loop
async def test_stalled_writer_is_released(how: str) -> None:
    """By the destination's close, by cancellation, by the end of the exchange."""
    may_end = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_head()
        await may_end.wait()
        if how == "reset":
            connection.reset()

    async with ScriptedOrigin(script) as origin, engine(origin) as transport:
        exchange = await exchange_on(transport, post(SIZE), b"", more=True)
        uploading = asyncio.ensure_future(exchange.write(b"x" * SIZE))
        await until(lambda: origin.requests)
        for _ in range(5):
            await asyncio.sleep(0)
        assert not uploading.done()
        if how == "cancel":
            uploading.cancel()
        elif how == "abort":
            exchange.close()
        else:
            may_end.set()
        (result,) = await asyncio.gather(uploading, return_exceptions=True)
        if how == "abort":
            assert result is None
        else:
            assert isinstance(result, BaseException)
        exchange.close()
        may_end.set()
        await until(lambda: transport.connections == 0)


@on_every_loop
async def test_activity_is_recorded_in_both_directions() -> None:
    """``last_activity`` changes with each byte read and written."""
    may_respond = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await may_respond.wait()
        await connection.send(response_bytes(body=b"ok"))
        await connection.peer_left()

    loop = asyncio.get_running_loop()
    async with ScriptedOrigin(script) as origin, engine(origin) as transport:
        exchange = await exchange_on(transport, post(2), b"h", more=True)
        begun = exchange.last_activity
        await until(lambda: loop.time() > begun + 0.01)
        await exchange.write(b"i")
        exchange.finish()
        written = exchange.last_activity
        await until(lambda: loop.time() > written + 0.01)
        may_respond.set()
        await exchange.head()

        assert begun < written < exchange.last_activity
        exchange.close()


@on_every_loop
async def test_connection_without_a_socket_ignores_calls() -> None:
    """Before it is made and after it is closed, calls do nothing."""
    async with ScriptedOrigin() as origin, engine(origin) as transport:
        loop = asyncio.get_running_loop()
        unmade = Http1Connection(transport, loop)
        unmade.write(b"x")
        unmade.pause_reading()
        unmade.resume_reading()
        unmade.abort()
        assert not unmade.is_usable()
        assert not unmade.read_paused

        exchange = await exchange_on(transport, get())
        await exchange.head()
        (connection,) = transport._all
        exchange.close()
        connection.abort()
        connection.abort()
        connection.write(b"x")
        connection.pause_reading()
        await connection.drain()
        await until(lambda: transport.connections == 0)
    assert origin.connections == 1


@on_every_loop
async def test_second_writer_waits_with_the_first() -> None:
    """A cancelled writer does not keep the other one waiting."""

    async def script(connection: Connection) -> None:
        received = await connection.read_head()
        await asyncio.wait({cancelled})
        await connection.read_body(received)
        await connection.send(response_bytes(body=b"ok"))
        await connection.peer_left()

    async with ScriptedOrigin(script) as origin, engine(origin) as transport:
        exchange = await exchange_on(transport, post(SIZE), b"", more=True)
        cancelled = asyncio.ensure_future(exchange.write(b"x" * (SIZE - 1)))
        await until(lambda: origin.requests)
        writing = asyncio.ensure_future(exchange.write(b"x"))
        await asyncio.sleep(0)
        assert not writing.done()
        cancelled.cancel()
        await writing
        exchange.finish()
        assert await body_of(exchange) == b"ok"


@on_every_loop
async def test_stalled_exchange_is_closed_after_the_destination_closed() -> None:
    """Reading cannot resume on a socket that is closing."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(response_bytes(body=b"x" * (BODY_HIGH_WATER_BYTES + 10)))
        await connection.peer_left()

    async with ScriptedOrigin(script) as origin, engine(origin) as transport:
        exchange = await exchange_on(transport, get())
        await until(lambda: exchange.complete)
        assert exchange.stalled_by_reader
        (connection,) = transport._all
        assert connection._transport is not None
        connection._transport.close()
        exchange.close()
        assert transport.idle == 0
        await until(lambda: transport.connections == 0)


@on_every_loop
async def test_close_right_after_a_101_reaches_the_new_protocol() -> None:
    """Frames and a close that arrive before the socket is handed over are not lost."""
    switch = b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"

    async def script(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(switch + b"\x88\x02\x03\xe8")

    async with ScriptedOrigin(script) as origin, engine(origin) as transport:
        upgrade = [(b"connection", b"upgrade"), (b"upgrade", b"websocket")]
        exchange = await exchange_on(transport, get(headers=upgrade, upgrade=True))
        await exchange.head()
        await origin.all_left()
        for _ in range(50):  # the loop reads whatever it may
            await asyncio.sleep(0)
        socket, leftover = exchange.detach()
        socket.abort()

    assert (exchange.status, leftover) == (101, b"\x88\x02\x03\xe8")
