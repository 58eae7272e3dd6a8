"""Full destinations: 503 with Retry-After, and no failure is counted."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.gateways import gateway, until
from tests.support.http_client import Ending, fetch
from tests.support.origins import Connection, ScriptedOrigin, response_bytes

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("middlewares", [0, 1, 2])
async def test_destinations_that_are_all_full_give_503(middlewares: int) -> None:
    """Each is at its own limit."""
    release = asyncio.Event()

    async def script(connection: Connection) -> None:
        while True:
            await connection.read_request()
            await release.wait()
            await connection.send(response_bytes(body=b"ok"))

    async with (
        ScriptedOrigin(script) as one,
        ScriptedOrigin(script) as two,
        gateway(
            destinations=[{"url": origin.url, "max_in_flight": 1} for origin in (one, two)],
            middlewares=middlewares,
        ) as gate,
    ):
        served = [asyncio.create_task(fetch(gate.address, target="/billing/x")) for _ in range(2)]
        await until(lambda: one.requests and two.requests, 10)
        refused = await fetch(gate.address, target="/billing/x")
        failures = [destination.failures for destination in gate.balancer.destinations]
        release.set()
        statuses = [(await task).status for task in served]
        after = await fetch(gate.address, target="/billing/x")

    assert (refused.status, refused.ending) == (503, Ending.LENGTH)
    assert int(refused.one(b"retry-after") or 0) >= 1
    assert refused.one(b"content-type") == b"application/problem+json"
    assert failures == [0, 0]
    assert (statuses, after.status) == ([200, 200], 200)
