"""Keys that cool, with queues, a reload, and more keys than are kept."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.keys import BY_HEADER, ask, refuses
from tests.support.gateways import billing, gateway, until
from tests.support.http_client import connect, fetch, request
from tests.support.origins import Connection, ScriptedOrigin, response_bytes

pytestmark = pytest.mark.e2e


async def test_key_that_cools_waits_in_no_queue() -> None:
    """It would hold up other keys, which are served meanwhile."""
    release = asyncio.Event()

    async def slow(connection: Connection) -> None:
        while True:
            received = await connection.read_request()
            if received.one(b"authorization") == b"key-a":
                await connection.send(response_bytes(429, headers=[(b"Retry-After", b"60")]))
                continue
            if received.target == b"/held":
                await release.wait()
            await connection.send(response_bytes(body=b"ok"))

    async with (
        ScriptedOrigin(slow) as one,
        ScriptedOrigin(slow) as two,
        gateway(
            destinations=[{"url": one.url, "max_in_flight": 1}, {"url": two.url}],
            policy="first",
            ejection=BY_HEADER,
            limits={"queue": 4, "queue_timeout": 60},
        ) as gate,
    ):
        cooled = [await ask(gate, b"key-a") for _ in range(2)]
        both_have_room = await ask(gate, b"key-a")
        held = asyncio.create_task(fetch(gate.address, target="/billing/held"))
        await until(lambda: any(got.target == b"/held" for got in one.requests))
        one_is_full = await ask(gate, b"key-a")
        other = await ask(gate, b"key-b")
        queued = gate.balancer.status().queued
        release.set()
        await held
        metrics = gate.balancer.status()

    assert [reply.status for reply in cooled] == [429, 429]
    assert (both_have_room.status, one_is_full.status) == (503, 503)
    assert both_have_room.one(b"retry-after") == one_is_full.one(b"retry-after") == b"60"
    assert (other.status, queued) == (200, 0)
    assert metrics.in_flight == 0


async def test_key_that_cools_waits_while_all_destinations_are_full() -> None:
    """A place that is free then is not for it, unless it is where the key does not cool."""
    release = asyncio.Semaphore(0)

    async def slow(connection: Connection) -> None:
        while True:
            received = await connection.read_request()
            if received.one(b"authorization") == b"key-a":
                await connection.send(response_bytes(429, headers=[(b"Retry-After", b"60")]))
                continue
            await release.acquire()
            await connection.send(response_bytes(body=b"ok"))

    async with (
        ScriptedOrigin(slow) as origin,
        gateway(
            destinations=[{"url": origin.url, "max_in_flight": 1}],
            ejection=BY_HEADER,
            limits={"queue": 4, "queue_timeout": 60},
        ) as gate,
    ):
        await ask(gate, b"key-a")
        held = asyncio.create_task(ask(gate, b"key-b"))
        await until(lambda: len(origin.requests) == 2)
        waits = asyncio.create_task(ask(gate, b"key-a"))
        await until(lambda: gate.balancer.status().queued == 1)
        behind = asyncio.create_task(ask(gate, b"key-c"))
        await until(lambda: gate.balancer.status().queued == 2)
        release.release()
        release.release()
        statuses = [(await task).status for task in (held, waits, behind)]

    assert statuses == [200, 503, 200]


async def test_key_stays_cool_over_a_reload() -> None:
    """Its pair outlives the settings."""
    async with (
        ScriptedOrigin(refuses({b"key-a": b"30"}, b"one")) as one,
        ScriptedOrigin(refuses({}, b"two")) as two,
        gateway(one.url, two.url, policy="first", ejection=BY_HEADER) as gate,
    ):
        first = await ask(gate, b"key-a")
        await gate.balancer.reload(
            billing(one.url, two.url, policy="first", ejection=BY_HEADER, slow_start=3)
        )
        second = await ask(gate, b"key-a")

    assert (first.body, second.body) == (b"no one", b"two")


async def test_ten_thousand_invented_keys_are_forgotten_again() -> None:
    """The pairs of an upstream are bounded."""
    async with (
        ScriptedOrigin(refuses({b"key": b"300"})) as origin,
        gateway(origin.url, ejection=BY_HEADER) as gate,
        connect(gate.address) as client,
    ):
        pairs = gate.balancer._running.cooled_pairs
        for number in range(10_000):
            pairs.cool("http://elsewhere", b"%d" % number, 1e12)
        for number in range(3):
            await client.send(
                request(target="/billing/x", headers=[(b"Authorization", b"key-%d" % number)])
            )
            assert (await client.read_response()).status == 429

    assert len(pairs) == 10_000
    assert not pairs.left(b"2", 0.0)
    assert pairs.left(b"3", 0.0)
