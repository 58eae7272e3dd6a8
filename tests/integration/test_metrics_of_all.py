"""The metrics of all processes that share a store, at one scrape target."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics

from fastapi_proxy_di import metrics_router, proxy_router
from fastapi_proxy_di.observability.workers import warn_of_local_sums
from tests.cluster.shared_gateways import A, B, shared_gateway, shared_gateways
from tests.integration.status_page.gateway import UP
from tests.support.gateways import Gateway
from tests.support.http_client import fetch
from tests.support.redis_servers import RedisServer

Samples = dict[tuple[str, ...], float]
ATTEMPTS = ("proxy_attempts_total", A, "billing")
DURATIONS = "http_client_request_duration_seconds"


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A redis-server."""
    with RedisServer() as server:
        yield server


async def scrape(gateway: Gateway) -> Samples:
    """Give the samples by name and values of labels; none if the response is 503."""
    accept = [(b"accept", b"application/openmetrics-text;version=1.0.0")]
    response = await fetch(gateway.address, target="/metrics", headers=accept)
    if response.status == 503:
        assert "store" in response.json()["detail"]
        return {}
    assert response.status == 200
    families = read_openmetrics(response.body.decode())  # type: ignore[no-untyped-call]
    found = [one for family in families for one in family.samples]
    assert not any("process" in one.labels for one in found)
    return {
        (one.name, *(one.labels[key] for key in sorted(one.labels))): one.value for one in found
    }


async def scraped(gateway: Gateway, true: Callable[[Samples], bool], seconds: float = 5) -> Samples:
    """Scrape until something is true."""
    end = time.monotonic() + seconds
    while True:
        found = await scrape(gateway)
        if true(found):
            return found
        assert time.monotonic() < end, found
        await asyncio.sleep(0.02)


async def send(gateway: Gateway, number: int) -> None:
    """Send requests to the destination that responds, and one for which there is none."""
    gateway.balancer.replace_destinations([A])
    for n in range(number):
        assert (await fetch(gateway.address, target=f"/billing/{n}?{n}")).status == 200
    gateway.balancer.replace_destinations([A, B])


@pytest.mark.e2e
@pytest.mark.slow
async def test_sums_are_those_of_all_processes(server: RedisServer) -> None:
    """Counters, histograms and gauges; processes that ended stay, and no client makes a series."""
    async with shared_gateways(server.url, 2) as (one, two):
        async with shared_gateway(server.url) as three:
            for number, gateway in enumerate((one, two, three), 2):
                await send(gateway, number)
            found = await scraped(two, lambda samples: samples.get(ATTEMPTS) == 9)
            assert found[f"{DURATIONS}_count", "", "GET", "200", "billing", A[7:], ""] == 9
            assert found[f"{DURATIONS}_bucket", "", "GET", "200", "+Inf", "billing", A[7:], ""] == 9
            assert found["proxy_destination_count", "available", "billing"] == 6
            names = {key for key in found if not key[0].startswith(DURATIONS)}
            await send(three, 1)
        await scraped(two, lambda samples: samples.get(ATTEMPTS) == 10)
        living = ("proxy_destination_count", "available", "billing")
        await scraped(one, lambda samples: samples[living] == 4)
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            found = await scrape(one)
            assert found[ATTEMPTS] == 10
            assert {key for key in found if not key[0].startswith(DURATIONS)} == names


@pytest.mark.e2e
@pytest.mark.slow
async def test_scrape_fails_while_the_store_has_no_sums(server: RedisServer) -> None:
    """Instead of falling: while it is lost, and until all have reported to an empty one."""
    async with shared_gateways(server.url, 2) as (one, two):
        await send(one, 3)
        await send(two, 4)
        await scraped(one, lambda samples: samples.get(ATTEMPTS) == 7)
        server.kill()
        await scraped(one, lambda samples: samples == {})
        server.start()
        found = await scraped(one, bool, 10)
        assert found[ATTEMPTS] == 7


def test_sums_without_a_store_are_those_of_the_process(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Which is logged once where several workers would each have a part of them."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", UP)
    app = FastAPI()
    app.include_router(proxy_router("billing"), prefix="/billing")
    app.include_router(metrics_router(scope="cluster"))
    monkeypatch.setattr("fastapi_proxy_di.observability.workers._workers", lambda: 4)
    warn_of_local_sums.cache_clear()
    with TestClient(app) as client:
        client.get("/billing/x")
        text = [client.get("/metrics").text for _ in range(2)][1]
    warn_of_local_sums.cache_clear()

    assert f'proxy_attempts_total{{proxy_destination="{UP}",proxy_upstream="billing"}} 1.0' in text
    assert "process=" not in text
    assert caplog.text.count("share no store") == 1


def test_scope_is_one_of_two() -> None:
    """Any other is refused when the router is made."""
    with pytest.raises(ValueError, match="'all' is neither 'process' nor 'cluster'"):
        metrics_router(scope="all")  # type: ignore[arg-type]
