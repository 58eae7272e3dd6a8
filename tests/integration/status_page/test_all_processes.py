"""The status page and its data show all processes that share a store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient

from fastapi_proxy_di import (
    DestinationTotalsReport,
    ProcessReport,
    ProcessUpstreamReport,
    StatusReport,
    TotalsReport,
    status_router,
)
from fastapi_proxy_di.integration.status_page.all_processes import (
    Asked,
    link_to_totals,
    process_list,
    totals_section,
)
from tests.cluster.shared_gateways import A, B, shared_gateway, shared_gateways
from tests.integration.status_page.gateway import UP, gateway
from tests.support.gateways import Gateway
from tests.support.http_client import fetch
from tests.support.redis_servers import RedisServer

HOSTILE = "<img src=x onerror=\"window.hit='yes'\">"
NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A redis-server."""
    with RedisServer() as server:
        yield server


def process(name: str, **changes: Any) -> ProcessReport:
    """Make the report of a process."""
    counts = ProcessUpstreamReport(destinations=3, available=2, in_flight=1)
    given = {"alive": True, "last_beat": NOON, "version": "1.2", "upstreams": {"billing": counts}}
    return ProcessReport(process=name, **{**given, **changes})


def test_processes_are_named() -> None:
    """Those that went missing in the summary too, but not all of a thousand."""
    text = process_list([process("web:1", alive=False), process("web:2"), process("web:3")])
    assert "2 processes share the store" in text
    assert "1 went missing: web:1<" in text
    assert "web:1 went missing</strong>, last seen <time" in text
    assert "web:2, version 1.2; billing: 2 of 3 available, 1 in flight" in text

    many = process_list([process(f"web:{n}", alive=False) for n in range(1000)])
    assert "1000 went missing: web:0, " in many
    assert many.partition("</summary>")[0].count("web:") == 10
    assert "The store is lost" in process_list([])
    assert "share" not in process_list(None)


def test_what_comes_from_the_store_is_escaped() -> None:
    """Names of processes, versions, upstreams, addresses, states and reasons."""
    counts = ProcessUpstreamReport(destinations=1, available=1, in_flight=0)
    given = {"version": HOSTILE, "upstreams": {HOSTILE: counts}}
    hostile = DestinationTotalsReport(
        url=HOSTILE,
        states={HOSTILE: 1},
        in_flight=0,
        attempts=1,
        failed_attempts={HOSTILE: 1},
        error_statuses={HOSTILE: 1},
        ejections=0,
        first_byte_ms=None,
        duration_ms=None,
    )
    totals = TotalsReport(
        upstream=HOSTILE,
        requests=1,
        refused={HOSTILE: 1},
        in_flight=0,
        tunnels=0,
        destinations=(hostile,),
    )
    asked = Asked([("key", HOSTILE)], HOSTILE, totals)
    pages = (
        process_list([process(HOSTILE, **given), process(HOSTILE, alive=False, **given)]),
        totals_section(asked),
        link_to_totals(HOSTILE, asked),
        link_to_totals("billing", asked),
    )
    for page in pages:
        assert "&lt;img" in page or "%3Cimg" in page
        assert "<img" not in page
        assert 'onerror="' not in page


def test_link_keeps_the_query() -> None:
    """A key that the guard reads stays; the upstream is chosen, changed or left."""
    query = [("key", "a b&c"), ("all", "archive")]
    assert 'href="?key=a+b%26c&amp;all=billing"' in link_to_totals("billing", Asked(query))
    chosen = link_to_totals("archive", Asked(query, "archive"))
    assert 'href="?key=a+b%26c"' in chosen
    assert ">only this process<" in chosen


def test_without_a_store_nothing_of_all_processes_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """And its data is not there."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", UP)
    with TestClient(gateway(status_router(unguarded=True))) as client:
        page = client.get("/upstreams/?all=billing").text
        status = client.get("/upstreams/status.json").json()
        totals = client.get("/upstreams/billing/totals.json")
    assert "all processes" not in page
    assert "in all processes" not in page
    assert "each has its own state only" in page
    assert status["processes"] is None
    assert totals.status_code == 404
    assert "cluster.store" in totals.json()["detail"]


async def get(gateway: Gateway, path: str) -> Any:
    """Give a response of the status router."""
    return await fetch(gateway.address, target=f"/upstreams/{path}")


async def reported(gateway: Gateway, true: Callable[[TotalsReport], bool]) -> TotalsReport:
    """Read the totals until something is true."""
    end = time.monotonic() + 5
    while True:
        response = await get(gateway, "billing/totals.json")
        if response.status == 200:
            found = TotalsReport.model_validate_json(response.body)
            if true(found):
                return found
        assert time.monotonic() < end, response.body
        await asyncio.sleep(0.02)


@pytest.mark.e2e
@pytest.mark.slow
async def test_page_and_data_have_the_totals_of_all(server: RedisServer) -> None:
    """Of one upstream at a time; while the store is lost the page says so."""
    async with shared_gateways(server.url, 2) as (one, two):
        async with shared_gateway(server.url):
            status = StatusReport.model_validate_json((await get(one, "status.json")).body)
            assert len(status.processes or ()) == 3
        _ = two.balancer.drain(B)
        for shared in (one, two):
            for _ in range(4):
                assert (await fetch(shared.address, target="/billing/x")).status == 200
        report = await reported(one, lambda all_: all_.requests == 8)
        first, second = report.destinations
        assert (first.url, second.url) == (A, B)
        assert first.attempts == 8
        assert first.first_byte_ms is not None
        assert first.states["available"] >= 2
        assert second.states == {"draining": 2}

        page = (await get(one, "?all=billing")).body.decode()
        assert "billing in all processes" in page
        assert '<strong class="draining">draining</strong> in 2' in page
        assert "billing in all processes" not in (await get(one, "?all=other")).body.decode()

        status = StatusReport.model_validate_json((await get(one, "status.json")).body)
        assert [each.alive for each in status.processes or ()] == [True, True]
        assert (await get(one, "other/totals.json")).status == 404

        server.kill()
        assert (await get(one, "billing/totals.json")).status == 503
        page = (await get(one, "?all=billing")).body.decode()
        assert "The store is lost: only this process is known" in page
        assert "does not have the totals at the moment" in page
        status = StatusReport.model_validate_json((await get(one, "status.json")).body)
        assert status.processes == ()
