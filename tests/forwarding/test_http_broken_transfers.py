"""Failures after the first byte: the client must see that the response is not complete."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.support.gateways import gateway, gateway_app, until
from tests.support.http_client import Ending, RawResponse, connect, fetch, request
from tests.support.origins import Connection, ScriptedOrigin, chunk
from tests.support.servers import run_hypercorn
from tests.support.stepped_loop import SteppedLoop

pytestmark = pytest.mark.e2e


_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"


async def _close(connection: Connection) -> None:
    connection.close()


async def _reset(connection: Connection) -> None:
    connection.reset()


async def _stall(connection: Connection) -> None:
    await connection.peer_left()


async def _bad_chunk(connection: Connection) -> None:
    await connection.send(b"zz\r\n")
    await connection.peer_left()


async def _cut_chunk(connection: Connection) -> None:
    await connection.send(b"ff\r\nnot so long")


async def _cut_before_the_last_line(connection: Connection) -> None:
    await connection.send(b"0\r\n")


_FAULTS: dict[str, tuple[bytes, Callable[[Connection], Awaitable[None]]]] = {
    "length, closed": (_LENGTH + b"hello", _close),
    "length, reset": (_LENGTH + b"hello", _reset),
    "length, stalled": (_LENGTH + b"hello", _stall),
    "chunked, closed": (_CHUNKED + chunk(b"hello"), _close),
    "chunked, reset": (_CHUNKED + chunk(b"hello"), _reset),
    "chunked, stalled": (_CHUNKED + chunk(b"hello"), _stall),
    "chunked, bad size": (_CHUNKED + chunk(b"hello"), _bad_chunk),
    "chunked, cut in a chunk": (_CHUNKED + chunk(b"hello"), _cut_chunk),
    "chunked, cut in the end": (_CHUNKED + chunk(b"hello"), _cut_before_the_last_line),
    "close-delimited, reset": (b"HTTP/1.1 200 OK\r\n\r\nhello", _reset),
    "close-delimited, stalled": (b"HTTP/1.1 200 OK\r\n\r\nhello", _stall),
}


async def _response_to(address: tuple[str, int], seen: Callable[[], None]) -> RawResponse:
    """Read the head and five bytes of the body, let the fault happen, read the rest."""
    async with connect(address) as client:
        await client.send(request(target="/billing/x"))
        reply = await client.read_head()
        if reply.one(b"content-length"):
            first = await client.reader.readexactly(5)
            seen()
            reply.body = first
            with contextlib.suppress(ConnectionError):
                reply.body += await client.reader.read()
            reply.ending = Ending.LENGTH if len(reply.body) == 10 else Ending.BROKEN
        else:
            first = await client.read_chunk()
            seen()
            await client.read_body(reply)
            reply.body = first + reply.body
    return reply


@pytest.mark.parametrize("middlewares", [0, 1, 2])
@pytest.mark.parametrize("name", _FAULTS)
@pytest.mark.parametrize("http", ["httptools", "h11"])
async def test_fault_within_the_body_breaks_the_transfer(
    name: str, middlewares: int, http: str, deadline_clock: SteppedLoop
) -> None:
    """No last chunk, no full length; also with the app's own HTTP middleware in front."""
    first, fault = _FAULTS[name]
    seen = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(first)
        await seen.wait()
        if fault is _stall:
            deadline_clock.advance(3600)  # beyond ``timeouts.activity``
        await fault(connection)

    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, middlewares=middlewares, server={"http": http}) as gate,
    ):
        reply = await _response_to(gate.address, seen.set)
        await origin.all_left()
        await until(lambda: gate.in_flight == 0)

    assert reply.status == 200
    assert reply.ending is Ending.BROKEN
    assert reply.body.startswith(b"hello")
    assert len(origin.requests) == 1


@pytest.mark.parametrize("middlewares", [0, 1])
@pytest.mark.parametrize("name", ["length, reset", "chunked, reset", "chunked, bad size"])
async def test_fault_within_the_body_breaks_the_transfer_of_hypercorn(
    name: str, middlewares: int
) -> None:
    """The same under another server."""
    first, fault = _FAULTS[name]
    seen = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(first)
        await seen.wait()
        await fault(connection)

    async with (
        ScriptedOrigin(script) as origin,
        run_hypercorn(gateway_app(origin.url, middlewares=middlewares)) as running,
    ):
        reply = await _response_to(running.address, seen.set)

    assert reply.ending is Ending.BROKEN


@pytest.mark.parametrize("middlewares", [0, 1, 2])
async def test_total_timeout_breaks_a_transfer_under_way(
    middlewares: int, deadline_clock: SteppedLoop
) -> None:
    """``timeouts.total`` also ends a response that is being sent, never as if it were complete."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(_CHUNKED + chunk(b"hello"))
        await connection.peer_left()

    async with (
        ScriptedOrigin(script) as origin,
        gateway(
            origin.url, middlewares=middlewares, timeouts={"total": 60, "activity": 3600}
        ) as gate,
    ):
        reply = await _response_to(gate.address, lambda: deadline_clock.advance(61))
        await origin.all_left()

    assert (reply.body, reply.ending) == (b"hello", Ending.BROKEN)


async def test_broken_transfer_logs_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    """The warning names the upstream."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(_CHUNKED + chunk(b"hello"))

    async with ScriptedOrigin(script) as origin, gateway(origin.url) as gate:
        reply = await fetch(gate.address, target="/billing/x")
        await until(lambda: gate.in_flight == 0)

    ours: list[Any] = [
        record
        for record in caplog.records
        if record.name.startswith("fastapi_proxy_di") and record.levelname == "WARNING"
    ]
    assert reply.ending is Ending.BROKEN
    assert [record.upstream for record in ours] == ["billing"]
