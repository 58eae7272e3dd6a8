"""Requests that are on their way to a destination when their upstream is closed."""

from __future__ import annotations

import asyncio
import gc
from importlib import import_module
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from fastapi_proxy_di import Balancer, UpstreamClosed, UpstreamConnectError
from fastapi_proxy_di.transport.protocol import OutgoingRequest
from fastapi_proxy_di.upstream.closing import close_in_order
from fastapi_proxy_di.upstream.composition import compose
from fastapi_proxy_di.upstream.running import RunningUpstream
from tests.support.gateways import billing, gateway, until
from tests.support.given import given_app, to
from tests.support.http_client import connect, fetch, request
from tests.support.origins import Connection, ScriptedOrigin, response_bytes
from tests.support.virtual_time import run_virtually
from tests.websocket.gateways import serving


async def hold(running: RunningUpstream, seconds: float) -> None:
    """Hold a lease for a time."""
    async with running.lease(None):
        await asyncio.sleep(seconds)


async def started(*destinations: str, **settings: Any) -> RunningUpstream:
    """Start an upstream."""
    running = compose(billing(*destinations, **settings))
    await running.start()
    return running


@pytest.mark.parametrize("limits", [{}, {"max_in_flight": 5}])
async def test_hedged_request_that_has_just_begun_goes_on(limits: dict[str, int]) -> None:
    """It takes its place at a destination some turns of the loop later."""
    async with ScriptedOrigin() as origin:
        running = await started(origin.url, retries={"hedge_after": 10}, limits=limits)
        get = asyncio.create_task(Balancer(running).client.get("/x"))
        await asyncio.sleep(0)
        await close_in_order(running, 10)
        status = (await get).status_code

    assert status == 200


def test_close_refuses_what_waits_in_the_queue() -> None:
    """At a close that gives nobody time, and also a request whose place has just become free."""

    async def run() -> list[type[BaseException] | None]:
        limits = {"max_in_flight": 1, "queue": 3, "queue_timeout": 60}
        running = await started("http://a", limits=limits)
        began = asyncio.get_running_loop().time()
        holding = [asyncio.create_task(hold(running, 2)) for _ in range(3)]
        await asyncio.sleep(1)
        running.admission._wake()  # in vain, as by a place that another request takes first
        await running.aclose()
        results = await asyncio.gather(*holding, return_exceptions=True)
        assert asyncio.get_running_loop().time() - began < 3
        return [None if one is None else type(one) for one in results]

    assert run_virtually(run()) == [None, UpstreamClosed, UpstreamClosed]


async def test_close_ends_a_pause_before_a_retry() -> None:
    """The request would only find everything closed after it."""

    async def breaking(connection: Connection) -> None:
        await connection.read_request()

    async with ScriptedOrigin(breaking) as origin, asyncio.timeout(10):
        running = await started(origin.url, retries={"backoff": 3600})
        get = asyncio.create_task(Balancer(running).client.get("/x"))
        await until(lambda: running.pool.destinations[0].failures)
        await close_in_order(running, 0)
        with pytest.raises(UpstreamClosed) as caught:
            await get

    assert caught.value.request_sent
    assert len(caught.value.attempts) == len(origin.requests) == 1


@pytest.mark.e2e
@pytest.mark.parametrize("reloaded", [False, True])
async def test_request_whose_body_comes_after_the_close_is_refused(reloaded: bool) -> None:
    """It has not begun, also if the settings have changed since its head came."""
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url) as gate,
        connect(gate.address) as client,
    ):
        running = gate.balancer._running
        head = request("POST", "/billing/x", [(b"Content-Length", b"4")])
        await client.send(head)
        await asyncio.sleep(0.05)
        if reloaded:
            await gate.balancer.reload(billing(origin.url, retries={"attempts": 3}))
        await close_in_order(running, 0)
        await client.send(b"body")
        reply = await client.read_response()

    assert reply.status == 503
    assert b"upstream_closed" in reply.body


@pytest.mark.e2e
async def test_connection_of_earlier_settings_is_closed() -> None:
    """To an address, whose request ended after the settings had changed."""

    async def slow(connection: Connection) -> None:
        await connection.read_request()
        await go_on.wait()
        await connection.send(response_bytes(body=b"whole"))
        await connection.peer_left()

    go_on = asyncio.Event()
    app = given_app(limits={"idle_seconds": 3600})
    async with ScriptedOrigin(slow) as origin, serving(app) as gateway:
        running = gateway.balancer._running
        get = asyncio.create_task(
            fetch(gateway.address, target="/billing/x", headers=to(origin.url))
        )
        await until(lambda: origin.requests)
        running.use(running.rules)
        go_on.set()
        assert (await get).status == 200
        gc.collect()
        await close_in_order(running, 0)
        await origin.all_left()


async def held_dial(connection: Connection) -> None:
    """Accept a connection, and leave the handshake of TLS unanswered."""
    await connection.peer_left()


@pytest.mark.parametrize("version", ["1.1", "2"])
@pytest.mark.parametrize("websocket", [False, True])
@pytest.mark.parametrize("reloaded", [False, True])
async def test_dial_is_broken_off(version: str, websocket: bool, reloaded: bool) -> None:
    """With an error, also of a transport that a reload has replaced."""
    async with ScriptedOrigin(held_dial) as origin, asyncio.timeout(10):
        url = f"https://127.0.0.1:{origin.port}"
        settings: dict[str, Any] = {"http_version": version, "timeouts": {"connect": 3600}}
        running = await started(url, **settings)
        transport = running.transports.by_destination[running.pool.destinations[0]].transport
        outgoing = OutgoingRequest(b"GET", b"/x", [(b"host", b"a")], 1.0, upgrade=websocket)
        dialling = asyncio.create_task(transport.start(outgoing, b"", more=False))
        await until(lambda: origin.connections)
        if reloaded:
            await Balancer(running).reload(billing(url, **settings, tls={"verify": False}))
            await asyncio.sleep(0)
        await running.aclose()
        with pytest.raises(UpstreamConnectError, match="shut down"):
            await dialling
        await origin.all_left()


class SlowToEnd:
    """An in-process app whose shutdown takes a while."""

    def __init__(self) -> None:
        self.ends: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.ends.append("begun")
        await asyncio.sleep(0.2)
        self.ends.append("ended")
        await send({"type": "lifespan.shutdown.complete"})


slow_to_end = SlowToEnd()


async def test_app_that_was_removed_ends_whole() -> None:
    """Also if its upstream is closed during its shutdown."""
    running = await started("asgi://tests.upstream.test_closing_begun:slow_to_end")
    Balancer(running).replace_destinations(["http://a"])
    # The module that the address names, which may be another object than this one.
    ends = import_module("tests.upstream.test_closing_begun").slow_to_end.ends
    await until(lambda: ends)
    await running.aclose()

    assert ends == ["begun", "ended"]
    assert not [one for one in asyncio.all_tasks() if "asgi://" in one.get_name()]
