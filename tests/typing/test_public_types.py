"""The types of the public names. mypy and pyright check this file; pytest runs it."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, assert_type

import httpx
from fastapi import APIRouter, FastAPI
from pydantic import SecretStr
from starlette.requests import Request

from fastapi_proxy_di import (
    AffinitySettings,
    Attempt,
    Balancer,
    Destination,
    Destinations,
    DestinationSettings,
    EjectionSettings,
    Failure,
    HealthSettings,
    NoAvailableDestination,
    ProxiedResponse,
    ProxyError,
    RetrySettings,
    Side,
    Upstream,
    UpstreamSettings,
    UpstreamStatus,
    proxy_lifespan,
    proxy_router,
    upstreams_ready,
)
from fastapi_proxy_di.settings.statuses import StatusCodes
from fastapi_proxy_di.testing import Clock, Received, StandIn, Step, refuse, reply, stand_in


class Billing(UpstreamSettings, name="billing"):
    """Settings declared as in the documentation."""

    destinations: Destinations = ["http://10.0.0.1", DestinationSettings(url="http://10.0.0.2")]
    health: HealthSettings = HealthSettings(interval=5)


def test_types_of_settings() -> None:
    """Fields have plain types; a class is made without arguments."""
    settings = assert_type(Billing(), Billing)

    assert_type(settings.name, str)
    assert_type(settings.destination_settings, tuple[DestinationSettings, ...])
    assert_type(settings.health.interval, float)
    assert_type(settings.retries.attempts, int)
    assert_type(settings.limits.max_in_flight, int | None)


def test_types_of_what_settings_accept() -> None:
    """Codes and secrets are accepted as a user writes them, and read as what they became."""
    retries = RetrySettings(statuses=[502, 503], refused_statuses="429")
    affinity = AffinitySettings(cookie="billing", key="k" * 32)

    assert_type(retries.statuses, StatusCodes)
    assert_type(EjectionSettings(statuses=[502]).statuses, StatusCodes)
    assert_type(affinity.key, SecretStr | None)
    assert retries.statuses == {502, 503}


def test_types_of_mounts_and_dependencies() -> None:
    """Names, classes, instances and upstreams are accepted."""
    app = FastAPI(lifespan=proxy_lifespan)
    upstream = Upstream("billing")

    assert_type(proxy_router("billing"), APIRouter)
    assert_type(proxy_router(Billing), APIRouter)
    assert_type(proxy_router(Billing(), "archive", path="/{upstream}/{path:path}"), APIRouter)
    assert_type(proxy_router(upstream), APIRouter)
    assert_type(upstream.name, str)
    lifespan: AbstractAsyncContextManager[None] = proxy_lifespan(app)
    assert lifespan is not None
    assert callable(upstreams_ready(Billing, Upstream("archive")))


async def test_types_of_a_balancer() -> None:
    """The methods and attributes of a balancer."""
    async with stand_in(FastAPI(), Billing, {"a": reply(b"x")}) as billing:
        balancer = assert_type(await billing.balancer(), Balancer)

        assert_type(balancer.client, httpx.AsyncClient)
        assert_type(balancer.pick(), Destination | None)
        assert_type(balancer.peek(), Destination | None)
        assert_type(balancer.destinations, tuple[Destination, ...])
        assert_type(balancer.available, tuple[Destination, ...])
        assert_type(balancer.status(), UpstreamStatus)
        assert_type(balancer.status().in_flight, int)
        assert_type(balancer.destinations[0].url, str)
        assert_type(balancer.destinations[0].latency_ms, float | None)
        assert_type(balancer.subscribe(print), Callable[[], None])
        async with balancer.lease() as lease:
            assert_type(lease.url, str)


async def forwarded(balancer: Balancer, request: Request) -> None:
    """Call ``forward`` with every kind of header argument."""
    await assert_type(await balancer.forward(request), ProxiedResponse).aclose()
    json = await balancer.forward(request, "/x", additional_headers={"a": "b"}, override_body=[1])
    await json.aclose()
    pairs = await balancer.forward(request, "/x", additional_headers=[(b"a", b"b")], timeout=1)
    await pairs.aclose()


async def test_types_of_forwarding() -> None:
    """The arguments and results of ``forward``."""
    async with StandIn("billing", [reply(), reply(), reply(), refuse()]) as billing:
        balancer = await billing.balancer()
        scope: dict[str, Any] = {
            "type": "http",
            "method": "GET",
            "path": "/",
            "raw_path": b"/",
            "query_string": b"",
            "headers": [],
        }
        await forwarded(balancer, Request(scope))
        try:
            await forwarded(balancer, Request(scope))
        except ProxyError as error:
            assert_type(error.failure, Failure)
            assert_type(error.failure.side, Side)
            assert_type(error.attempts, tuple[Attempt, ...])
            assert_type(error.destination, str | None)
            assert_type(error.status, int)


def test_types_of_errors() -> None:
    """A subclass has the attributes of its base, and its own."""
    error = NoAvailableDestination("none")

    assert_type(error.retry_after, float)
    assert_type(error.upstream, str | None)


def test_types_of_the_test_kit() -> None:
    """Sources, records and the clock."""

    def responds(received: Received) -> Step:
        assert_type(received.body, bytes)
        assert_type(received.headers, httpx.Headers)
        return reply(received.json())

    assert_type(responds(Received("a", "GET", "/", "", httpx.Headers(), b"{}")), Step)
    billing = StandIn("billing", {"a": responds, "b": [refuse(), reply()]}, clock=Clock())

    assert_type(billing.tried, list[str])
    assert_type(billing.received, list[Received])
    assert billing.tried == []
