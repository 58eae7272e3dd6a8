"""Event streams that stand still are ended, by the time between events with data."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any, Final, cast

import httpx
import pytest

from fastapi_proxy_di.errors import Failure, UpstreamTimeout
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.pace import HEARTBEAT, Pace
from tests.support.engines import engine, stream_head
from tests.support.gateways import gateway, until
from tests.support.http_client import fetch
from tests.support.origins import Connection, ScriptedOrigin, chunk

pytestmark = pytest.mark.e2e

EVENT: Final = b"data: hello\n\n"


async def test_silence_between_events_ends_the_stream() -> None:
    """Broken for the client, closed upstream, and counted as a failure of the destination."""
    async with (
        ScriptedOrigin(engine(EVENT, then="stall")) as origin,
        gateway(origin.url, streams={"idle": 0.5}) as gate,
    ):
        reply = await fetch(gate.address, "GET", "/billing/x")
        await origin.all_left()
        await until(lambda: gate.in_flight == 0)
        (destination,) = gate.balancer.destinations
        failed = destination.failures

    assert (reply.status, reply.body, reply.whole) == (200, EVENT, False)
    assert failed == 1


async def test_comments_reset_the_activity_and_not_the_idle_time() -> None:
    """A destination that sends pings only is alive, but its stream stands still."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(stream_head() + chunk(EVENT))
        for _ in range(100):
            await connection.send(chunk(b": ping\n\n"))
            await asyncio.sleep(0.05)

    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, streams={"idle": 1.5}, timeouts={"activity": 1.0}) as gate,
    ):
        started = asyncio.get_running_loop().time()
        reply = await fetch(gate.address, "GET", "/billing/x")
        took = asyncio.get_running_loop().time() - started

    assert not reply.whole
    assert reply.body.count(b": ping") > 3
    assert 1.4 < took < 4


@pytest.mark.parametrize("coding", ["identity", "gzip"])
async def test_events_reset_the_idle_time(coding: str) -> None:
    """Also in an encoded stream, which is read in a copy."""
    event = gzip.compress(EVENT) if coding == "gzip" else EVENT

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(stream_head((b"Content-Encoding", coding.encode())))
        for _ in range(6):
            await connection.send(chunk(event))
            await asyncio.sleep(0.3)
        await connection.send(chunk(b""))
        await connection.read_request()

    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, streams={"idle": 1.5, "heartbeat": 0.1}) as gate,
    ):
        reply = await fetch(gate.address, "GET", "/billing/x")

    assert reply.whole
    assert reply.body.replace(HEARTBEAT, b"") == event * 6
    assert (HEARTBEAT in reply.body) is (coding == "identity")


async def test_call_of_the_app_is_ended_too_and_gets_no_heartbeats() -> None:
    """As a ``ReadTimeout``."""
    async with (
        ScriptedOrigin(engine(EVENT, then="stall")) as origin,
        gateway(origin.url, streams={"idle": 0.3, "heartbeat": 0.05}) as gate,
        gate.balancer.client.stream("GET", "/x") as response,
    ):
        pieces = response.aiter_raw()
        first = await anext(pieces)
        with pytest.raises(httpx.ReadTimeout, match="idle"):
            await anext(pieces)

    assert first == EVENT


class BlockedResponse:
    """A stream whose event is seen only after its time has ended, as by a loop that was blocked."""

    status: Final = 200
    headers: Final = [(b"content-type", b"text/event-stream")]
    complete: Final = False

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.blocked = True

    async def read(self) -> bytes:
        """Wait without end, then give a piece at once."""
        if self.blocked or not self.pieces:
            self.blocked = False
            await asyncio.Event().wait()
        return self.pieces.pop(0)


async def test_event_that_arrives_as_the_idle_time_ends_counts() -> None:
    """The stream goes on; a comment does not count, nor does nothing."""
    response = BlockedResponse(EVENT, b": ping\n\n")
    exchange = Exchange({"type": "http"}, None, None, b"/", b"")
    exchange.transport_exchange = cast("Any", response)
    body = Pace(0.05, None).of(exchange, [])

    assert await body.read() == EVENT
    response.blocked = True
    assert await body.read() == b": ping\n\n"
    with pytest.raises(UpstreamTimeout) as caught:
        await body.read()
    assert caught.value.failure is Failure.STREAM_IDLE
