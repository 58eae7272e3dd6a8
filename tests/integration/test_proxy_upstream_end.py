"""``proxy_upstream``: the end of an upstream, of its app, and of a start."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import pytest
from fastapi import FastAPI

from fastapi_proxy_di import (
    ProxyNotStarted,
    UpstreamClosed,
    proxy_upstream,
)
from fastapi_proxy_di.integration.lifespan import RUNTIME
from fastapi_proxy_di.supervision.prober import Prober
from tests.integration.tenants import Gateway, running_gateway, tenant
from tests.support.gateways import until
from tests.support.http_client import Ending, connect, fetch, request
from tests.support.origins import Connection, ScriptedOrigin, chunk, response_bytes
from tests.support.servers import run_app
from tests.support.websocket_client import open_websocket
from tests.websocket.upstreams import EchoApp

pytestmark = pytest.mark.e2e


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    """A running gateway without tenants."""
    async with running_gateway() as made:
        yield made


async def endless(connection: Connection) -> None:
    """Begin a response, and end it after the client has sent something more."""
    await connection.read_request()
    await connection.send(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"first")
    )
    await connection.peer_left()


async def test_open_requests_end_in_their_time(gateway: Gateway) -> None:
    """A response that ends within ``drain`` is whole; new requests are refused meanwhile."""
    go_on = asyncio.Event()

    async def slow(connection: Connection) -> None:
        await connection.read_request()
        await go_on.wait()
        await connection.send(response_bytes(body=b"whole"))

    async with ScriptedOrigin(slow) as origin, connect(gateway.running.address) as client:
        running = gateway.tenant("acme", origin.url)
        balancer = await running.__aenter__()
        await client.send(request(target="/acme/x"))
        await until(lambda: origin.requests)
        ending = asyncio.create_task(running.__aexit__(None, None, None))
        await asyncio.sleep(0)
        refused = await fetch(gateway.running.address, target="/acme/y")
        shown = await gateway.text("/-/metrics")
        go_on.set()
        reply = await client.read_response()
        await ending

    assert (reply.status, reply.body) == (200, b"whole")
    assert refused.status == 503
    assert 'proxy_upstream="acme"' in shown
    assert sum(one.in_flight for one in balancer.destinations) == 0


async def test_what_is_open_for_longer_is_broken_off(gateway: Gateway) -> None:
    """The response visibly, the WebSocket with 1001; no connection is left."""
    echo = EchoApp()
    async with (
        ScriptedOrigin(endless) as origin,
        run_app(echo, ws="websockets-sansio") as chat,
        connect(gateway.running.address) as client,
    ):
        async with gateway.tenant("acme", origin.url, drain=0) as acme:
            await client.send(request(target="/acme/events"))
            stream = await client.read_head()
            await client.read_chunk()
        await client.read_body(stream)
        await origin.all_left()
        async with contextlib.AsyncExitStack() as stack:
            async with gateway.tenant("chat", chat.url, drain=0):
                tunnel = await stack.enter_async_context(
                    open_websocket(gateway.running.address, "/chat/live")
                )
            closed = await tunnel.ended()
        await until(lambda: not echo.open)

    assert stream.ending is Ending.BROKEN
    assert closed.code == 1001
    assert sum(one.in_flight for one in acme.destinations) == 0


async def test_app_closes_upstreams_whose_block_still_runs() -> None:
    """In any order; the end of the block does nothing then."""
    made = Gateway()
    before = asyncio.all_tasks()
    async with ScriptedOrigin() as origin, contextlib.AsyncExitStack() as stack:
        async with run_app(made.app) as made.running:
            balancers = [
                await stack.enter_async_context(made.tenant(name, origin.url, health={"path": "/"}))
                for name in ("acme", "blue")
            ]
        with pytest.raises(ProxyNotStarted, match="the lifespan of this app has ended"):
            proxy_upstream(made.app, tenant("late", origin.url))
        for balancer in balancers:
            with pytest.raises(UpstreamClosed):
                await balancer.client.get("/x")
        await origin.all_left()
    left = {task.get_name() for task in asyncio.all_tasks() - before}

    assert left == set()


async def test_app_that_has_not_started_has_no_upstreams() -> None:
    """The error has the line to add."""
    with pytest.raises(ProxyNotStarted, match=r"'acme' cannot be started.*proxy_lifespan"):
        proxy_upstream(FastAPI(), tenant("acme", "http://127.0.0.1:1"))


async def silent(connection: Connection) -> None:
    """Never respond to a probe."""
    await connection.read_request()
    await connection.peer_left()


async def test_app_that_ends_ends_a_start(gateway: Gateway) -> None:
    """An upstream whose first probe waits is closed with the app."""
    async with ScriptedOrigin(silent) as origin:
        health = {"path": "/", "timeout": 60}
        running = gateway.tenant("acme", origin.url, health=health)
        starting = asyncio.create_task(running.__aenter__())
        await until(lambda: origin.requests)
        await getattr(gateway.app, RUNTIME).aclose()
        with pytest.raises(ProxyNotStarted, match="the app ended meanwhile"):
            await starting
        await origin.all_left()


async def test_start_that_is_cancelled_leaves_nothing(gateway: Gateway) -> None:
    """Neither connection nor name."""
    async with ScriptedOrigin(silent) as origin:
        health = {"path": "/", "timeout": 60}
        running = gateway.tenant("acme", origin.url, health=health)
        starting = asyncio.create_task(running.__aenter__())
        await until(lambda: origin.requests)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        await origin.all_left()
    async with ScriptedOrigin() as origin, gateway.tenant("acme", origin.url):
        reply = await fetch(gateway.running.address, target="/acme/x")

    assert reply.status == 200


async def test_end_that_is_cancelled_closes_at_once(gateway: Gateway) -> None:
    """Without the rest of its time."""
    async with ScriptedOrigin(endless) as origin, connect(gateway.running.address) as client:
        running = gateway.tenant("acme", origin.url, drain=3600)
        await running.__aenter__()
        await client.send(request(target="/acme/events"))
        await client.read_head()
        ending = asyncio.create_task(running.__aexit__(None, None, None))
        await asyncio.sleep(0.01)
        ending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ending
        await origin.all_left()
        async with gateway.tenant("acme", origin.url):
            pass


async def test_tasks_of_an_upstream_have_no_context_of_a_request(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request may start an upstream, and its span and id end before the upstream's probes."""
    of_request: ContextVar[str] = ContextVar("of_request", default="none")
    seen: list[str] = []
    start = Prober.start

    def recorded(self: Prober, **options: Any) -> None:
        seen.append(of_request.get())
        start(self, **options)

    monkeypatch.setattr(Prober, "start", recorded)
    of_request.set("a request")
    async with ScriptedOrigin() as origin, gateway.tenant("acme", origin.url):
        pass

    assert seen == ["none"]


async def test_close_that_fails_is_logged(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The block of a tenant that is gone raises nothing, so that the others go on."""
    close = Prober.aclose

    async def failing(prober: Prober) -> None:
        await close(prober)
        raise RuntimeError("no")

    async with gateway.tenant("acme", "http://127.0.0.1:9"):
        monkeypatch.setattr(Prober, "aclose", failing)
    monkeypatch.undo()

    assert "acme: closing failed" in caplog.messages
