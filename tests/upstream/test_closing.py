"""Closing an upstream while its app runs: who may end, who is refused."""

from __future__ import annotations

import asyncio
import logging

import pytest

from fastapi_proxy_di import Balancer, UpstreamClosed
from fastapi_proxy_di.upstream.closing import close_in_order
from fastapi_proxy_di.upstream.composition import compose
from fastapi_proxy_di.upstream.running import RunningUpstream
from tests.support.gateways import billing, gateway, until
from tests.support.given import given_app, to
from tests.support.origins import Connection, ScriptedOrigin
from tests.support.virtual_time import run_virtually
from tests.support.websocket_client import Closed, open_websocket
from tests.support.websocket_origin import accepting
from tests.websocket.gateways import serving, tunnels
from tests.websocket.upstreams import EchoApp, echo_server

in_process = EchoApp()


async def hold(running: RunningUpstream, seconds: float) -> None:
    """Hold a lease for a time."""
    async with running.lease(None):
        await asyncio.sleep(seconds)


def test_open_lease_goes_on() -> None:
    """The upstream is closed when it ends, or when the time is over."""

    async def taken(lease: float, drain: float) -> float:
        running = compose(billing("http://a"))
        await running.start()
        holding = asyncio.create_task(hold(running, lease))
        await asyncio.sleep(0)
        began = asyncio.get_running_loop().time()
        await close_in_order(running, drain)
        ended = asyncio.get_running_loop().time() - began
        await holding
        assert running.pool.destinations[0].in_flight == 0
        return ended

    async def run() -> list[float]:
        return [await taken(3, 10), await taken(10, 3), await taken(0, 3)]

    assert run_virtually(run()) == pytest.approx([3, 3, 0], abs=0.1)


def test_requests_in_the_queue_are_refused_after_the_time() -> None:
    """One that gets a place in time goes on."""

    async def run() -> list[type[BaseException] | None]:
        limits = {"max_in_flight": 1, "queue": 3, "queue_timeout": 60}
        running = compose(billing("http://a", limits=limits))
        await running.start()
        holding = [asyncio.create_task(hold(running, 2)) for _ in range(3)]
        await asyncio.sleep(0.1)
        await close_in_order(running, 3)
        results = await asyncio.gather(*holding, return_exceptions=True)
        return [None if one is None else type(one) for one in results]

    assert run_virtually(run()) == [None, None, UpstreamClosed]


def test_destination_that_has_left_the_pool_is_waited_for() -> None:
    """Its requests are open as well."""

    async def run() -> float:
        running = compose(billing("http://a"))
        await running.start()
        holding = asyncio.create_task(hold(running, 3))
        await asyncio.sleep(0)
        Balancer(running).replace_destinations(["http://b"])
        began = asyncio.get_running_loop().time()
        await close_in_order(running, 10)
        await holding
        return asyncio.get_running_loop().time() - began

    assert run_virtually(run()) == pytest.approx(3, abs=0.2)


def test_requests_to_addresses_are_waited_for() -> None:
    """Open leases and those in the queue, under the rules of now and of before."""
    settings = billing(
        allowed_destinations={"networks": ["10.0.0.0/8"]},
        limits={"max_in_flight": 1, "queue": 1, "queue_timeout": 60},
    )

    async def taken(*, new_rules: bool) -> float:
        running = compose(settings)
        await running.start()

        async def hold_address() -> None:
            async with running.for_addresses().lease("http://10.0.0.1"):
                await asyncio.sleep(3)

        holding = [asyncio.create_task(hold_address()) for _ in range(2)]
        await asyncio.sleep(0.1)
        if new_rules:
            running.use(running.rules)
        began = asyncio.get_running_loop().time()
        await close_in_order(running, 10)
        await asyncio.gather(*holding)
        with pytest.raises(UpstreamClosed):
            await hold_address()
        running.use(running.rules)  # a reload while it is closed
        with pytest.raises(UpstreamClosed):
            await hold_address()
        return asyncio.get_running_loop().time() - began

    async def run() -> list[float]:
        return [await taken(new_rules=False), await taken(new_rules=True)]

    assert run_virtually(run()) == pytest.approx([6, 6], abs=0.2)


