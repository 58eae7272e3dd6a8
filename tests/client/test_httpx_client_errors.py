"""Failures and timeouts of the httpx client: errors of httpx and ours in one."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from starlette.responses import Response

from fastapi_proxy_di import (
    Balancer,
    LimitExceeded,
    NoAvailableDestination,
    ProxyError,
    Upstream,
    UpstreamConnectError,
    proxy_lifespan,
)
from fastapi_proxy_di.client.httpx_errors import HttpxErrors
from fastapi_proxy_di.errors import Failure
from tests.client.upstreams import in_flight, pieces, running, silent
from tests.support.gateways import billing, until
from tests.support.http_client import fetch
from tests.support.origins import Connection, ScriptedOrigin
from tests.support.servers import blackhole, dead_port, run_app


async def test_client_error_is_httpx_and_ours() -> None:
    """SDKs catch httpx's exceptions, the app ours: the error is both."""
    port = dead_port()
    async with running(f"http://127.0.0.1:{port}") as balancer:
        with pytest.raises(httpx.ConnectError) as raised:
            await balancer.client.get("/x")

    error = raised.value
    assert isinstance(error, UpstreamConnectError)
    assert isinstance(error.__cause__, UpstreamConnectError)
    assert (error.upstream, error.destination) == ("billing", f"http://127.0.0.1:{port}")
    assert (len(error.attempts), error.request.url.path) == (1, "/x")


@pytest.mark.parametrize("failure", list(Failure))
def test_client_has_an_exception_for_every_failure_it_can_meet(failure: Failure) -> None:
    """Except failures that need a client of the proxy, or the response of `Balancer.forward`."""
    request = httpx.Request("GET", "http://billing/")
    error = ProxyError("text", failure=failure)
    if failure in (
        Failure.REQUEST_BODY_TIMEOUT,
        Failure.REQUEST_BODY_CONSUMED,
        Failure.RESPONSE_TOO_LARGE,
    ):
        with pytest.raises(KeyError):
            HttpxErrors(httpx).make(error, request)
    else:
        made: Any = HttpxErrors(httpx).make(error, request)
        assert (str(made), made.failure, made.request) == ("text", failure, request)


