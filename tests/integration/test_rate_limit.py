"""``rate_limit`` on endpoints, proxied routes, WebSockets and a ``proxy_app``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import PlainTextResponse, StreamingResponse
from fastapi.testclient import TestClient
from fastapi.websockets import WebSocket
from starlette.requests import HTTPConnection
from starlette.responses import Response

from fastapi_proxy_di import (
    RateLimitExceeded,
    proxy_app,
    proxy_lifespan,
    proxy_router,
    rate_limit,
)
from fastapi_proxy_di.observability.workers import warn_of_local_limits
from tests.support.gateways import billing, pass_through
from tests.support.http_client import RawResponse, connect, fetch
from tests.support.origins import ScriptedOrigin
from tests.support.servers import Running, run_app
from tests.support.websocket_client import open_websocket, shake_hands
from tests.websocket.upstreams import EchoApp, echo_server

pytestmark = pytest.mark.e2e

POLICY = b'"100/minute";q=100;w=60'


def user(connection: HTTPConnection) -> str | None:
    """The user, as a test says it."""
    return connection.headers.get("x-user")


async def later_user(connection: HTTPConnection) -> str | None:
    """The same, asynchronously."""
    await asyncio.sleep(0)
    return user(connection)


def told(response: RawResponse) -> tuple[list[bytes], list[bytes]]:
    """The headers about limits."""
    return response.all(b"ratelimit"), response.all(b"ratelimit-policy")


def limited(*, lifespan: bool = True, **kwargs: Any) -> FastAPI:
    """An app whose responses are made in all ways."""
    app = FastAPI(lifespan=proxy_lifespan if lifespan else None)
    limit = rate_limit("100/minute", **{"key": user, **kwargs})
    only = [Depends(limit)]

    @app.get("/plain", dependencies=only)
    def plain() -> dict[str, str]:
        return {}

    @app.get("/returned", dependencies=only)
    def returned() -> Response:
        return PlainTextResponse("returned", headers={"x-own": "1"})

    @app.get("/streamed", dependencies=only)
    def streamed() -> Response:
        return StreamingResponse(iter(["a", "b"]))

    @app.get("/refused", dependencies=only)
    def refused() -> None:
        raise HTTPException(418)

    @app.get("/failed", dependencies=only)
    def failed() -> None:
        raise ZeroDivisionError

    @app.get("/free")
    def free() -> dict[str, str]:
        return {}

    return app


@asynccontextmanager
async def running(app: FastAPI) -> AsyncIterator[Callable[..., Any]]:
    """Run an app; gives what sends it a GET."""
    async with run_app(app) as server:

        async def get(target: str, name: str = "ada") -> RawResponse:
            return await fetch(server.address, target=target, headers=[(b"x-user", name.encode())])

        yield get


@pytest.mark.parametrize("key", [user, later_user])
async def test_requests_of_each_key_are_limited(key: Callable[..., Any]) -> None:
    """One after the other; a key function may be async, and no key is a key."""
    async with running(limited(key=key)) as get:
        statuses = [(await get("/plain")).status for _ in range(101)]
        assert statuses == [200] * 100 + [429]
        assert (await get("/returned")).status == 429, "the same limit"
        assert (await get("/plain", "bob")).status == 200
        assert (await get("/free")).status == 200


async def test_refusal_is_a_problem_that_says_when_to_come_again() -> None:
    """429, with whole seconds, and the same headers as other responses; no key in it."""
    async with running(limited(cost=100)) as get:
        first, refused = await get("/plain"), await get("/plain")

    assert first.status == 200
    assert told(first) == ([b'"100/minute";r=0;t=60'], [POLICY])
    assert refused.status == 429
    assert refused.one(b"content-type") == b"application/problem+json"
    assert refused.one(b"retry-after") == b"60"
    assert told(refused) == ([b'"100/minute";r=0;t=60'], [POLICY])
    assert refused.json() == {
        "type": "about:blank",
        "title": "Too Many Requests",
        "status": 429,
        "detail": "Too many requests; try again in 60 s.",
        "failure": "rate_limit_exceeded",
    }


@pytest.mark.parametrize("middleware", [False, True])
async def test_every_response_has_the_headers(*, middleware: bool) -> None:
    """Whatever makes it, also behind a middleware that makes responses anew."""
    app = limited()
    if middleware:
        app.middleware("http")(pass_through)
    async with running(app) as get:
        responses = [
            await get(path) for path in ("/plain", "/returned", "/streamed", "/refused", "/failed")
        ]
        free = await get("/free")

    assert [response.status for response in responses] == [200, 200, 200, 418, 500]
    for number, response in enumerate(responses):
        assert told(response) == ([b'"100/minute";r=%d;t=60' % (99 - number)], [POLICY])
    assert responses[1].one(b"x-own") == b"1"
    assert responses[2].body == b"ab"
    assert told(free) == ([], [])


async def test_headers_can_be_left_out() -> None:
    """Those of responses and of refusals; ``Retry-After`` stays."""
    async with running(limited(headers=False, cost=60)) as get:
        first, refused = await get("/plain"), await get("/plain")

    assert (first.status, told(first)) == (200, ([], []))
    assert (refused.status, told(refused)) == (429, ([], []))
    assert refused.one(b"retry-after") == b"60"


async def test_several_rates_tell_the_tightest() -> None:
    """What one of them refuses is taken from none."""
    app = FastAPI(lifespan=proxy_lifespan)
    limit = rate_limit(["2/minute", "3/hour"], key=user, name="calls")

    @app.get("/", dependencies=[Depends(limit)])
    def get_it() -> None:
        pass

    async with running(app) as get:
        answers = [await get("/") for _ in range(3)]

    policy = b'"calls 2/minute";q=2;w=60, "calls 3/hour";q=3;w=3600'
    assert [told(one) for one in answers] == [
        ([b'"calls 2/minute";r=1;t=60'], [policy]),
        ([b'"calls 2/minute";r=0;t=60'], [policy]),
        ([b'"calls 2/minute";r=0;t=60'], [policy]),
    ]
    assert [one.status for one in answers] == [200, 200, 429]


async def test_costs_and_exemptions_are_those_of_the_request() -> None:
    """Both may be async; a cost of nothing passes."""

    async def cost(connection: HTTPConnection) -> int:
        return int(connection.query_params["cost"])

    async def exempt(connection: HTTPConnection) -> bool:
        return user(connection) == "root"

    async with running(limited(cost=cost, exempt=exempt)) as get:
        assert told(await get("/plain?cost=70"))[0] == [b'"100/minute";r=30;t=60']
        assert (await get("/plain?cost=31")).status == 429
        assert (await get("/plain?cost=30")).status == 200
        assert (await get("/plain?cost=0")).status == 200
        assert (await get("/plain?cost=1000", "bob")).status == 429
        root = await get("/plain?cost=1000", "root")
        assert (root.status, told(root)) == (200, ([], []))
        for wrong in ("-1", "x"):
            assert (await get(f"/plain?cost={wrong}", "bob")).status == 500


@pytest.mark.parametrize("kind", ["raises", "number", "later"])
async def test_key_function_that_fails_admits_nothing(kind: str) -> None:
    """A 500, also if it gives no text; an ``HTTPException`` is its own response."""

    def key(connection: HTTPConnection) -> Any:
        if user(connection) == "nobody":
            raise HTTPException(401)
        if kind == "raises":
            raise KeyError("ada")
        return 7 if kind == "number" else asyncio.sleep(0, b"bytes")

    async with running(limited(key=key, name="failing")) as get:
        assert (await get("/plain")).status == 500
        assert (await get("/plain", "nobody")).status == 401


async def test_proxied_requests_are_limited(caplog: pytest.LogCaptureFixture) -> None:
    """Streams have the headers beside those of the upstream, refused requests reach nothing."""
    async with ScriptedOrigin() as origin:
        app = FastAPI()
        app.include_router(
            proxy_router(billing(origin.url)),
            prefix="/billing",
            dependencies=[Depends(rate_limit("2/minute", key=user))],
        )
        async with running(app) as get:
            first = await get("/billing/x")
            await get("/billing/x")
            refused = await get("/billing/x")

        assert (first.status, refused.status) == (200, 429)
        assert told(first) == ([b'"2/minute";r=1;t=60'], [b'"2/minute";q=2;w=60'])
        assert refused.one(b"content-type") == b"application/problem+json"
        assert len(origin.requests) == 2
    assert "ada" not in caplog.text


@pytest.mark.parametrize("mounted", [False, True])
async def test_websockets_are_limited_before_they_are_accepted(*, mounted: bool) -> None:
    """Proxied by a route, and by a ``proxy_app`` with the limit as its guard."""
    limit = rate_limit("1/minute", key=user)
    async with echo_server(EchoApp()) as origin:
        app = FastAPI(lifespan=proxy_lifespan)
        if mounted:
            app.mount("/billing", proxy_app(billing(origin.url), guard=limit))
        else:
            router = proxy_router(billing(origin.url))
            app.include_router(router, prefix="/billing", dependencies=[Depends(limit)])
        async with run_app(app) as server:
            async with open_websocket(server.address, "/billing/live") as client:
                await client.send("hello")
                assert await client.recv() == "hello"
                accepted = client.response
            refused = await shake_hands_refused(server)

    assert told(accepted) == ([b'"1/minute";r=0;t=60'], [b'"1/minute";q=1;w=60'])
    assert refused.status == 429
    assert refused.one(b"retry-after") == b"60"
    assert told(refused) == ([b'"1/minute";r=0;t=60'], [b'"1/minute";q=1;w=60'])
    assert refused.json()["failure"] == "rate_limit_exceeded"


async def test_websocket_of_the_app_has_the_headers() -> None:
    """Where it is accepted."""
    app = FastAPI(lifespan=proxy_lifespan)

    @app.websocket("/live", dependencies=[Depends(rate_limit("1/minute", key=user))])
    async def live(websocket: WebSocket) -> None:
        await websocket.accept(headers=[(b"x-own", b"1")])
        await websocket.send_text("hello")
        await websocket.close()

    async with run_app(app) as server:
        async with open_websocket(server.address, "/live") as client:
            assert await client.recv() == "hello"
            accepted = client.response
        refused = await shake_hands_refused(server, "/live")

    assert told(accepted)[0] == [b'"1/minute";r=0;t=60']
    assert accepted.one(b"x-own") == b"1"
    assert refused.status == 429


async def shake_hands_refused(server: Running, target: str = "/billing/live") -> RawResponse:
    """Open a WebSocket that is denied."""
    async with connect(server.address) as client:
        return await shake_hands(client, target)


async def test_guard_of_a_proxy_app_is_limited_and_has_the_headers() -> None:
    """In the app whose lifespan runs, and where only the block ``running`` does."""
    async with ScriptedOrigin() as origin:
        alone = proxy_app(billing(origin.url), guard=rate_limit("1/minute", key=user))
        app = FastAPI(lifespan=proxy_lifespan)
        app.mount("/in", proxy_app(billing(origin.url), guard=rate_limit("1/minute", key=user)))

        async def plain(scope: Any, receive: Any, send: Any) -> None:
            await alone(scope, receive, send)

        async with running(app) as get:
            answers = [await get("/in/x"), await get("/in/x")]
        async with alone.running(), run_app(plain, lifespan="off") as server:
            answers += [await fetch(server.address, target="/x") for _ in range(2)]

    assert [one.status for one in answers] == [200, 429] * 2
    for one in answers:
        assert told(one) == ([b'"1/minute";r=0;t=60'], [b'"1/minute";q=1;w=60'])
        assert one.one(b"retry-after") == (None if one.status == 200 else b"60")
    assert answers[1].json()["failure"] == answers[3].json()["failure"] == "rate_limit_exceeded"


async def test_limit_holds_without_a_lifespan() -> None:
    """In memory; only refusals have the headers there."""
    async with running(limited(lifespan=False, cost=60)) as get:
        first, refused = await get("/plain"), await get("/plain")

    assert (first.status, told(first)) == (200, ([], []))
    assert (refused.status, told(refused)[1]) == (429, [POLICY])


async def test_app_has_handlers_of_its_own_for_refusals() -> None:
    """By class; one for ``HTTPException`` gets refusals too, with their headers."""
    own, general = limited(cost=60), limited(cost=60)

    @own.exception_handler(RateLimitExceeded)
    async def slow_down(_: Request, error: RateLimitExceeded) -> Response:
        return PlainTextResponse(f"{error.limit} {error.retry_after}", 420)

    @general.exception_handler(HTTPException)
    async def show(_: Request, error: HTTPException) -> Response:
        return PlainTextResponse("general", error.status_code, error.headers)

    @general.exception_handler(Exception)
    async def never(_: Request, error: Exception) -> Response:
        raise AssertionError

    for app, status, body in ((own, 420, b"100/minute 60"), (general, 429, b"general")):
        async with running(app) as get:
            await get("/plain")
            refused = await get("/plain")

        assert (refused.status, refused.body) == (status, body)


def test_apps_do_not_share_counts() -> None:
    """Two apps of one process, as in tests, begin anew; within one, equal names are one limit."""
    limit = rate_limit("2/minute", key=user)
    for _ in range(2):
        app = FastAPI(lifespan=proxy_lifespan)
        app.get("/a", dependencies=[Depends(limit)])(lambda: None)
        app.get("/b", dependencies=[Depends(rate_limit("2/minute", key=user))])(lambda: None)
        app.get("/c", dependencies=[Depends(rate_limit("2/minute", name="c"))])(lambda: None)
        with TestClient(app) as client:
            statuses = [client.get(path).status_code for path in ("/a", "/b", "/a", "/c")]

        assert statuses == [200, 200, 429, 200]


@pytest.mark.parametrize("used", [True, False])
def test_workers_that_count_by_themselves_are_warned_of(
    *, used: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, when the app starts, if it has a limit."""
    monkeypatch.setenv("SERVER_SOFTWARE", "gunicorn/23")
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--workers 4")
    warn_of_local_limits.cache_clear()
    for _ in range(2):
        with TestClient(limited() if used else FastAPI(lifespan=proxy_lifespan)):
            pass
    warn_of_local_limits.cache_clear()

    warnings = [one.getMessage() for one in caplog.records if one.name.endswith(".limits")]
    assert len(warnings) == used
    assert all("one of 4 workers" in one for one in warnings)
