"""Limits change while requests are in flight and in the queue."""

from __future__ import annotations

import asyncio

import pytest

from fastapi_proxy_di.settings import DestinationSettings
from tests.support.gateways import billing, gateway, until
from tests.support.held import Holding, get, holding, statuses
from tests.support.origins import ScriptedOrigin

pytestmark = pytest.mark.e2e


async def test_fewer_places_count_those_that_are_taken() -> None:
    """Two in flight and a new limit of one: the next is refused; a limit of three admits it."""
    async with holding(limits={"max_in_flight": 2}) as held:
        await held.hold(2)
        await held.reload(limits={"max_in_flight": 1})
        refused = await statuses(held.gate, 1)
        await held.reload(limits={"max_in_flight": 3})
        admitted = await statuses(held.gate, 1)
        held.release()
        await asyncio.gather(*held.tasks)
        await held.reload(limits={"max_in_flight": 1})

        assert (refused, admitted) == ([503], [200])
        assert await statuses(held.gate, 2) == [200, 200]
        assert held.gate.balancer._running.admission.in_flight == 0


async def test_first_limit_counts_the_requests_that_began_without() -> None:
    """Two in flight without a limit take both places of a new one, until they end."""
    async with holding() as held:
        await held.hold(2)
        await held.reload(limits={"max_in_flight": 2})
        refused = await statuses(held.gate, 1)
        held.release()
        await asyncio.gather(*held.tasks)

        assert refused == [503]
        assert await statuses(held.gate, 3) == [200, 200, 200]


async def test_first_window_counts_the_requests_before_it() -> None:
    """Two of three requests of the window were sent before there was a limit."""
    async with holding() as held:
        before = await statuses(held.gate, 2)
        await held.reload(max_requests=3)

        assert before + await statuses(held.gate, 2) == [200, 200, 200, 503]


async def test_waiting_requests_go_when_the_limit_does() -> None:
    """Without the limit, or with a higher one, requests leave the queue at once."""
    for limits in ({}, {"max_in_flight": 3, "queue": 1}):
        async with holding(limits={"max_in_flight": 1, "queue": 2, "queue_timeout": 60}) as held:
            await held.hold(1)
            await held.wait(2)
            await held.reload(limits=limits)
            responses = await asyncio.gather(*held.tasks[1:])

            assert [one.status for one in responses] == [200, 200]
            assert held.gate.balancer.status().queued == 0


async def test_waiting_requests_keep_their_turns_without_a_queue() -> None:
    """A queue that the settings drop runs out in order; a new request does not overtake it."""
    script = Holding()
    async with (
        ScriptedOrigin(script) as origin,
        gateway(
            origin.url,
            destinations=[DestinationSettings(url=origin.url, max_in_flight=1)],
            limits={"queue": 2, "queue_timeout": 60},
        ) as gate,
    ):
        held = asyncio.create_task(get(gate, "held"))
        await until(lambda: origin.requests)
        waiting = [asyncio.create_task(get(gate, f"{number}")) for number in range(2)]
        await until(lambda: gate.balancer.status().queued == 2)
        await gate.balancer.reload(
            billing(destinations=[DestinationSettings(url=origin.url, max_in_flight=1)])
        )
        queued = gate.balancer.status().queued
        script.go.set()
        responses = await asyncio.gather(held, *waiting)

        assert queued == 2
        assert [one.status for one in responses] == [200, 200, 200]
        assert gate.balancer.destinations[0]._on_fall is None
