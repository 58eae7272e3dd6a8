"""Hedging: the first of two responses is used, and no failure of the other one is counted."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.support.gateways import Gateway, gateway, until
from tests.support.http_client import connect, fetch, request
from tests.support.origins import Connection, Script, ScriptedOrigin, response_bytes
from tests.support.servers import blackhole, dead_port
from tests.support.stepped_loop import SteppedLoop

pytestmark = pytest.mark.e2e


def _silent(left: asyncio.Event) -> Script:
    """Never respond; record when the peer has closed."""

    async def script(connection: Connection) -> None:
        try:
            await connection.read_request()
            await connection.peer_left()
        finally:
            left.set()

    return script


def _counts(gate: Gateway) -> list[tuple[int, int]]:
    return [(one.in_flight, one.failures) for one in gate.balancer.destinations]


async def test_hedge_responds_for_a_silent_destination() -> None:
    """The first exchange is cancelled, and no failure is counted."""
    left = asyncio.Event()
    async with (
        ScriptedOrigin(_silent(left)) as silent,
        ScriptedOrigin() as quick,
        gateway(silent.url, quick.url, policy="first", retries={"hedge_after": 0.02}) as gate,
    ):
        reply = await fetch(gate.address, target="/billing/x")
        async with asyncio.timeout(10):
            await left.wait()
        await until(lambda: gate.in_flight == 0)
        counts = _counts(gate)

    assert (reply.status, reply.body) == (200, b"ok")
    assert (len(silent.requests), len(quick.requests)) == (1, 1)
    assert counts == [(0, 0), (0, 0)]


async def test_hedge_is_not_sent_when_the_response_comes_in_time() -> None:
    """The second destination gets no request."""
    async with (
        ScriptedOrigin() as one,
        ScriptedOrigin() as two,
        gateway(one.url, two.url, policy="first", retries={"hedge_after": 5}) as gate,
    ):
        replies = [await fetch(gate.address, target="/billing/x") for _ in range(3)]

    assert {reply.status for reply in replies} == {200}
    assert (len(one.requests), len(two.requests)) == (3, 0)


async def test_hedge_takes_one_turn_of_round_robin() -> None:
    """With four destinations in turn, the request has the first turn and its hedge the second."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        asked.append(connection)
        if len(asked) % 2 == 0:
            await connection.send(response_bytes(body=b"ok"))
        await connection.peer_left()

    asked: list[Connection] = []
    async with contextlib.AsyncExitStack() as stack:
        origins = [await stack.enter_async_context(ScriptedOrigin(script)) for _ in range(4)]
        gate = await stack.enter_async_context(
            gateway(
                *(origin.url for origin in origins),
                policy="round_robin",
                retries={"hedge_after": 0.02},
            )
        )
        counts = []
        for _ in range(2):
            await fetch(gate.address, target="/billing/x")
            await until(lambda: gate.in_flight == 0)
            counts.append([len(origin.requests) for origin in origins])

    assert sorted(counts[0]) == [0, 0, 1, 1]
    assert counts[1] == [1, 1, 1, 1]


async def test_hedge_that_fails_leaves_the_first_running() -> None:
    """A second destination that breaks off does not end the request."""
    release = asyncio.Event()

    async def slow(connection: Connection) -> None:
        await connection.read_request()
        await release.wait()
        await connection.send(response_bytes(body=b"slow"))

    async def breaks_off(connection: Connection) -> None:
        await connection.read_request()
        release.set()

    async with (
        ScriptedOrigin(slow) as first,
        ScriptedOrigin(breaks_off) as second,
        gateway(
            first.url, second.url, policy="first", retries={"hedge_after": 0.02, "attempts": 0}
        ) as gate,
    ):
        reply = await fetch(gate.address, target="/billing/x")
        await until(lambda: gate.in_flight == 0)
        counts = _counts(gate)

    assert (reply.status, reply.body) == (200, b"slow")
    assert counts == [(0, 0), (0, 1)]