@pytest.mark.e2e
async def test_tunnels_to_addresses_are_closed_after_the_time() -> None:
    """With 1001, as those to the pool."""
    async with (
        echo_server(EchoApp()) as echo,
        serving(given_app()) as gateway,
        open_websocket(gateway.address, "/billing/live", to(echo.url)) as client,
    ):
        await client.send("hello")
        assert await client.recv() == "hello"
        closing = asyncio.create_task(close_in_order(gateway.balancer._running, 0.01))
        closed = await client.recv()
        await closing

    assert isinstance(closed, Closed)
    assert closed.code == 1001


async def test_refused_requests_are_not_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Clients of an upstream that is gone would fill it."""
    running = compose(billing("http://a"))
    await close_in_order(running, 0)
    with caplog.at_level(logging.DEBUG):
        for _ in range(2):
            with pytest.raises(UpstreamClosed) as caught:
                await Balancer(running).client.get("/x")

    assert caught.value.upstream == "billing"
    assert [one for one in caplog.records if one.name.startswith("fastapi_proxy_di")] == []


async def test_ended_subscription_is_forgotten() -> None:
    """By its own end, or by that of the upstream."""
    running = compose(billing("http://a"))
    before = len(running.events._listeners)
    ends = [Balancer(running).subscribe(print) for _ in range(2)]
    ends[0]()
    one_left = len(running.events._listeners)
    await close_in_order(running, 0)
    ends[1]()

    assert one_left == before + 1
    assert running.events._listeners == ()


@pytest.mark.e2e
@pytest.mark.parametrize("asgi", [False, True])
async def test_tunnels_end_with_their_app(asgi: bool) -> None:
    """At a close that gives nobody time: with 1001, and none is left."""
    async with (
        echo_server(EchoApp()) as echo,
        tunnels("asgi://tests.upstream.test_closing:in_process" if asgi else echo.url) as gateway,
        open_websocket(gateway.address, "/billing/live") as client,
    ):
        await client.send("hello")
        assert await client.recv() == "hello"
        running = gateway.balancer._running
        await running.aclose()
        left = running.tunnels.count
        closed = await client.ended()

    assert left == 0
    assert (closed.code, closed.reason) == (1001, "the upstream is closed")


@pytest.mark.e2e
async def test_tunnel_that_opens_during_the_close_is_closed() -> None:
    """Its handshake was under way when the others were closed."""
    go_on = asyncio.Event()

    async def late(connection: Connection) -> None:
        received = await connection.read_head()
        await go_on.wait()
        await connection.send(accepting(received))
        await connection.peer_left()

    async with ScriptedOrigin(late) as origin, gateway(origin.url) as gate:
        running = gate.balancer._running

        async def dialled() -> Closed:
            async with open_websocket(gate.address, "/billing/live") as client:
                return await client.ended()

        dialling = asyncio.create_task(dialled())
        await until(lambda: origin.requests)
        await running.tunnels.aclose("the upstream is closed")
        go_on.set()
        closed = await dialling
        await origin.all_left()

    assert closed.code == 1001


def test_app_that_ends_ends_the_wait() -> None:
    """For a lease, say, that is held for longer."""

    async def run() -> float:
        running = compose(billing("http://a"))
        await running.start()
        holding = asyncio.create_task(hold(running, 60))
        await asyncio.sleep(0)
        closing = asyncio.create_task(close_in_order(running, 60))
        await asyncio.sleep(1)
        await running.aclose()
        began = asyncio.get_running_loop().time()
        await closing
        holding.cancel()
        return asyncio.get_running_loop().time() - began

    assert run_virtually(run()) == pytest.approx(0, abs=0.1)
