"""Full destinations: 503 with Retry-After, and no failure is counted."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from fastapi_proxy_di.supervision.events import Event, LimitHit
from tests.support.gateways import gateway, until
from tests.support.http_client import Ending, connect, fetch, request
from tests.support.origins import Connection, ScriptedOrigin, response_bytes

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("middlewares", [0, 1, 2])
async def test_destinations_that_are_all_full_give_503(middlewares: int) -> None:
    """Each is at its own limit."""
    release = asyncio.Event()

    async def script(connection: Connection) -> None:
        while True:
            await connection.read_request()
            await release.wait()
            await connection.send(response_bytes(body=b"ok"))

    async with (
        ScriptedOrigin(script) as one,
        ScriptedOrigin(script) as two,
        gateway(
            destinations=[{"url": origin.url, "max_in_flight": 1} for origin in (one, two)],
            middlewares=middlewares,
        ) as gate,
    ):
        served = [asyncio.create_task(fetch(gate.address, target="/billing/x")) for _ in range(2)]
        await until(lambda: one.requests and two.requests, 10)
        refused = await fetch(gate.address, target="/billing/x")
        failures = [destination.failures for destination in gate.balancer.destinations]
        release.set()
        statuses = [(await task).status for task in served]
        after = await fetch(gate.address, target="/billing/x")

    assert (refused.status, refused.ending) == (503, Ending.LENGTH)
    assert int(refused.one(b"retry-after") or 0) >= 1
    assert refused.one(b"content-type") == b"application/problem+json"
    assert failures == [0, 0]
    assert (statuses, after.status) == ([200, 200], 200)


async def test_queue_waits_for_a_place_at_any_destination() -> None:
    """Six requests for two places all get their response, in order of arrival."""
    release = asyncio.Semaphore(0)

    async def script(connection: Connection) -> None:
        while True:
            received = await connection.read_request()
            await release.acquire()
            await connection.send(response_bytes(body=received.target))

    async with (
        ScriptedOrigin(script) as one,
        ScriptedOrigin(script) as two,
        gateway(
            destinations=[{"url": origin.url, "max_in_flight": 1} for origin in (one, two)],
            limits={"queue": 4, "queue_timeout": 60},
        ) as gate,
    ):

        def seen() -> int:
            return len(one.requests) + len(two.requests)

        def sent(count: int) -> bool:
            return seen() == count

        tasks = []
        for number in range(6):
            tasks.append(asyncio.create_task(fetch(gate.address, target=f"/billing/{number}")))
            await until(lambda: seen() + gate.balancer.status().queued == len(tasks))
        refused = await fetch(gate.address, target="/billing/x")
        order = {received.target for received in (*one.requests, *two.requests)}
        first = sorted(order)
        for number in range(2, 6):
            release.release()
            await until(partial(sent, number + 1))
            (added,) = {got.target for got in (*one.requests, *two.requests)} - order
            order.add(added)
            first.append(added)
        for _ in range(2):
            release.release()
        statuses = [(await task).status for task in tasks]

    assert statuses == [200] * 6
    assert first == [b"/%d" % number for number in range(6)]
    assert refused.status == 503
    assert int(refused.one(b"retry-after") or 0) >= 1


async def test_queue_gives_the_place_of_a_client_that_left_to_the_next() -> None:
    """A waiting client that leaves is out of the queue at once."""
    release = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await release.wait()
        await connection.send(response_bytes(body=b"ok"))

    async with (
        ScriptedOrigin(script) as origin,
        gateway(
            destinations=[{"url": origin.url, "max_in_flight": 1}],
            limits={"queue": 1, "queue_timeout": 60},
        ) as gate,
    ):
        held = asyncio.create_task(fetch(gate.address, target="/billing/held"))
        await until(lambda: origin.requests)
        async with connect(gate.address) as leaving:
            await leaving.send(request("GET", "/billing/leaves"))
            await until(lambda: gate.balancer.status().queued == 1)
        await until(lambda: gate.balancer.status().queued == 0)
        waits = asyncio.create_task(fetch(gate.address, target="/billing/waits"))
        await until(lambda: gate.balancer.status().queued == 1)
        release.set()
        statuses = [(await held).status, (await waits).status]

    assert statuses == [200, 200]
    assert [received.target for received in origin.requests] == [b"/held", b"/waits"]


@pytest.mark.parametrize("way", ["added", "undrained", "healthy", "more", "drained"])
async def test_queue_is_woken_by_changes_of_the_pool(way: str) -> None:
    """Whatever makes room; after a drain of all there is nothing to wait for."""
    release = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await release.wait()
        await connection.send(response_bytes(body=b"ok"))

    async with (
        ScriptedOrigin(script) as busy,
        ScriptedOrigin() as other,
        gateway(
            destinations=[{"url": busy.url, "max_in_flight": 1}, {"url": other.url}],
            policy="first",
            limits={"queue": 1, "queue_timeout": 60},
        ) as gate,
    ):
        balancer = gate.balancer
        running = balancer._running
        first, second = balancer.destinations
        if way == "added":
            balancer.replace_destinations([first.settings])
        elif way == "healthy":
            running.pool.set_health(second, False)
        else:
            await balancer.drain(other.url)
        held = asyncio.create_task(fetch(gate.address, target="/billing/x"))
        await until(lambda: busy.requests)
        waits = asyncio.create_task(fetch(gate.address, target="/billing/x"))
        await until(lambda: balancer.status().queued == 1)
        if way == "added":
            balancer.replace_destinations([first.settings, second.settings])
        elif way == "healthy":
            running.pool.set_health(second, True)
        elif way == "undrained":
            balancer.undrain(other.url)
        elif way == "more":
            balancer.configure_destination(busy.url, max_in_flight=2)
            await until(lambda: len(busy.requests) == 2)
            release.set()
        else:
            await balancer.drain(busy.url)
        status = (await waits).status
        release.set()
        await held

    assert status == (503 if way == "drained" else 200)


async def test_queue_waits_for_the_next_window_of_a_destination() -> None:
    """All have used up their ``max_requests``; the turn of the window makes room."""
    async with (
        ScriptedOrigin() as one,
        ScriptedOrigin() as two,
        gateway(
            destinations=[{"url": origin.url, "max_requests": 1} for origin in (one, two)],
            max_requests_window=3600,
            limits={"queue": 2, "queue_timeout": 60},
        ) as gate,
    ):
        served = [(await fetch(gate.address, target="/billing/x")).status for _ in range(2)]
        tasks = [asyncio.create_task(fetch(gate.address, target="/billing/x")) for _ in range(2)]
        await until(lambda: gate.balancer.status().queued == 2)
        beyond = await fetch(gate.address, target="/billing/x")
        before = (len(one.requests), len(two.requests))
        gate.balancer._running.pool.turn_window()
        waited = [(await task).status for task in tasks]

    assert (served, before, beyond.status) == ([200, 200], (1, 1), 503)
    assert (waited, len(one.requests), len(two.requests)) == ([200, 200], 2, 2)


async def test_queue_refuses_after_its_timeout_with_the_time_to_the_next_window() -> None:
    """A client that came back before would be refused again."""
    async with (
        ScriptedOrigin() as origin,
        gateway(
            destinations=[{"url": origin.url, "max_requests": 1}],
            max_requests_window=3600,
            limits={"queue": 1, "queue_timeout": 0.01},
        ) as gate,
    ):
        await fetch(gate.address, target="/billing/x")
        refused = await fetch(gate.address, target="/billing/x")

    assert refused.status == 503
    assert 3000 < int(refused.one(b"retry-after") or 0) <= 3600


async def test_queue_with_hedging_keeps_a_request_that_finds_its_place_taken() -> None:
    """The pick of a hedged request comes later than its admission, so two may want one place."""
    async with (
        ScriptedOrigin() as origin,
        gateway(
            destinations=[{"url": origin.url, "max_in_flight": 1}],
            limits={"queue": 20, "queue_timeout": 60},
            retries={"hedge_after": 5},
        ) as gate,
    ):
        replies = await asyncio.gather(
            *(fetch(gate.address, target="/billing/x") for _ in range(20))
        )
        queued = gate.balancer.status().queued

    assert [reply.status for reply in replies] == [200] * 20
    assert queued == 0


@pytest.mark.parametrize("queue", [0, 1])
async def test_queue_timeout_ends_the_wait_for_a_destination(queue: int) -> None:
    """The error names the destinations' limit; the event names the destination."""
    release = asyncio.Event()
    events: list[Event] = []

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await release.wait()
        await connection.send(response_bytes(body=b"ok"))

    async with (
        ScriptedOrigin(script) as origin,
        gateway(
            destinations=[{"url": origin.url, "max_in_flight": 1}],
            limits={"queue": queue, "queue_timeout": 0.01, "max_in_flight": 10},
        ) as gate,
    ):
        gate.balancer.subscribe(events.append)
        held = asyncio.create_task(fetch(gate.address, target="/billing/x"))
        await until(lambda: origin.requests)
        refused = await fetch(gate.address, target="/billing/x")
        release.set()
        await held

    assert refused.status == 503
    assert events == [LimitHit("billing", origin.url, "max_in_flight")]
