"""Both clients of an upstream: one of each library, in any thread, and httpx2 as httpx."""

from __future__ import annotations

import asyncio
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import httpx
import httpx2
import pytest
from fastapi import Depends, FastAPI

from fastapi_proxy_di import (
    Balancer,
    LimitExceeded,
    Upstream,
    UpstreamConnectError,
    proxy_lifespan,
)
from tests.client.upstreams import in_flight, pieces, running, silent
from tests.support.gateways import billing, until
from tests.support.http_client import fetch
from tests.support.origins import Connection, ScriptedOrigin, always, chunk, response_bytes
from tests.support.servers import dead_port, run_app


@pytest.mark.parametrize("name", ["client", "httpx2_client"])
async def test_clients_are_one_for_all_threads(name: str) -> None:
    """Threads that ask first at the same moment get the same client, which works in the loop."""
    count = 8
    barrier = Barrier(count)
    interval = sys.getswitchinterval()
    async with ScriptedOrigin() as origin, running(origin.url) as balancer:

        def ask() -> object:
            barrier.wait()
            return getattr(balancer, name)

        sys.setswitchinterval(1e-6)
        try:
            with ThreadPoolExecutor(count) as threads:
                loop = asyncio.get_running_loop()
                asked = [loop.run_in_executor(threads, ask) for _ in range(count)]
                clients = await asyncio.gather(*asked)
        finally:
            sys.setswitchinterval(interval)
        reply = await getattr(balancer, name).get("/")

    assert len({id(client) for client in clients}) == 1
    assert reply.text == "ok"


@pytest.mark.e2e
async def test_clients_are_there_for_plain_dependencies_from_the_first_request() -> None:
    """FastAPI calls a plain ``def`` dependency in a thread."""
    app = FastAPI(lifespan=proxy_lifespan)
    async with ScriptedOrigin() as origin:
        upstream = Upstream(billing(origin.url))

        def old(balancer: Balancer = Depends(upstream)) -> httpx.AsyncClient:
            return balancer.client

        def new(balancer: Balancer = Depends(upstream)) -> httpx2.AsyncClient:
            return balancer.httpx2_client

        @app.get("/")
        async def both(
            one: Any = Depends(old),
            other: Any = Depends(new),
        ) -> list[str]:
            return [(await one.get("/one")).text, (await other.get("/other")).text]

        async with run_app(app) as server:
            reply = await fetch(server.address, "GET", "/")

    assert json.loads(reply.body) == ["ok", "ok"]
    assert [seen.target for seen in origin.requests] == [b"/one", b"/other"]


async def test_httpx2_client_names_the_extra_that_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The httpx client works without it."""
    monkeypatch.setitem(sys.modules, "httpx2", None)
    async with ScriptedOrigin() as origin, running(origin.url) as balancer:
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'fastapi-proxy-di\[httpx2\]'"):
            _ = balancer.httpx2_client
        reply = await balancer.client.get("/")

    assert reply.text == "ok"


async def test_httpx2_client_is_of_httpx2() -> None:
    """Client and responses are of the library that the SDK checks them against."""
    async with ScriptedOrigin() as origin, running(origin.url) as balancer:
        client = balancer.httpx2_client
        reply = await client.post(f"{client.base_url}v1/x", content=pieces(b"ab", b"c"))

    assert isinstance(client, httpx2.AsyncClient)
    assert isinstance(reply, httpx2.Response)
    assert (origin.request.target, origin.request.body) == (b"/v1/x", b"abc")


async def test_httpx2_client_shares_the_pool() -> None:
    """Both clients use one connection, and the counts are those of the upstream."""
    async with ScriptedOrigin() as origin, running(origin.url) as balancer:
        await balancer.client.get("/")
        async with balancer.httpx2_client.stream("GET", "/") as reply:
            busy = in_flight(balancer)
            await reply.aread()
        free = in_flight(balancer)

    assert (origin.connections, busy, free) == (1, 1, 0)


async def test_httpx2_client_retries_elsewhere() -> None:
    """The retries of the settings apply."""
    async with (
        ScriptedOrigin() as good,
        running(f"http://127.0.0.1:{dead_port()}", good.url, policy="first") as balancer,
    ):
        reply = await balancer.httpx2_client.get("/")

    assert reply.text == "ok"


async def test_httpx2_client_reads_events_as_they_come() -> None:
    """httpx2's own reader of server-sent events gets each event before the next is sent."""
    go_on = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" + chunk(b"data: one\n\n")
        )
        await go_on.wait()
        await connection.send(chunk(b"data: two\n\n") + chunk(b""))

    seen = []
    async with (
        ScriptedOrigin(script) as origin,
        running(origin.url) as balancer,
        balancer.httpx2_client.stream("GET", "/") as reply,
    ):
        async for line in reply.aiter_lines():
            seen.append(line)
            go_on.set()

    assert [line for line in seen if line] == ["data: one", "data: two"]


async def test_httpx2_client_keeps_no_cookies_and_follows_no_redirect() -> None:
    """As the client of httpx."""
    moved = response_bytes(
        302, headers=[(b"Location", b"http://other/"), (b"Set-Cookie", b"session=ada; Path=/")]
    )
    async with ScriptedOrigin(always(moved)) as origin, running(origin.url) as balancer:
        first = await balancer.httpx2_client.get("/")
        await balancer.httpx2_client.get("/")

    assert (first.status_code, first.cookies["session"]) == (302, "ada")
    assert [seen.all(b"cookie") for seen in origin.requests] == [[], []]


async def test_httpx2_client_survives_being_closed_until_the_upstream_is() -> None:
    """SDKs close the client that they get."""
    async with ScriptedOrigin() as origin, running(origin.url) as balancer:
        client = balancer.httpx2_client
        async with client:
            await client.get("/")
        await client.aclose()
        reply = await balancer.httpx2_client.get("/")

    assert reply.text == "ok"
    with pytest.raises(RuntimeError, match="closed"):
        await client.get("/")


async def test_httpx2_client_reaches_no_other_authority() -> None:
    """The error is httpx2's."""
    async with ScriptedOrigin() as origin, running(origin.url) as balancer:
        with pytest.raises(httpx2.UnsupportedProtocol, match="'billing'"):
            await balancer.httpx2_client.get("http://other/")

    assert origin.requests == []


async def test_httpx2_client_error_is_httpx2_and_ours() -> None:
    """SDKs catch httpx2's exceptions, the app ours: the error is both."""
    async with running(f"http://127.0.0.1:{dead_port()}") as balancer:
        with pytest.raises(httpx2.ConnectError) as raised:
            await balancer.httpx2_client.get("/x")

    assert isinstance(raised.value, UpstreamConnectError)
    assert not isinstance(raised.value, httpx.HTTPError)
    assert raised.value.request.url.path == "/x"


async def test_httpx2_client_timeouts_of_the_caller_are_httpx2_errors() -> None:
    """Of the queue and of the response."""
    limits = {"max_in_flight": 1, "queue": 1, "queue_timeout": 30}
    async with ScriptedOrigin(silent) as origin, running(origin.url, limits=limits) as balancer:
        client = balancer.httpx2_client
        first = asyncio.create_task(client.get("/", timeout=httpx2.Timeout(None)))
        await until(lambda: origin.requests)
        with pytest.raises(httpx2.PoolTimeout) as raised:
            await client.get("/", timeout=httpx2.Timeout(None, pool=0.01))
        first.cancel()
        await asyncio.wait((first,))
        with pytest.raises(httpx2.ReadTimeout):
            await client.get("/", timeout=0.05)

    assert isinstance(raised.value, LimitExceeded)
