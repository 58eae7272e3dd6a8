"""Gateways of one app with real destinations: one of them probes, and all eject what two see."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

import pytest

from fastapi_proxy_di import DestinationEjected, Event
from tests.cluster.shared_gateways import shared_gateway
from tests.support.gateways import Gateway, until
from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin
from tests.support.redis_servers import RedisServer

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

INTERVAL = 0.4


def probes(origins: list[ScriptedOrigin]) -> int:
    """Give how many probes all origins have got."""
    return sum(one.target == b"/health" for origin in origins for one in origin.requests)


async def fail_at(gateway: Gateway, url: str) -> None:
    """Send requests until the gateway has ejected a destination; none of them fails."""

    def ejected() -> bool:
        return any(one.ejected for one in gateway.balancer.destinations if one.url == url)

    async with asyncio.timeout(10):
        while not ejected():
            assert (await fetch(gateway.address, target="/billing/x")).status == 200


async def test_gateways_probe_as_one_and_eject_together(server: RedisServer) -> None:
    """Probes are those of one gateway; all eject what two of them see."""
    async with AsyncExitStack() as stack:
        failing = await stack.enter_async_context(AsyncExitStack())
        origins = [await failing.enter_async_context(ScriptedOrigin())]
        origins += [await stack.enter_async_context(ScriptedOrigin()) for _ in range(2)]
        urls = [f"http://{origin.authority}" for origin in origins]
        gateways = [
            await stack.enter_async_context(
                shared_gateway(
                    server.url,
                    destinations=urls,
                    policy="round_robin",
                    health={"path": "/health", "interval": INTERVAL, "fall": 1000},
                )
            )
            for _ in range(4)
        ]
        began, before = time.monotonic(), probes(origins)
        await asyncio.sleep(5 * INTERVAL)
        intervals = (time.monotonic() - began) / INTERVAL
        assert 3 * (intervals - 2) <= probes(origins) - before <= 3 * (intervals + 1)

        for gateway in gateways:
            for _ in range(3):
                assert (await fetch(gateway.address, target="/billing/x")).status == 200
        await asyncio.sleep(1.5)  # each has told where it sends requests
        told: list[Event] = []
        gateways[3].balancer.subscribe(told.append)
        await failing.aclose()
        await fail_at(gateways[0], urls[0])
        await asyncio.sleep(0.5)
        assert not any(one.ejected for one in gateways[3].balancer.destinations)
        await fail_at(gateways[1], urls[0])

        await until(lambda: all(gate.balancer.destinations[0].ejected for gate in gateways))
        (event,) = told
        assert isinstance(event, DestinationEjected)
        assert event.reason.startswith("by votes of 2 processes: connect")
