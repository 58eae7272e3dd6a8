"""``rate_limit`` of apps that share a store: together while it is there, each its share without."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection

from fastapi_proxy_di import ClusterSettings, ProxySettings, proxy_lifespan, rate_limit
from fastapi_proxy_di.cluster.cluster import Cluster
from fastapi_proxy_di.integration.lifespan import runtime_of
from fastapi_proxy_di.limiting.shared import SharedLimiter
from tests.support.gateways import until
from tests.support.http_client import RawResponse, fetch
from tests.support.redis_servers import RedisServer
from tests.support.servers import Running, run_app

pytestmark = pytest.mark.e2e

TIMEOUT = 0.5


def user(connection: HTTPConnection) -> str:
    """The user, as a test says it."""
    return connection.headers.get("x-user", "ada")


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A redis-server."""
    with RedisServer() as server:
        yield server


def app_of(server: RedisServer, **settings: Any) -> FastAPI:
    """An app with a limit and a store, and no upstream."""
    app = FastAPI(lifespan=proxy_lifespan)
    cluster = {"store": server.url, "name": "shop", "key": "k" * 16, "timeout": TIMEOUT}
    proxy_lifespan.configure(app, ProxySettings(cluster=ClusterSettings(**cluster | settings)))
    app.get("/", dependencies=[Depends(rate_limit("100/minute", key=user))])(lambda: None)
    return app


@asynccontextmanager
async def apps(
    server: RedisServer, number: int, **settings: Any
) -> AsyncIterator[tuple[list[Running], list[Cluster]]]:
    """Run several apps that share the store, and know of each other."""
    async with AsyncExitStack() as stack:
        made = [app_of(server, **settings) for _ in range(number)]
        running = [await stack.enter_async_context(run_app(app)) for app in made]
        clusters = [cluster for app in made if (cluster := runtime_of(app, "").cluster)]
        assert len(clusters) == number
        await until(lambda: all(one.state.alive == number for one in clusters))
        yield running, clusters


async def get(running: Running, number: int) -> list[RawResponse]:
    """Send that many requests at once."""
    return await asyncio.gather(*(fetch(running.address, target="/") for _ in range(number)))


async def test_apps_with_one_store_count_together(server: RedisServer) -> None:
    """Requests have the headers of what all have taken; no key is in the store in clear."""
    async with apps(server, 2) as ((one, two), _):
        first = await get(one, 60)
        second = await get(two, 60)

        assert {response.status for response in first} == {200}
        assert sorted(response.status for response in second) == [200] * 40 + [429] * 20
        refused = next(response for response in second if response.status == 429)
        assert (refused.one(b"ratelimit") or b"").startswith(b'"100/minute";r=0;t=')
        assert not any(b"ada" in key for key in server.client.keys("*:limit:*"))


async def test_lost_store_leaves_each_app_its_share(server: RedisServer) -> None:
    """Until it is back; what was taken before counts then."""
    async with apps(server, 2) as ((one, two), clusters):
        await get(one, 10)
        server.pause()
        lost = await get(one, 100)
        refused = await get(one, 100)
        other = await get(two, 60)
        server.resume()

        assert [response.status for response in lost].count(200) == 50
        assert {response.status for response in refused} == {429}
        assert [response.status for response in other].count(200) == 50

        await until(lambda: not any(cluster.store.contact.lost for cluster in clusters))
        (back,) = await get(one, 1)
        told = re.search(rb"r=(\d+)", back.one(b"ratelimit") or b"")
        assert told is not None
        assert int(told[1]) <= 89, "10 were taken before, and perhaps some without a response"


async def test_one_request_of_a_thousand_waits_for_a_store_that_hangs(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each app the others are answered at once, while one probe a second looks for the store."""
    waited: Counter[int] = Counter()

    take = SharedLimiter.take

    def watched(limiter: SharedLimiter, *arguments: Any) -> Any:
        taken = take(limiter, *arguments)
        waited[id(limiter)] += isinstance(taken, asyncio.Future)
        return taken

    async with apps(server, 2) as (running, clusters):
        await asyncio.gather(*(get(one, 5) for one in running))
        server.pause()
        monkeypatch.setattr(SharedLimiter, "take", watched)
        for _ in range(500):
            for response in await asyncio.gather(*(get(one, 1) for one in running)):
                assert response[0].status in (200, 429)
        assert all(cluster.store.contact.lost for cluster in clusters)
        server.resume()

    assert len(waited) == 2, "both have counted requests"
    assert max(waited.values()) <= 1, waited


async def test_key_may_be_text_that_is_no_utf_8(server: RedisServer) -> None:
    """With and without a store; each such key counts for itself."""
    for store in (server, None):
        app = app_of(server) if store else FastAPI(lifespan=proxy_lifespan)
        limit = rate_limit("1/minute", key=lambda one: one.query_params["k"] + "\udcff", name="k")
        app.get("/keys", dependencies=[Depends(limit)])(lambda: None)
        async with run_app(app) as running:
            statuses = [
                (await fetch(running.address, target=f"/keys?k={key}")).status for key in "aab"
            ]
        assert statuses == [200, 429, 200]


async def test_lost_store_refuses_if_the_settings_say_so(server: RedisServer) -> None:
    """503, with a second to wait."""
    async with apps(server, 1, on_store_lost="refuse") as ((one,), _):
        assert {response.status for response in await get(one, 5)} == {200}
        server.kill()

        responses = await get(one, 5)

    assert {response.status for response in responses} == {503}
    assert {response.one(b"retry-after") for response in responses} == {b"1"}
    assert responses[0].json()["failure"] == "limits_unavailable"
