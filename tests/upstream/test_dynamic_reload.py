"""A reload and dynamic destinations: limits, counts, connections and queued requests stay."""

from __future__ import annotations

from typing import Any

import pytest

from fastapi_proxy_di import Balancer, LimitExceeded
from tests.support.gateways import Gateway, until
from tests.support.given import Held, address_of_lease, given_app, send_to, to
from tests.support.http_client import connect, fetch
from tests.support.origins import ScriptedOrigin
from tests.websocket.gateways import serving

pytestmark = pytest.mark.e2e


async def ask(gateway: Gateway, address: str) -> int:
    """Send a GET to an address, and give the status of the response."""
    return (await fetch(gateway.address, target="/billing/x", headers=to(address))).status


async def reload(balancer: Balancer, times: int = 1, **fields: Any) -> None:
    """Reload an upstream, with some fields of its settings changed."""
    for _ in range(times):
        values = {**balancer.settings.model_dump(exclude_unset=True), **fields}
        await balancer.reload(type(balancer.settings)(**values))


async def test_bound_of_addresses_holds_over_reloads() -> None:
    """Two leases that are held stay the two that there may be."""
    async with serving(given_app(limits={"dynamic_destinations": 2})) as gateway:
        balancer = gateway.balancer
        async with (
            balancer.lease(destination="http://127.0.0.2:1"),
            balancer.lease(destination="http://127.0.0.3:1"),
        ):
            await reload(balancer, times=3)
            with pytest.raises(LimitExceeded):
                await address_of_lease(balancer, "http://127.0.0.4:1")
            assert balancer.status().dynamic_destinations == 2


async def test_limits_of_requests_hold_over_reloads() -> None:
    """One in flight is the one that there may be; those of the window stay counted."""
    held = Held()
    app = given_app(limits={"max_in_flight": 1}, max_requests=3, max_requests_window=3600)
    async with (
        ScriptedOrigin(held) as slow,
        ScriptedOrigin() as other,
        serving(app) as gateway,
        connect(gateway.address) as client,
    ):
        await send_to(client, slow.url)
        await until(lambda: slow.requests)
        await reload(gateway.balancer, times=2)
        assert await ask(gateway, other.url) == 503
        held.release.set()
        assert (await client.read_response("GET")).status == 200
        statuses = []
        for _ in range(3):
            await reload(gateway.balancer)
            statuses.append(await ask(gateway, other.url))

    assert statuses == [200, 200, 503]


async def test_idle_connection_stays() -> None:
    """Whether nothing changes or what is not about connections."""
    async with ScriptedOrigin() as origin, serving(given_app()) as gateway:
        await ask(gateway, origin.url)
        await reload(gateway.balancer)
        await reload(gateway.balancer, response_headers={"X-Own": "own"})
        reply = await fetch(gateway.address, target="/billing/x", headers=to(origin.url))

    assert reply.one(b"x-own") == b"own"
    assert (len(origin.requests), origin.connections) == (2, 1)


async def test_queued_request_gets_the_place_that_becomes_free() -> None:
    """It began by the former rules, like the request that it waits for."""
    held = Held()
    app = given_app(limits={"max_in_flight": 1, "queue": 5, "queue_timeout": 60})
    async with (
        ScriptedOrigin(held) as slow,
        ScriptedOrigin() as other,
        serving(app) as gateway,
        connect(gateway.address) as first,
        connect(gateway.address) as second,
    ):
        await send_to(first, slow.url)
        await until(lambda: slow.requests)
        await send_to(second, other.url)
        await until(lambda: gateway.balancer.status().queued == 1)
        await reload(gateway.balancer)
        assert gateway.balancer.status().queued == 1
        held.release.set()
        statuses = [(await one.read_response("GET")).status for one in (first, second)]

    assert statuses == [200, 200]


async def test_limit_that_a_reload_sets_counts_what_is_in_flight() -> None:
    """Requests that began without any limit have places as well."""
    held = Held()
    async with (
        ScriptedOrigin(held) as slow,
        ScriptedOrigin() as other,
        serving(given_app()) as gateway,
        connect(gateway.address) as client,
    ):
        await send_to(client, slow.url)
        await until(lambda: slow.requests)
        await reload(gateway.balancer, limits={"max_in_flight": 1})
        full = await ask(gateway, other.url)
        held.release.set()
        await client.read_response("GET")
        free = await ask(gateway, other.url)

    assert (full, free) == (503, 200)


async def test_connection_to_what_is_no_longer_allowed_is_closed() -> None:
    """Connections of the former allowance serve no later request."""
    async with (
        ScriptedOrigin() as origin,
        serving(given_app(origins=["http://localhost:*"])) as gateway,
    ):
        url = f"http://localhost:{origin.port}"
        assert await ask(gateway, url) == 200
        narrowed = {"origins": ["http://localhost:*"], "networks": ["10.0.0.0/8"]}
        await reload(gateway.balancer, allowed_destinations=narrowed)
        assert await ask(gateway, url) == 502
        none: dict[str, Any] = {"allowed_destinations": {}, "destinations": ["http://127.0.0.1:1"]}
        await reload(gateway.balancer, **none)
        assert gateway.balancer.status().dynamic_destinations == 0

    assert len(origin.requests) == 1


async def test_first_window_counts_the_requests_before_it() -> None:
    """Two of three requests of the window were sent to addresses before there was a limit."""
    app = given_app(max_requests_window=3600)
    async with ScriptedOrigin() as one, ScriptedOrigin() as two, serving(app) as gateway:
        before = [await ask(gateway, origin.url) for origin in (one, two)]
        await reload(gateway.balancer, max_requests=3)
        after = [await ask(gateway, one.url) for _ in range(2)]

    assert before + after == [200, 200, 200, 503]


async def test_first_window_does_not_count_those_of_earlier_ones() -> None:
    """The window turns without a limit too."""
    async with (
        ScriptedOrigin() as origin,
        serving(given_app(max_requests_window=0.05)) as gateway,
    ):
        dynamic = gateway.balancer._running.dynamic
        assert dynamic is not None
        for _ in range(3):
            await ask(gateway, origin.url)
        await until(lambda: not dynamic._supervisor.requests_in_window)
        await reload(gateway.balancer, max_requests=1, max_requests_window=3600)
        statuses = [await ask(gateway, origin.url) for _ in range(2)]

    assert statuses == [200, 503]
