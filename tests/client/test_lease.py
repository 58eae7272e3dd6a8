"""Leases: a destination for an SDK with its own client, counted like a request."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from fastapi_proxy_di import (
    Balancer,
    Destination,
    LimitExceeded,
    NoAvailableDestination,
    UpstreamConnectError,
    UpstreamTimeout,
)
from fastapi_proxy_di.client.lease import Lease
from fastapi_proxy_di.errors import Failure
from tests.support.gateways import billing, until
from tests.support.origins import ScriptedOrigin

ONE = "http://10.0.0.1:8080"
TWO = "http://10.0.0.2:8080"


class Learner:
    """A policy that records what it observes."""

    name = "learner"

    def __init__(self) -> None:
        self.observed: list[tuple[str, bool]] = []
        self.seconds: list[float] = []

    def pick(self, available: Sequence[Destination], request: object) -> Destination | None:
        return available[0] if available else None

    def observe(self, destination: Destination, seconds: float, failed: bool, now: float) -> None:
        self.observed.append((destination.url, failed))
        self.seconds.append(seconds)


def running(*urls: str, **settings: Any) -> contextlib.AbstractAsyncContextManager[Balancer]:
    """Run the upstream outside any app."""
    return Balancer.from_settings(billing(*(urls or (ONE,)), **settings))


async def hold(balancer: Balancer, release: asyncio.Event) -> str:
    """Hold a lease until ``release`` is set."""
    async with balancer.lease() as lease:
        await release.wait()
        return lease.url


async def test_lease_gives_a_destination_and_counts_it() -> None:
    """It is in flight until the end, and then a success."""
    async with running() as balancer:
        async with balancer.lease() as lease:
            during = (lease.url, lease.destination.in_flight)
        destination = balancer.destinations[0]

    assert during == (ONE, 1)
    assert lease.destination is destination
    assert (destination.in_flight, destination.successes, destination.failures) == (0, 1, 0)


async def test_lease_serves_a_client_of_ones_own() -> None:
    """Another HTTP client uses the address."""
    async with (
        ScriptedOrigin() as origin,
        running(origin.url) as balancer,
        balancer.lease() as lease,
        httpx.AsyncClient(trust_env=False) as client,
    ):
        reply = await client.get(f"{lease.url}/x")
        lease.answered()

    assert (reply.text, origin.request.target) == ("ok", b"/x")


async def test_leases_spread_over_destinations() -> None:
    """Leases count as load for the policy."""
    async with (
        running(ONE, TWO, policy="least_requests") as balancer,
        balancer.lease() as first,
        balancer.lease() as second,
    ):
        urls = {first.url, second.url}

    assert urls == {ONE, TWO}


async def test_lease_with_a_key_sticks_to_its_destination() -> None:
    """The policy ``hash`` keeps a key together, and spreads keys."""

    async def url(key: str | None) -> str:
        async with balancer.lease(key) as lease:
            return lease.url

    async with running(ONE, TWO, policy="hash") as balancer:
        same = {await url("ada") for _ in range(8)}
        spread = {await url(f"user {number}") for number in range(32)}
        keyless = await url(None)

    assert len(same) == 1
    assert spread == {ONE, TWO}
    assert keyless in spread


async def test_lease_that_failed_counts_towards_ejection() -> None:
    """Reported failures eject the destination; two reports of one lease count once."""
    async with running(ONE, TWO, ejection={"consecutive": 2}, policy="first") as balancer:
        for _ in range(2):
            async with balancer.lease() as lease:
                lease.failed(ConnectionError("refused"))
                lease.failed("again")
        ejected = [one.url for one in balancer.destinations if one.ejected_until is not None]
        failures = balancer.destinations[0].failures

    assert (ejected, failures) == ([ONE], 2)


async def test_lease_does_not_count_an_exception_that_is_not_reported() -> None:
    """An exception in the block may be the caller's own."""
    async with running() as balancer:
        with pytest.raises(LookupError):
            async with balancer.lease():
                raise LookupError
        destination = balancer.destinations[0]

    assert (destination.in_flight, destination.successes, destination.failures) == (0, 0, 0)


@pytest.mark.parametrize(
    ("error", "failures"),
    [
        (UpstreamConnectError("refused"), 1),
        (UpstreamTimeout("the caller's", failure=Failure.TOTAL_TIMEOUT), 0),
    ],
)
async def test_lease_counts_failures_of_the_destination(error: Exception, failures: int) -> None:
    """A ``ProxyError`` of another side is not counted."""
    policy = Learner()
    async with running(policy=policy) as balancer:
        async with balancer.lease() as lease:
            lease.failed(error)
        counted = balancer.destinations[0].failures

    assert counted == failures
    assert policy.observed == [(ONE, True)] * failures