async def test_client_response_that_breaks_off_is_an_error() -> None:
    """A truncated response counts against its destination."""

    async def cut(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")

    async with ScriptedOrigin(cut) as origin, running(origin.url) as balancer:
        with pytest.raises(httpx.RemoteProtocolError):
            await balancer.client.get("/")
        async with balancer.client.stream("POST", "/", content=pieces(b"x")) as reply:
            await until(lambda: any("client of" in t.get_name() for t in asyncio.all_tasks()))
            with pytest.raises(httpx.RemoteProtocolError):
                await reply.aread()
        state = (in_flight(balancer), balancer.destinations[0].failures)

    assert state == (0, 2)


async def test_client_retries_elsewhere() -> None:
    """The retries of the settings apply."""
    async with (
        ScriptedOrigin() as good,
        running(f"http://127.0.0.1:{dead_port()}", good.url, policy="first") as balancer,
    ):
        reply = await balancer.client.post("/", content=b"hello")

    assert (reply.status_code, good.request.body) == (200, b"hello")


async def test_client_without_destinations_raises() -> None:
    """All are drained."""
    async with ScriptedOrigin() as origin, running(origin.url) as balancer:
        await balancer.drain(origin.url)
        with pytest.raises(httpx.ConnectError) as raised:
            await balancer.client.get("/")

    assert isinstance(raised.value, NoAvailableDestination)
    assert raised.value.retry_after == 1.0


async def test_client_waits_in_the_queue_as_long_as_the_caller_does() -> None:
    """The pool timeout limits the wait for a place, and so do the settings."""
    limits = {"max_in_flight": 1, "queue": 1, "queue_timeout": 30}
    async with ScriptedOrigin(silent) as origin, running(origin.url, limits=limits) as balancer:
        first = asyncio.create_task(balancer.client.get("/"))
        await until(lambda: origin.requests)
        with pytest.raises(httpx.PoolTimeout) as raised:
            await balancer.client.get("/", timeout=httpx.Timeout(None, pool=0.01))
        first.cancel()
        await asyncio.wait((first,))

    assert isinstance(raised.value, LimitExceeded)
    assert (raised.value.upstream, raised.value.limit) == ("billing", "limits.queue")


async def test_client_read_timeout_counts_no_failure() -> None:
    """The caller gets its ReadTimeout, and the destination is not blamed."""
    async with ScriptedOrigin(silent) as origin, running(origin.url) as balancer:
        with pytest.raises(httpx.ReadTimeout):
            await balancer.client.get("/", timeout=0.05)
        await origin.all_left()
        failures = balancer.destinations[0].failures

    assert failures == 0


@pytest.mark.parametrize(
    ("timeouts", "given"),
    [({"activity": 0.05}, {}), ({"first_byte": 0.05}, {}), ({"total": 0.05}, {"timeout": None})],
)
async def test_client_uses_the_timeouts_of_the_settings(
    timeouts: dict[str, float], given: dict[str, Any]
) -> None:
    """If the caller gives none."""
    async with ScriptedOrigin(silent) as origin, running(origin.url, timeouts=timeouts) as balancer:
        with pytest.raises(httpx.ReadTimeout):
            await balancer.client.get("/", **given)


async def test_client_request_without_timeouts_takes_the_settings() -> None:
    """A transport may be driven without a client's defaults."""
    async with (
        ScriptedOrigin(silent) as origin,
        running(origin.url, timeouts={"activity": 0.05}) as balancer,
    ):
        request = httpx.Request("GET", "http://billing/")
        with pytest.raises(httpx.ReadTimeout):
            await balancer.client.send(request)


async def test_client_connect_timeout_of_the_caller_ends_a_dial() -> None:
    """The shorter of the caller's and the settings' connect timeout holds."""
    with blackhole() as port:
        async with running(f"http://127.0.0.1:{port}") as balancer:
            with pytest.raises(httpx.ConnectTimeout) as raised:
                await balancer.client.get("/", timeout=httpx.Timeout(5, connect=0.05))
            state = (in_flight(balancer), balancer.destinations[0].failures)

    assert isinstance(raised.value, ProxyError)
    assert state == (0, 0)


async def test_client_connect_timeout_of_the_settings_is_a_connect_timeout() -> None:
    """It is not mistaken for the caller's own timeout."""
    with blackhole() as port:
        async with running(f"http://127.0.0.1:{port}", timeouts={"connect": 0.05}) as balancer:
            with pytest.raises(httpx.ConnectTimeout):
                await balancer.client.get("/")
            assert balancer.destinations[0].failures == 1


async def test_client_passes_on_a_timeout_that_is_not_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another TimeoutError is not taken for the caller's."""
    async with ScriptedOrigin() as origin, running(origin.url) as balancer:
        transport = next(iter(balancer._running.transports.by_destination.values())).transport

        async def start(*_: object, **__: object) -> None:
            raise TimeoutError("from below")

        monkeypatch.setattr(transport, "start", start)
        with pytest.raises(TimeoutError, match="from below"):
            await balancer.client.get("/")


@pytest.mark.e2e
async def test_client_failure_in_an_endpoint_becomes_its_status() -> None:
    """An error that the endpoint does not catch is 502, not 500."""
    app = FastAPI(lifespan=proxy_lifespan)
    upstream = Upstream(billing(f"http://127.0.0.1:{dead_port()}"))

    @app.get("/", response_model=None)
    async def call(balancer: Balancer = Depends(upstream)) -> Response:
        return Response((await balancer.client.get("/")).content)

    async with run_app(app) as server:
        reply = await fetch(server.address, "GET", "/")

    assert (reply.status, json.loads(reply.body)["failure"]) == (502, "connect")


async def test_refused_url_shows_no_secret() -> None:
    """Neither its user nor its query, which often holds a token."""
    async with Balancer.from_settings(billing("http://10.0.0.1:1")) as balancer:
        with pytest.raises(httpx.UnsupportedProtocol) as raised:
            await balancer.client.get("http://user:geheim@other.example:81/geheim?token=geheim")

    assert "not http://other.example:81;" in str(raised.value)
    assert "geheim" not in str(raised.value)
