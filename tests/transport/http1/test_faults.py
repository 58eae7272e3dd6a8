"""Exchanges and dials end when something breaks, on either side and in every phase."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fastapi_proxy_di.errors import (
    Failure,
    UpstreamDisconnected,
)
from tests.support.gateways import until
from tests.support.origins import Connection, ScriptedOrigin, response_bytes
from tests.transport.http1.engine import body_of, engine, exchange_on, get, post
from tests.transport.loops import on_every_loop

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


class _Stopped(Exception):
    """The exception with which a test ends an exchange."""


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize(
    ("sent", "failure", "answered"),
    [
        (b"", Failure.RESPONSE_HEAD, False),
        (b"HTTP/1.1 2", Failure.RESPONSE_HEAD, True),
        (b"HTTP/1.1 103 X\r\n\r\n", Failure.RESPONSE_HEAD, True),
        (_HEAD, Failure.RESPONSE_BODY, True),
        (_HEAD + b"hello", Failure.RESPONSE_BODY, True),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            Failure.RESPONSE_BODY,
            True,
        ),
    ],
)
@on_every_loop
async def test_destination_that_breaks_off_is_a_failure(
    how: str, sent: bytes, failure: Failure, answered: bool
) -> None:
    """Closed or reset, before, within and after the head."""
    may_end = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        if sent:
            await connection.send(sent)
        await may_end.wait()
        if how == "reset":
            connection.reset()

    async with ScriptedOrigin(script) as origin, engine(origin) as transport:
        exchange = await exchange_on(transport, get())
        await until(lambda: exchange.answered or not sent)
        may_end.set()
        with pytest.raises(UpstreamDisconnected) as caught:
            await body_of(exchange)
        exchange.close()
        await until(lambda: transport.connections == 0)

    assert caught.value.failure is failure
    assert exchange.answered is answered
    assert (caught.value.__cause__ is not None) == (how == "reset")


@on_every_loop
async def test_reset_of_a_close_delimited_body_is_no_end() -> None:
    """Only a clean close ends such a body."""
    may_end = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\n\r\nhello")
        await may_end.wait()
        connection.reset()

    async with ScriptedOrigin(script) as origin, engine(origin) as transport:
        exchange = await exchange_on(transport, get())
        await exchange.head()
        assert await exchange.read() == b"hello"
        may_end.set()
        with pytest.raises(UpstreamDisconnected):
            await exchange.read()
        exchange.close()


@on_every_loop
async def test_close_delimited_body_ends_with_its_connection() -> None:
    """The whole body arrives, in any number of pieces."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 300_000)

    async with ScriptedOrigin(script) as origin, engine(origin) as transport:
        exchange = await exchange_on(transport, get())
        assert len(await body_of(exchange)) == 300_000
        assert exchange.complete
        await until(lambda: transport.connections == 0)


@pytest.mark.parametrize("phase", ["head", "body", "upload", "continue"])
@on_every_loop
async def test_fail_from_outside_ends_every_wait(phase: str) -> None:
    """Every waiting call raises that error, and the destination sees the close."""

    async def script(connection: Connection) -> None:
        await connection.read_head()
        if phase == "body":
            await connection.send(_HEAD + b"hel")
        if phase == "upload":
            await asyncio.Event().wait()
        await connection.peer_left()

    async with ScriptedOrigin(script) as origin, engine(origin) as transport:
        size = 64 << 20
        if phase in {"upload", "continue"}:
            exchange = await exchange_on(transport, post(size), b"", more=True)
        else:
            exchange = await exchange_on(transport, get())

        async def wait() -> None:
            if phase == "head":
                await exchange.head()
            elif phase == "body":
                await body_of(exchange)
            elif phase == "continue":
                await exchange.continued()
                await exchange.head()
            else:
                await exchange.write(b"x" * size)

        waiting = asyncio.ensure_future(wait())
        await until(lambda: origin.requests and (phase != "body" or exchange.status))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done()
        exchange.fail(_Stopped())
        exchange.fail(RuntimeError("only the first counts"))
        with pytest.raises(_Stopped):
            await waiting
        with pytest.raises(_Stopped):
            await exchange.write(b"x")
        exchange.finish()
        exchange.close()
        await until(lambda: transport.connections == 0)
        if phase != "upload":
            await origin.all_left()


