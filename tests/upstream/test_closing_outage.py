"""Closing an upstream while requests wait in an outage (``retries.duration``)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.types import Message, Scope

from fastapi_proxy_di import Balancer, UpstreamClosed, UpstreamConnectError
from fastapi_proxy_di.forwarding.outage import TURN_SECONDS
from fastapi_proxy_di.upstream.closing import close_in_order
from fastapi_proxy_di.upstream.composition import compose
from fastapi_proxy_di.upstream.rules import make_rules
from fastapi_proxy_di.upstream.running import RunningUpstream
from tests.support.gateways import billing, gateway, until
from tests.support.given import given_app, to
from tests.support.http_client import connect, fetch, request
from tests.support.origins import ScriptedOrigin
from tests.support.servers import dead_port
from tests.support.virtual_time import run_virtually
from tests.support.websocket_client import shake_hands
from tests.websocket.gateways import serving

Get = asyncio.Task[httpx.Response]


async def waiting(**settings: Any) -> tuple[RunningUpstream, Get]:
    """Give an upstream whose only destination refuses connections, and a call that waits for it."""
    settings = {"retries": {"duration": 60}, **settings}
    running = compose(billing(f"http://127.0.0.1:{dead_port()}", **settings))
    await running.start()
    get = asyncio.create_task(Balancer(running).client.get("/x"))
    await asyncio.sleep(1)
    assert not get.done()
    return running, get


@pytest.mark.parametrize("hedged", [False, True])
def test_waiting_request_has_the_time_of_the_others(hedged: bool) -> None:
    """Then it is refused, long before its own time is over."""

    async def run() -> float:
        retries = {"duration": 60, **({"hedge_after": 0.1} if hedged else {})}
        running, get = await waiting(retries=retries)
        began = asyncio.get_running_loop().time()
        await close_in_order(running, 3)
        with pytest.raises(UpstreamClosed):
            await get
        return asyncio.get_running_loop().time() - began

    assert run_virtually(run()) == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize("reloaded", [False, True])
def test_waiting_request_ends_with_its_app(reloaded: bool) -> None:
    """At a close that gives nobody time, also by the rules of earlier settings."""

    async def run() -> float:
        running, get = await waiting()
        if reloaded:
            rules, settings = running.rules, billing(running.pool.destinations[0].url)
            running.use(make_rules(settings, rules.telemetry, rules.policy, running))
        began = asyncio.get_running_loop().time()
        await running.aclose()
        with pytest.raises(UpstreamClosed) as caught:
            await get
        assert caught.value.attempts
        assert not caught.value.request_sent
        return asyncio.get_running_loop().time() - began

    assert run_virtually(run()) == pytest.approx(0, abs=0.05)


def test_waiting_request_is_counted() -> None:
    """At each moment it waits or is in flight, so that neither a close nor a user misses it."""

    async def run() -> set[tuple[int, int]]:
        running, get = await waiting()
        seen = set()
        for turn in range(200):
            status = Balancer(running).status()
            seen.add((status.waiting, status.in_flight))
            await asyncio.sleep(0 if turn % 10 else TURN_SECONDS / 4)
        await running.aclose()
        await asyncio.gather(get, return_exceptions=True)
        assert Balancer(running).status().waiting == 0
        return seen

    assert run_virtually(run()) == {(1, 0), (0, 1)}


@pytest.mark.e2e
async def test_destination_that_is_back_in_time_loses_no_get(tmp_path: Path) -> None:
    """Not one that waits, though the upstream is being closed; new ones are refused."""
    back = ScriptedOrigin(unix_path=str(tmp_path / "s"))
    async with gateway(back.url, retries={"duration": 60}) as gate:
        running = gate.balancer._running
        gets = [asyncio.create_task(fetch(gate.address, target="/billing/x")) for _ in range(10)]
        await until(lambda: gate.balancer.status().waiting == 10)
        closing = asyncio.create_task(close_in_order(running, 60))
        await until(lambda: running.refuses)
        refused = await fetch(gate.address, target="/billing/x")
        async with back:
            replies = await asyncio.gather(*gets)
            await closing

    assert [reply.status for reply in replies] == [200] * 10
    assert refused.status == 503


@pytest.mark.e2e
async def test_request_that_waits_for_an_address_ends_with_the_upstream() -> None:
    """HTTP and WebSocket, under the rules of now and of before."""
    app = given_app(retries={"duration": 60}, websocket={"open_timeout": 60})
    address = f"http://127.0.0.1:{dead_port()}"
    async with serving(app) as gateway:
        running = gateway.balancer._running
        async with connect(gateway.address) as first, connect(gateway.address) as second:
            await first.send(request(target="/billing/x", headers=to(address)))
            await until(lambda: gateway.balancer.status().waiting == 1)
            running.use(running.rules)
            denied = asyncio.create_task(shake_hands(second, "/billing/live", to(address)))
            await until(lambda: gateway.balancer.status().waiting == 2)
            closing = asyncio.create_task(close_in_order(running, 0.3))
            await asyncio.sleep(0)
            assert not closing.done()
            replies = [await first.read_response(), await denied]
            await closing
        after = gateway.balancer.status()

    assert [reply.status for reply in replies] == [503, 503]
    assert (after.waiting, after.in_flight) == (0, 0)


def test_address_that_does_not_respond_delays_no_other() -> None:
    """Each has its own pace, also while many requests wait for another address."""

    async def forward(balancer: Balancer, address: str) -> int:
        scope: Scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/x",
            "raw_path": b"/x",
            "query_string": b"",
            "headers": [(b"host", b"gateway.test")],
            "client": None,
        }
        with pytest.raises(UpstreamConnectError) as caught:
            await balancer.forward(Request(scope, never), destination=address)
        return len(caught.value.attempts)

    async def never() -> Message:
        forever: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        return await forever

    async def run() -> tuple[int, int]:
        allowed = {"networks": ["127.0.0.0/8"]}
        running = compose(billing(allowed_destinations=allowed, retries={"duration": 2}))
        balancer, dead = Balancer(running), dead_port()
        others = [
            asyncio.create_task(forward(balancer, f"http://127.0.0.1:{dead}")) for _ in range(30)
        ]
        attempts = await forward(balancer, f"http://127.0.0.2:{dead}")
        of_others = sum(await asyncio.gather(*others))
        assert running.waiting == 0
        await running.aclose()
        return attempts, of_others

    attempts, of_others = run_virtually(run())
    assert attempts > 6  # with one pace for all it would be 2
    assert of_others < 4 * (30 + 2 / TURN_SECONDS)
