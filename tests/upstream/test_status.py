"""The state of an upstream as data, on real sockets."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from tests.support.gateways import gateway, until
from tests.support.http_client import fetch
from tests.support.origins import Connection, ScriptedOrigin, always, response_bytes
from tests.support.servers import dead_port

pytestmark = pytest.mark.e2e


class Holding:
    """Responds when it may."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, connection: Connection) -> None:
        """Respond to one request."""
        await connection.read_request()
        await self.go.wait()
        await connection.send(response_bytes())


async def test_removed_destination_is_shown_while_it_is_busy() -> None:
    """With the time of its removal; then it is gone."""
    script = Holding()
    async with (
        ScriptedOrigin(script) as goes,
        ScriptedOrigin(always(response_bytes())) as comes,
        gateway(goes.url) as gate,
    ):
        held = asyncio.create_task(fetch(gate.address, target="/billing/x"))
        await until(lambda: gate.in_flight == 1)
        before = datetime.now(UTC)
        gate.balancer.replace_destinations([comes.url])
        (removed,) = gate.balancer.status().removed
        script.go.set()
        await held
        await until(lambda: not gate.balancer.status().removed)

        assert (removed.url, removed.in_flight, removed.available) == (goes.url, 1, False)
        assert removed.reason == "removed"
        assert removed.since >= before
        assert [one.url for one in gate.balancer.status().destinations] == [comes.url]


async def test_queue_and_refusals() -> None:
    """The requests that wait, and how many each limit has refused."""
    script = Holding()
    limits = {"max_in_flight": 1, "queue": 1}
    async with ScriptedOrigin(script) as origin, gateway(origin.url, limits=limits) as gate:
        held = [asyncio.create_task(fetch(gate.address, target="/billing/x")) for _ in range(2)]
        await until(lambda: gate.balancer.status().queued == 1)
        refused = await fetch(gate.address, target="/billing/x")
        status = gate.balancer.status()
        script.go.set()
        await asyncio.gather(*held)

        assert refused.status == 503
        assert (status.in_flight, status.queued) == (1, 1)
        assert status.refused == {"limits.max_in_flight": 1}
        assert status.limits == {"limits.max_in_flight": 1, "limits.queue": 1}
        after = gate.balancer.status()
        assert after.queued == 0
        assert (after.recent_requests, after.recent_refused) == (3, 1)
        assert (after.recent_attempts, after.recent_failed_attempts) == (2, 0)


async def test_recent_attempts_and_failures() -> None:
    """Of each destination and of all; a response of any status is no failed attempt."""
    async with (
        ScriptedOrigin(always(response_bytes(status=500))) as responds,
        gateway(f"http://127.0.0.1:{dead_port()}", responds.url, policy="first") as gate,
    ):
        for _ in range(2):
            await fetch(gate.address, target="/billing/x")
        status = gate.balancer.status()

        bad, good = status.destinations
        assert (good.recent_attempts, good.recent_failed_attempts) == (2, 0)
        assert (bad.recent_attempts, bad.recent_failed_attempts) == (2, 2)
        assert (status.recent_attempts, status.recent_failed_attempts) == (4, 2)


async def test_retries_left() -> None:
    """Each counted retry takes one of the budget."""
    retries = {"statuses": [503], "attempts": 1, "budget_minimum": 10, "budget_share": 0}
    async with (
        ScriptedOrigin(always(response_bytes(status=503))) as origin,
        gateway(origin.url, retries=retries) as gate,
    ):
        before = gate.balancer.status().retries_left
        await fetch(gate.address, target="/billing/x")

        assert (before, gate.balancer.status().retries_left) == (10, 9)
