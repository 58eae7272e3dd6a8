"""A running upstream: the periods of its recent durations, and the memory of its destinations."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Iterable
from typing import Any

import pytest

from fastapi_proxy_di.errors import Failure
from fastapi_proxy_di.observability.counts import GONE, DestinationCounts
from fastapi_proxy_di.observability.histogram import BOUNDS
from fastapi_proxy_di.observability.metrics import PERIOD_SECONDS, Metrics
from fastapi_proxy_di.settings import UpstreamSettings
from fastapi_proxy_di.supervision.events import (
    DestinationDown,
    DestinationDraining,
    DestinationEjected,
    DestinationUp,
    Events,
)
from fastapi_proxy_di.supervision.supervisor import Supervisor
from fastapi_proxy_di.upstream.composition import compose
from fastapi_proxy_di.upstream.control import Control
from fastapi_proxy_di.upstream.running import RunningUpstream
from fastapi_proxy_di.upstream.status import status_of
from tests.support.gateways import billing
from tests.support.virtual_time import run_virtually

MOST_KIB = 16
"""Memory of a destination, with its counts, its history and its place in the pool."""

STATUSES = (200, 201, 204, 206, 301, 302, 304, 400, 401, 403, 404, 409, 422, 429, 500, 502, 503)


class Billing(UpstreamSettings, name="billing"):
    """The upstream of these tests."""


def addresses(count: int) -> list[str]:
    """Give as many addresses of destinations."""
    return [f"http://10.0.{at // 250}.{at % 250}:8080" for at in range(count)]


def observe(counts: DestinationCounts, seconds: Iterable[float]) -> None:
    """Count responses that took so long."""
    for one in seconds:
        counts.first_byte.observe(one)
        counts.series("GET", 200, None).observe(one)


def test_recent_durations_end_after_two_periods() -> None:
    """Each period begins for all destinations, with other tasks in between."""

    async def counts() -> list[int]:
        running = compose(Billing(destinations=addresses(3)))
        await running.start()
        found = []
        for one in running.metrics.all():
            observe(one, (0.1, 0.2))
        running.metrics.requests += 6
        for _ in range(3):
            found.append(sum(one.recent()[0].count for one in running.metrics.all()))
            assert running.metrics.recent().ended == found[-1]
            await asyncio.sleep(PERIOD_SECONDS + 1)
        await running.aclose()
        return found

    assert run_virtually(counts()) == [6, 6, 0]


def test_new_period_lets_other_tasks_run_between_destinations() -> None:
    """A thousand destinations block the loop for no longer than one."""

    async def marked_at_once() -> int:
        running = compose(Billing(destinations=addresses(50)))
        await running.start()
        for one in running.metrics.all():
            observe(one, (0.1,))
        await asyncio.sleep(PERIOD_SECONDS + 1)  # the second period forgets the durations
        left, most = 50, 0
        while left:
            await asyncio.sleep(0 if left < 50 else 0.5)
            now = sum(one.recent()[0].count for one in running.metrics.all())
            left, most = now, max(most, left - now)
        await running.aclose()
        return most

    assert run_virtually(marked_at_once()) < 10


def test_counts_of_removed_destinations_are_gone_after_an_hour(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The running upstream moves them; recent durations are those of one to two minutes."""

    async def run() -> None:
        running = compose(billing("http://a", "http://b"))
        metrics = running.metrics
        monkeypatch.setattr(metrics, "_clock", asyncio.get_running_loop().time)
        await running.start()
        counts = metrics.of(running.pool.destinations[0])
        counts.first_byte.observe(0.1)
        Control(running).replace_destinations(["http://a"])
        await asyncio.sleep(90)
        assert counts.recent()[0].count == 1
        await asyncio.sleep(90)
        assert counts.recent()[0].count == 0
        assert [one.url for one in metrics.all()] == ["http://a", "http://b"]
        await asyncio.sleep(3600)
        assert [one.url for one in metrics.all()] == ["http://a", GONE]
        await running.aclose()

    run_virtually(run())


def fill(running: RunningUpstream) -> None:
    """Count everything that there is to count, often, for each destination."""
    for one in running.pool.destinations:
        for kind in (DestinationDown, DestinationEjected, DestinationDraining, DestinationUp):
            running.changes.listen(kind("billing", one.url))
        counts = running.metrics.of(one)
        for failure in Failure:
            counts.failures[failure.value] = counts.retries[failure.value] = 1000
            counts.series("GET", None, failure.value)
        for status in STATUSES:
            for method in ("GET", "POST", "DELETE"):
                counts.series(method, status, None)
        for reason in ("connect", "timeout", "status", "latency", "share"):
            counts.ejections[reason] = counts.tunnels[reason] = 1000
        for histogram in (counts.first_byte, *counts.durations.values()):
            for seconds in (*BOUNDS, 20.0):
                histogram.observe(seconds)
            histogram.buckets[0] += 1000
        counts.attempts = 100_000
        counts.mark()
        counts.attempts += 100_000
        counts.mark()


@pytest.mark.parametrize("filled", [False, True])
def test_destination_needs_little_memory(filled: bool) -> None:
    """Before its first request, and after responses and failures of all kinds."""

    async def kib(destinations: int) -> float:
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        running = compose(Billing(destinations=addresses(destinations)))
        if filled:
            fill(running)
        status_of(running)
        gc.collect()
        used = tracemalloc.get_traced_memory()[0] - before
        await running.aclose()
        return used / 1024

    tracemalloc.start()
    try:
        asyncio.run(kib(1))  # what is made once and stays
        few, many = asyncio.run(kib(10)), asyncio.run(kib(110))
    finally:
        tracemalloc.stop()

    assert (many - few) / 100 <= (MOST_KIB if filled else 5)


class Unmade(UpstreamSettings, name="unmade"):
    """An upstream that cannot be made."""


@pytest.mark.parametrize(
    "setting", [{"policy": "no_such_module:Policy"}, {"tls": {"ca_file": "/no/such/file"}}]
)
async def test_upstream_that_cannot_be_made_leaves_nothing(setting: dict[str, Any]) -> None:
    """No listener, no timer and no source of metrics keeps a part of the upstream alive."""
    events = Events()

    with pytest.raises(ValueError, match="|".join(setting)):
        compose(Unmade(destinations=["https://127.0.0.1:1"], **setting), events=events)

    gc.collect()
    kept = [one for one in gc.get_objects() if isinstance(one, Supervisor | Metrics)]
    names = {one.pool.name if isinstance(one, Supervisor) else one.upstream for one in kept}
    assert "unmade" not in names