async def test_hedge_and_first_both_failing_is_a_failure() -> None:
    """The client gets the error of the first."""
    release = asyncio.Event()

    async def waits(connection: Connection) -> None:
        await connection.read_request()
        await release.wait()

    async def tells(connection: Connection) -> None:
        await connection.read_request()
        release.set()

    async with (
        ScriptedOrigin(waits) as first,
        ScriptedOrigin(tells) as second,
        gateway(
            first.url, second.url, policy="first", retries={"hedge_after": 0.02, "attempts": 0}
        ) as gate,
    ):
        reply = await fetch(gate.address, target="/billing/x")
        await until(lambda: gate.in_flight == 0)

    assert reply.status == 502


async def test_failure_before_the_hedge_is_retried_as_usual() -> None:
    """A refused connection needs no hedge."""
    async with (
        ScriptedOrigin() as origin,
        gateway(
            f"http://127.0.0.1:{dead_port()}",
            origin.url,
            policy="first",
            retries={"hedge_after": 5},
        ) as gate,
    ):
        reply = await fetch(gate.address, target="/billing/x")

    assert reply.status == 200


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_hedge_is_only_for_repeatable_requests(method: str) -> None:
    """Other methods wait for their one destination, with and without a body."""
    release = asyncio.Event()

    async def slow(connection: Connection) -> None:
        await connection.read_request()
        await release.wait()
        await connection.send(response_bytes(body=b"slow"))

    async with (
        ScriptedOrigin(slow) as first,
        ScriptedOrigin() as second,
        gateway(first.url, second.url, policy="first", retries={"hedge_after": 0.01}) as gate,
    ):
        body = b"hello" if method == "POST" else None
        post = asyncio.create_task(fetch(gate.address, method, "/billing/x", body=body))
        await until(lambda: first.requests)
        # A GET that is hedged meanwhile shows that the time for it has passed.
        hedged = await fetch(gate.address, target="/billing/x")
        release.set()
        reply = await post

    assert (reply.body, hedged.body) == (b"slow", b"ok")
    assert [seen.method for seen in second.requests] == [b"GET"]


async def test_hedge_uses_the_retry_budget() -> None:
    """A slow upstream does not get every request twice."""
    release = asyncio.Event()

    async def slow(connection: Connection) -> None:
        while True:
            await connection.read_request()
            await release.wait()
            await connection.send(response_bytes(body=b"slow"))

    async with (
        ScriptedOrigin(slow) as first,
        ScriptedOrigin() as second,
        gateway(
            first.url,
            second.url,
            policy="first",
            retries={"hedge_after": 0.01, "budget_share": 0, "budget_minimum": 3},
        ) as gate,
    ):
        tasks = [asyncio.create_task(fetch(gate.address, target="/billing/x")) for _ in range(9)]
        await until(lambda: sum(task.done() for task in tasks) == 3)
        assert len(second.requests) == 3
        await until(lambda: len(first.requests) == 9)
        release.set()
        bodies = sorted([(await task).body for task in tasks])
        await until(lambda: gate.in_flight == 0)

    assert bodies == [b"ok"] * 3 + [b"slow"] * 6


async def test_hedge_needs_another_destination() -> None:
    """The only destination does not get the request twice."""
    release = asyncio.Event()

    async def slow(connection: Connection) -> None:
        while True:
            await connection.read_request()
            await release.wait()
            await connection.send(response_bytes(body=b"slow"))

    async with (
        ScriptedOrigin(slow) as origin,
        gateway(origin.url, retries={"hedge_after": 0.01}) as gate,
    ):
        task = asyncio.create_task(fetch(gate.address, target="/billing/x"))
        await asyncio.wait({task}, timeout=0.1)
        release.set()
        reply = await task

    assert reply.body == b"slow"
    assert len(origin.requests) == 1