@on_every_loop
async def test_fail_before_a_call_is_raised_by_the_call() -> None:
    """The error is kept for the next call."""
    async with ScriptedOrigin() as origin, engine(origin) as transport:
        exchange = await exchange_on(transport, post(5), b"", more=True)
        exchange.fail(_Stopped())

        async def head() -> None:
            await exchange.head()

        for waiting in (head(), exchange.read(), exchange.write(b"x")):
            with pytest.raises(_Stopped):
                await waiting
        await exchange.continued()
        exchange.close()
        await until(lambda: transport.connections == 0)


@on_every_loop
async def test_write_after_the_destination_closed_raises() -> None:
    """Before and after the loop has noticed; nothing is logged."""

    async def script(connection: Connection) -> None:
        await connection.read_head()

    async with ScriptedOrigin(script) as origin, engine(origin) as transport:
        exchange = await exchange_on(transport, post(1 << 30), b"", more=True)

        async def write_on() -> None:
            while True:
                await exchange.write(b"x" * 65536)
                await asyncio.sleep(0)

        with pytest.raises(UpstreamDisconnected):
            await write_on()
        for _ in range(20):
            with pytest.raises(UpstreamDisconnected):
                await exchange.write(b"x")
        exchange.close()
        await until(lambda: transport.connections == 0)


@on_every_loop
async def test_write_to_a_closed_exchange_does_nothing() -> None:
    """The pump may write a moment too late."""
    async with ScriptedOrigin() as origin, engine(origin) as transport:
        exchange = await exchange_on(transport, post(5), b"", more=True)
        exchange.close()
        await exchange.write(b"hello")
        exchange.finish()
        assert not exchange.stalled_by_reader
        await origin.all_left()

    assert not any(received.complete for received in origin.requests)


@on_every_loop
async def test_early_response_arrives_during_an_upload() -> None:
    """The response arrives while the upload runs, and survives the close after it."""

    async def script(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(response_bytes(413, b"too much", [(b"Connection", b"close")]))
        await connection.peer_left()

    async with ScriptedOrigin(script) as origin, engine(origin) as transport:
        exchange = await exchange_on(transport, post(1 << 30), b"", more=True)
        while not exchange.complete:
            await exchange.write(b"x" * 65536)
        assert exchange.status == 413
        assert await body_of(exchange) == b"too much"
        await origin.all_left()


@pytest.mark.parametrize("sent", [b"HTTP/1.1 100 Continue\r\n\r\n", response_bytes(401, b"no")])
@on_every_loop
async def test_wait_for_100_ends_with_100_or_a_response(sent: bytes) -> None:
    """A part of a head, or early hints, do not end it."""
    may_respond = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTT")
        await may_respond.wait()
        await connection.send(sent[3:])
        await connection.peer_left()

    async with ScriptedOrigin(script) as origin, engine(origin) as transport:
        exchange = await exchange_on(transport, post(5), b"", more=True)
        waiting = asyncio.ensure_future(exchange.continued())
        await until(lambda: exchange.answered)
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done()
        may_respond.set()
        await waiting
        await exchange.continued()
        exchange.close()


@on_every_loop
async def test_wait_for_100_ends_with_the_connection() -> None:
    """The error is raised by the call that reads the response."""

    async def script(connection: Connection) -> None:
        await connection.read_head()

    async with ScriptedOrigin(script) as origin, engine(origin) as transport:
        exchange = await exchange_on(transport, post(5), b"", more=True)
        await exchange.continued()
        with pytest.raises(UpstreamDisconnected):
            await body_of(exchange)
        exchange.close()


@on_every_loop
async def test_many_aborted_exchanges_leave_nothing() -> None:
    """150 exchanges, aborted while waiting, reading and writing, leave no task, socket or count."""

    async def script(connection: Connection) -> None:
        while True:
            received = await connection.read_head()
            if received.target == b"/body":
                await connection.send(_HEAD + b"hel")
                await connection.peer_left()

    async with ScriptedOrigin(script) as origin, engine(origin) as transport:
        tasks = len(asyncio.all_tasks())
        descriptors = _descriptors()

        async def one(number: int) -> None:
            if number % 3 == 0:
                exchange = await exchange_on(transport, get())
            elif number % 3 == 1:
                exchange = await exchange_on(transport, get(b"/body"))
                await exchange.head()
            else:
                exchange = await exchange_on(transport, post(100), b"x", more=True)
            if number % 2:
                exchange.fail(_Stopped())
            exchange.close()

        for start in range(0, 150, 50):
            await asyncio.gather(*(one(number) for number in range(start, start + 50)))
        await until(lambda: transport.connections == 0)
        await origin.all_left()
        await until(lambda: _descriptors() <= descriptors)

        assert transport.idle == 0
        assert len(asyncio.all_tasks()) <= tasks