@pytest.mark.parametrize(
    ("error", "failures"),
    [
        (UpstreamConnectError("refused"), {"connect": 1}),
        (UpstreamTimeout("the caller's", failure=Failure.TOTAL_TIMEOUT), {}),
        (ConnectionError("refused"), {"lease": 1}),
        ("the SDK says so", {"lease": 1}),
    ],
)
async def test_lease_that_failed_is_a_failed_attempt_in_metrics(
    error: Exception | str, failures: dict[str, int]
) -> None:
    """By a few names, whatever the app reports; no duration is counted, as for other leases."""
    async with running() as balancer:
        async with balancer.lease() as lease:
            lease.failed(error)
            lease.failed("again")
        counts = balancer._running.metrics.of(balancer.destinations[0])

    assert (counts.attempts, counts.failures) == (1, failures)
    assert counts.durations == {}


async def test_failure_of_a_lease_is_not_kept() -> None:
    """Its traceback has the lease, so both would stay until Python's next search for cycles."""

    class Failed(Exception):
        """A failure that can be referred to weakly."""

    async def use() -> weakref.ref[Failed]:
        async with balancer.lease() as lease:
            try:
                raise Failed
            except Failed as error:
                lease.failed(error)
                return weakref.ref(error)

    gc.disable()
    try:
        async with running() as balancer:
            assert (await use())() is None
    finally:
        gc.enable()


async def test_lease_gives_a_learning_policy_the_time_to_the_response(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``answered`` ends the latency; without it the end of the lease does."""
    now = 1000.0
    for module in ("client.lease", "forwarding.outcomes"):
        monkeypatch.setattr(f"fastapi_proxy_di.{module}.monotonic", lambda: now)
    policy = Learner()
    async with running(policy=policy) as balancer:
        async with balancer.lease() as lease:
            now += 2
            lease.answered()
            now += 30
        async with balancer.lease():
            now += 5

    assert policy.observed == [(ONE, False), (ONE, False)]
    assert policy.seconds == [2, 5]


async def test_lease_after_a_response_that_broke_counts_the_failure_only_for_health() -> None:
    """The latency was observed already; the failure still counts."""
    policy = Learner()
    async with running(policy=policy) as balancer:
        async with balancer.lease() as lease:
            lease.answered()
            lease.failed("stream broke")
        failures = balancer.destinations[0].failures

    assert (failures, policy.observed) == (1, [(ONE, False)])


async def test_lease_without_a_destination_raises() -> None:
    """No destination and no room have errors of their own."""
    async with running(max_requests=1, max_requests_window=60) as balancer:
        await balancer.drain(ONE)
        with pytest.raises(NoAvailableDestination) as nothing:
            await balancer.lease().__aenter__()
        with pytest.raises(LimitExceeded):
            await balancer.lease().__aenter__()

    assert not isinstance(nothing.value, LimitExceeded)


async def test_lease_takes_a_place_of_the_limits() -> None:
    """In-flight limits count leases, and the queue lets them wait."""
    limits = {"max_in_flight": 1, "queue": 1, "queue_timeout": 30}
    release = asyncio.Event()
    async with running(limits=limits) as balancer:
        first = asyncio.create_task(hold(balancer, release))
        await until(lambda: balancer.status().in_flight)
        second = asyncio.create_task(hold(balancer, release))
        await until(lambda: balancer.status().queued)
        with pytest.raises(LimitExceeded):
            await hold(balancer, release)
        release.set()
        urls = [await first, await second]
        left = balancer.status().in_flight

    assert (urls, left) == ([ONE, ONE], 0)


async def test_lease_that_is_cancelled_gives_its_place_back() -> None:
    """In the queue and in the block."""
    limits = {"max_in_flight": 1, "queue": 1, "queue_timeout": 30}
    release = asyncio.Event()
    async with running(limits=limits) as balancer:
        first = asyncio.create_task(hold(balancer, release))
        await until(lambda: balancer.status().in_flight)
        second = asyncio.create_task(hold(balancer, release))
        await until(lambda: balancer.status().queued)
        for task in (second, first):
            task.cancel()
            await asyncio.wait((task,))
        status = balancer.status()
        async with balancer.lease() as lease:
            assert isinstance(lease, Lease)

    assert (status.in_flight, status.queued) == (0, 0)
