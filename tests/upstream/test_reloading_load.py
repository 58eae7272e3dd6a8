"""A thousand reloads under load."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from typing import Any
from weakref import ref

import pytest

from fastapi_proxy_di.settings import DestinationSettings, UpstreamSettings
from fastapi_proxy_di.upstream.balancer import Balancer
from fastapi_proxy_di.upstream.composition import compose
from tests.support.gateways import billing, gateway
from tests.support.given import chosen, to
from tests.support.held import Holding
from tests.support.http_client import fetch
from tests.support.origins import Headers, ScriptedOrigin

pytestmark = pytest.mark.e2e


@pytest.mark.slow
async def test_thousand_reloads_under_load() -> None:
    """No GET fails, connections stay, and the rules of earlier settings are gone.

    Half of the GETs go to dynamic destinations.
    """
    async with (
        ScriptedOrigin(Holding()) as one,
        ScriptedOrigin(Holding()) as two,
        ScriptedOrigin() as given,
        gateway(
            one.url,
            two.url,
            router={"options": chosen},
            allowed_destinations={"networks": ["127.0.0.0/8"]},
        ) as gate,
    ):
        ended = False
        responses: list[int] = []

        async def ask(headers: Headers) -> None:
            while not ended:
                reply = await fetch(gate.address, target="/billing/x", headers=headers)
                responses.append(reply.status)

        headers: tuple[Headers, Headers] = ([], to(given.url))
        clients = [asyncio.create_task(ask(headers[number % 2])) for number in range(4)]
        kinds = [kind(number, one.url, two.url) for number in range(30)]
        await _reload_often(gate.balancer, kinds, 100)
        journey = ref(gate.balancer._running.rules.journey)
        await _reload_often(gate.balancer, kinds, 900)
        ended = True
        await asyncio.gather(*clients)
        gc.collect()

        assert set(responses) == {200}
        assert len(responses) > 100
        assert journey() is None
        assert one.connections <= 8
        assert len(given.requests) > 50
        assert len(gate.balancer._running._tasks) < 5


@pytest.mark.slow
async def test_memory_does_not_grow() -> None:
    """A thousand reloads leave nothing behind, whatever they change."""
    kinds = [kind(number, "http://127.0.0.1:1", "http://127.0.0.1:2") for number in range(30)]
    running = compose(kinds[0])
    await _reload_often(Balancer(running), kinds, 100)
    gc.collect()
    tracemalloc.start()
    try:
        await _reload_often(Balancer(running), kinds, 100)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        await _reload_often(Balancer(running), kinds, 900)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
        await running.aclose()

    assert grown < 50_000


def kind(number: int, one: str, two: str) -> UpstreamSettings:
    """Give one of some settings: other limits, timeouts, policies, headers and destinations."""
    weighted: Any = DestinationSettings(url=one, weight=2)
    return billing(
        one if number % 2 else weighted,
        two,
        policy=("random", "round_robin", "least_requests")[number % 3],
        timeouts={"total": 10 + number % 7},
        limits={"max_in_flight": 50 + number % 2, "queue": number % 5} if number % 3 else {},
        ejection={"window": 30 + number % 3},
        response_headers={"x-number": str(number)},
        allowed_destinations={"networks": ["127.0.0.0/8", f"10.{number % 2}.0.0/16"]},
    )


async def _reload_often(balancer: Balancer, kinds: list[UpstreamSettings], times: int) -> None:
    for number in range(times):
        await balancer.reload(kinds[number % len(kinds)])