async def test_disconnect_ends_both_branches() -> None:
    """No branch goes on, and no failure is counted."""
    one_left, other_left = asyncio.Event(), asyncio.Event()
    async with (
        ScriptedOrigin(_silent(one_left)) as one,
        ScriptedOrigin(_silent(other_left)) as other,
        gateway(one.url, other.url, retries={"hedge_after": 0.02}) as gate,
    ):
        async with connect(gate.address) as client:
            await client.send(request(target="/billing/x"))
            await until(lambda: one.requests and other.requests)
        async with asyncio.timeout(10):
            await one_left.wait()
            await other_left.wait()
        await until(lambda: gate.in_flight == 0)
        counts = _counts(gate)

    assert counts == [(0, 0), (0, 0)]


@pytest.mark.parametrize("before", [0, 3])
async def test_hedge_and_first_share_the_dials(before: int) -> None:
    """Four for both together; if the first has made four, there is no hedge."""
    with blackhole() as port:
        dead = [f"http://127.0.0.1:{dead_port()}" for _ in range(8)]
        dead.insert(before, f"http://127.0.0.1:{port}")
        async with gateway(
            *dead,
            policy="first",
            ejection={"enabled": False},
            retries={"hedge_after": 0.1, "attempts": 0},
            timeouts={"connect": 1.0},
        ) as gate:
            reply = await fetch(gate.address, target="/billing/x")
            await until(lambda: gate.in_flight == 0)
            failures = [one.failures for one in gate.balancer.destinations]

    assert reply.status in (502, 504)
    assert sum(failures) == 4


async def test_unhedged_request_dials_other_destinations_as_usual() -> None:
    """A POST has no second branch, and its own count of dials."""
    async with (
        ScriptedOrigin() as alive,
        gateway(
            *(f"http://127.0.0.1:{dead_port()}" for _ in range(3)),
            alive.url,
            policy="first",
            retries={"hedge_after": 0.01},
        ) as gate,
    ):
        reply = await fetch(gate.address, "POST", "/billing/x", body=b"x")
        failures = [one.failures for one in gate.balancer.destinations]

    assert reply.status == 200
    assert failures == [1, 1, 1, 0]


async def test_hedge_keeps_the_timeouts(deadline_clock: SteppedLoop) -> None:
    """Each branch has its own time to the first byte."""

    async def silent(connection: Connection) -> None:
        await connection.read_request()
        await connection.peer_left()

    async with (
        ScriptedOrigin(silent) as one,
        ScriptedOrigin(silent) as other,
        gateway(
            one.url,
            other.url,
            retries={"hedge_after": 0.02, "attempts": 0},
            timeouts={"first_byte": 60, "activity": 86_400},
        ) as gate,
        connect(gate.address) as client,
    ):
        await client.send(request(target="/billing/x"))
        await until(lambda: one.requests and other.requests)
        deadline_clock.advance(3600)
        reply = await client.read_response()
        await until(lambda: gate.in_flight == 0)

    assert reply.status == 504
    assert (len(one.requests), len(other.requests)) == (1, 1)


async def test_two_responses_at_once_leave_nothing_behind() -> None:
    """The later response is dropped, whenever it arrives."""
    waiting = 0
    both = asyncio.Event()

    async def at_once(connection: Connection) -> None:
        nonlocal waiting
        while True:
            await connection.read_request()
            waiting += 1
            if waiting == 2:
                both.set()
            await both.wait()
            await connection.send(response_bytes(body=b"ok"))

    async with (
        ScriptedOrigin(at_once) as one,
        ScriptedOrigin(at_once) as other,
        gateway(one.url, other.url, retries={"hedge_after": 0.01, "budget_minimum": 100}) as gate,
    ):
        replies = []
        for _ in range(20):
            waiting = 0
            both.clear()
            replies.append(await fetch(gate.address, target="/billing/x"))
            await until(lambda: gate.in_flight == 0)
        counts = _counts(gate)

    assert {(reply.status, reply.body) for reply in replies} == {(200, b"ok")}
    assert counts == [(0, 0), (0, 0)]
