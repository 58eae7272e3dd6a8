"""Ejection by responses that break off after a good head, and streams that last."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from tests.support.gateways import Gateway, gateway, until
from tests.support.http_client import Ending, connect, fetch, request
from tests.support.origins import Connection, ScriptedOrigin, always, chunk, response_bytes
from tests.support.servers import dead_port

pytestmark = pytest.mark.e2e

_STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"event")
# Only the row counts, not the share of failures.
_ROW: dict[str, Any] = {"consecutive": 3, "minimum_requests": 1000}


class _Origin:
    """Breaks off ``/broken``, keeps ``/stream`` open until ``end``, serves the rest."""

    def __init__(self) -> None:
        self.end = asyncio.Event()

    async def __call__(self, connection: Connection) -> None:
        while True:
            received = await connection.read_request()
            if received.target == b"/silent":
                return
            if received.target == b"/broken":
                await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
                return
            if received.target == b"/stream":
                await connection.send(_STREAM)
                await self.end.wait()
                await connection.send(b"0\r\n\r\n")
            else:
                await connection.send(response_bytes(body=b"ok"))


async def _broken(gate: Gateway) -> None:
    assert (await fetch(gate.address, target="/billing/broken")).ending is Ending.BROKEN


def _ejected(gate: Gateway) -> bool:
    return gate.balancer.destinations[0].ejected


def _settings(**more: Any) -> dict[str, Any]:
    return {"policy": "first", "ejection": _ROW, "retries": {"attempts": 0}, **more}


async def test_broken_bodies_alone_eject() -> None:
    """Three in a row; each of them had begun with 200."""
    async with (
        ScriptedOrigin(_Origin()) as origin,
        ScriptedOrigin(always(response_bytes(body=b"other"))) as other,
        gateway(origin.url, other.url, **_settings()) as gate,
    ):
        states = []
        for _ in range(3):
            await _broken(gate)
            await until(lambda: gate.in_flight == 0)
            states.append(_ejected(gate))
        one = gate.balancer.destinations[0]
        counts = (one.successes, one.failures)
        after = (await fetch(gate.address, target="/billing/broken")).body

    assert states == [False, False, True]
    assert (counts, after) == ((0, 3), b"other")


@pytest.mark.parametrize("how", ["whole", "left"])
async def test_response_that_ends_well_ends_a_row_of_broken_ones(how: str) -> None:
    """Also a stream whose client leaves: the destination did not fail."""
    async with (
        ScriptedOrigin(_Origin()) as origin,
        gateway(origin.url, f"http://127.0.0.1:{dead_port()}", **_settings()) as gate,
    ):
        for _ in range(3):
            await _broken(gate)
            await _broken(gate)
            if how == "whole":
                await fetch(gate.address, target="/billing/x")
            else:
                async with connect(gate.address) as client:
                    await client.send(request(target="/billing/stream"))
                    await client.read_head()
            await until(lambda: gate.in_flight == 0)
        ejected = _ejected(gate)

    assert not ejected


async def test_open_stream_counts_at_its_beginning() -> None:
    """It ends a row of failures before a response, but no row of broken responses."""
    answers = _Origin()
    async with (
        ScriptedOrigin(answers) as origin,
        gateway(origin.url, f"http://127.0.0.1:{dead_port()}", **_settings()) as gate,
        contextlib.AsyncExitStack() as streams,
    ):
        for _ in range(2):
            for _ in range(2):
                assert (await fetch(gate.address, "POST", "/billing/silent")).status == 502
            stream = await streams.enter_async_context(connect(gate.address))
            await stream.send(request(target="/billing/stream"))
            await stream.read_head()
        before = _ejected(gate)
        for _ in range(3):
            await _broken(gate)
        await until(lambda: _ejected(gate))
        answers.end.set()

    assert not before


async def test_listed_status_that_breaks_off_is_one_failure() -> None:
    """The response is counted by its status already."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 500 No\r\nContent-Length: 10\r\n\r\nhello")

    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, **_settings(ejection={"statuses": [500]})) as gate,
    ):
        await fetch(gate.address, target="/billing/x")
        await until(lambda: gate.in_flight == 0)
        one = gate.balancer.destinations[0]
        counts = (one.successes, one.failures)

    assert counts == (0, 1)
