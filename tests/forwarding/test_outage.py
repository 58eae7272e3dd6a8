"""Requests that go on while nobody responds: the decision, the pace, a restart."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from pathlib import Path
from time import monotonic

import pytest

from fastapi_proxy_di import Balancer, UpstreamClosed
from fastapi_proxy_di.errors import Failure
from fastapi_proxy_di.forwarding.outage import TURN_SECONDS, Outage
from fastapi_proxy_di.forwarding.retries import goes_on
from fastapi_proxy_di.upstream.composition import compose
from tests.support.gateways import billing, gateway, until
from tests.support.http_client import connect, fetch, request
from tests.support.origins import Connection, ScriptedOrigin, always, response_bytes
from tests.support.servers import blackhole, dead_port
from tests.support.virtual_time import run_virtually


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (Failure.CONNECT, True),
        (Failure.RESPONSE_HEAD, True),
        (Failure.NO_AVAILABLE_DESTINATION, True),
        (Failure.LIMIT_EXCEEDED, False),
        (Failure.TOTAL_TIMEOUT, False),
        (Failure.CLIENT_DISCONNECTED, False),
    ],
)
def test_goes_on_while_nobody_responds(failure: Failure, expected: bool) -> None:
    """Only requests that may be sent twice, and only before a byte of a response."""
    fine = {"repeatable": True, "replayable": True, "answered": False}

    assert goes_on(failure, **fine) is expected
    for change in ({"repeatable": False}, {"replayable": False}, {"answered": True}):
        assert not goes_on(failure, **{**fine, **change})


def test_pace_has_no_context_of_a_request() -> None:
    """The first request that waits starts it, and it lasts as long as any other waits."""
    request: ContextVar[str] = ContextVar("request", default="none")
    seen: list[str] = []

    class Seeing(Outage):
        def _next(self) -> None:
            seen.append(request.get())
            super()._next()

    async def scenario() -> None:
        outage = Seeing("billing")
        _ = request.set("first")
        gave_up_at = asyncio.get_running_loop().time() + 3.5 * TURN_SECONDS
        await asyncio.gather(*(outage.turn(gave_up_at) for _ in range(3)))

    run_virtually(scenario())

    assert seen == ["none"] * 3


def test_outage_has_one_pace_for_all_requests() -> None:
    """A hundred wait: one attempt per turn, in order; a response lets two more try."""

    async def scenario() -> tuple[list[int], list[int], list[bool]]:
        loop = asyncio.get_running_loop()
        outage = Outage("billing")
        turns: list[int] = []

        async def wait(number: int) -> bool:
            if not await outage.turn(began + 1.05):
                return False
            turns.append(number)
            return True

        began = loop.time()
        tasks = [loop.create_task(wait(number)) for number in range(100)]
        await asyncio.sleep(0)
        tasks[2].cancel()
        await asyncio.sleep(5.5 * TURN_SECONDS)
        slow = list(turns)
        outage.responded()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        quick = turns[len(slow) :]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert loop.time() - began < 1.1
        assert not await outage.turn(loop.time())
        outage.responded()
        await asyncio.sleep(2 * TURN_SECONDS)
        return slow, quick, [result for result in results if isinstance(result, bool)]

    slow, quick, results = run_virtually(scenario())

    assert slow == [0, 1, 3, 4, 5]
    assert quick == [6, 7]
    assert results.count(True) == 12


def test_outage_gives_the_turn_of_a_cancelled_request_to_the_next() -> None:
    """The request was cancelled in the same turn of the loop, so it is still in the queue."""

    async def scenario() -> list[bool]:
        loop = asyncio.get_running_loop()
        outage = Outage("billing")
        tasks = [loop.create_task(outage.turn(loop.time() + 60)) for _ in range(4)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        outage.responded()
        await asyncio.wait(tasks, timeout=TURN_SECONDS / 2)
        states = [task.done() for task in tasks]
        tasks[3].cancel()
        outage.responded()
        await asyncio.wait(tasks)
        assert [task.cancelled() for task in tasks] == [True, False, False, True]
        return states

    assert run_virtually(scenario()) == [True, True, True, False]


@pytest.mark.e2e
async def test_restart_of_the_only_destination_loses_no_get(tmp_path: Path) -> None:
    """Connections are refused until it is back; a POST is not repeated."""
    back = ScriptedOrigin(unix_path=str(tmp_path / "s"))
    async with gateway(back.url, retries={"duration": 60}) as gate:
        gets = [asyncio.create_task(fetch(gate.address, target="/billing/x")) for _ in range(20)]
        await until(lambda: gate.balancer.destinations[0].failures >= 22)
        post = await fetch(gate.address, "POST", "/billing/x", body=b"x")
        async with back:
            replies = await asyncio.gather(*gets)

    assert [reply.status for reply in replies] == [200] * 20
    assert post.status == 502


@pytest.mark.e2e
async def test_request_goes_on_after_broken_connections() -> None:
    """More often than ``retries.attempts``; a POST is not sent twice."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        if connection.number > 4:
            await connection.send(response_bytes(body=b"ok"))

    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, retries={"duration": 60, "backoff": 0}) as gate,
    ):
        post = await fetch(gate.address, "POST", "/billing/x", body=b"x")
        reply = await fetch(gate.address, target="/billing/x")

    assert (post.status, reply.status) == (502, 200)
    assert len(origin.requests) == 5


@pytest.mark.e2e
async def test_request_waits_for_an_available_destination() -> None:
    """Until one is undrained."""
    async with (
        ScriptedOrigin(always(response_bytes(body=b"ok"))) as origin,
        gateway(origin.url, retries={"duration": 60}) as gate,
    ):
        await gate.balancer.drain(origin.url)
        async with connect(gate.address) as client:
            await client.send(request("GET", "/billing/leaves"))
        get = asyncio.create_task(fetch(gate.address, target="/billing/x"))
        done, _ = await asyncio.wait({get}, timeout=2 * TURN_SECONDS)
        gate.balancer.undrain(origin.url)
        status = (await get).status

    assert (status, done) == (200, set())


@pytest.mark.e2e
async def test_duration_ends_with_the_last_error() -> None:
    """After its time the client gets the error of the last attempt."""
    async with gateway(f"http://127.0.0.1:{dead_port()}", retries={"duration": 0.05}) as gate:
        reply = await fetch(gate.address, target="/billing/x")

    assert reply.status == 502


@pytest.mark.parametrize("first", ["refuses", "silent"])
def test_hedged_request_waits_once(first: str) -> None:
    """A request counts once, and there is no second branch where the first waits already."""

    async def run() -> tuple[set[int], int]:
        with blackhole() as port:
            running = compose(
                billing(
                    f"http://127.0.0.1:{port if first == 'silent' else dead_port()}",
                    f"http://127.0.0.1:{dead_port()}",
                    policy="first",
                    ejection={"enabled": False},
                    retries={"duration": 60, "hedge_after": 0.05, "budget_share": 0},
                    timeouts={"connect": 1},
                )
            )
            await running.start()
            get = asyncio.create_task(Balancer(running).client.get("/x"))
            waiting = set()
            for _ in range(300):
                await asyncio.sleep(TURN_SECONDS / 8)
                waiting.add(running.outage.waiting)
            budget = running.budget.left(monotonic())
            await running.aclose()
            with pytest.raises(UpstreamClosed):
                await get
        return waiting, running.settings.retries.budget_minimum - round(budget)

    waiting, hedged = run_virtually(run())

    assert max(waiting) == 1
    assert hedged == (1 if first == "silent" else 0)
