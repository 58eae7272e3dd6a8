"""In-process apps: import, start and shutdown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from fastapi_proxy_di import Balancer, SettingsError, proxy_router
from fastapi_proxy_di.errors import UpstreamConnectError
from tests.support.gateways import billing, gateway, until
from tests.support.http_client import fetch
from tests.support.servers import StartupFailed, run_app
from tests.transport.asgi.apps import Inner


@pytest.mark.e2e
async def test_asgi_lifespan_runs_within_the_gateways(inner: Inner) -> None:
    """Startup before the first probe, the state in every request, shutdown awaited."""
    order: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        await asyncio.sleep(0)
        order.append("up")
        yield {"name": "state"}
        await asyncio.sleep(0)
        order.append("down")

    app = FastAPI(lifespan=lifespan)

    @app.get("/health")
    async def health() -> None:
        order.append("probed")

    @app.get("/state")
    async def state(request: Request) -> str:
        name: str = request.state.name
        request.state.name = "changed"
        return name

    async with gateway(inner(app), health={"path": "/health"}) as gate:
        healthy = gate.balancer.destinations[0].healthy
        names = [(await fetch(gate.address, "GET", "/billing/state")).json() for _ in range(2)]

    assert (order, healthy) == (["up", "probed", "down"], True)
    assert names == ["state", "state"]


async def test_asgi_app_that_a_request_adds_sees_no_context_of_it(inner: Inner) -> None:
    """Neither its lifespan nor its requests: both may come long after that request."""
    request: ContextVar[str] = ContextVar("request", default="none")
    seen: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        seen.append(request.get())
        yield
        seen.append(request.get())

    app = FastAPI(lifespan=lifespan)

    @app.get("/")
    async def root() -> None:
        seen.append(request.get())

    async with Balancer.from_settings(billing("http://127.0.0.1:1")) as balancer:
        _ = request.set("that which adds")
        balancer.replace_destinations([inner(app)])
        await balancer.client.get("/")

    assert seen == ["none"] * 3


@pytest.mark.e2e
async def test_asgi_lifespan_that_fails_stops_the_start(inner: Inner) -> None:
    """The gateway does not start, gives the reason, and closes the apps that had started."""
    order: list[str] = []

    @asynccontextmanager
    async def good(app: FastAPI) -> AsyncIterator[None]:
        order.append("up")
        yield
        order.append("down")

    @asynccontextmanager
    async def bad(app: FastAPI) -> AsyncIterator[None]:
        raise LookupError("no database")
        yield

    urls = inner(FastAPI(lifespan=good)), inner(FastAPI(lifespan=bad))
    with pytest.raises(StartupFailed, match="failed to start: LookupError: no database"):
        await gateway(*urls).__aenter__()

    assert order == ["up", "down"]


@pytest.mark.e2e
async def test_asgi_lifespan_that_reports_a_failure_without_raising(inner: Inner) -> None:
    """The text of ``lifespan.startup.failed`` is the reason."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no licence"})

    with pytest.raises(StartupFailed, match="failed to start: no licence"):
        await gateway(inner(app)).__aenter__()


@pytest.mark.e2e
async def test_asgi_lifespan_that_breaks_later_is_logged(
    inner: Inner, caplog: pytest.LogCaptureFixture
) -> None:
    """An error is logged while running, and requests go on."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await Response("ok")(scope, receive, send)
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        raise LookupError("cron died")

    async with gateway(inner(app)) as gate:
        await until(lambda: any("failed in its lifespan" in one.message for one in caplog.records))
        reply = await fetch(gate.address, "GET", "/billing/")

    assert reply.body == b"ok"


@pytest.mark.e2e
@pytest.mark.parametrize("raises", [False, True])
async def test_asgi_shutdown_that_fails_is_logged_and_stops_nothing(
    inner: Inner, caplog: pytest.LogCaptureFixture, raises: bool
) -> None:
    """Everything else is closed."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "disk full"})
        await send({"type": "lifespan.shutdown.complete"})
        if raises:
            raise LookupError("disk full")

    async with gateway(inner(app)):
        pass

    records = [one for one in caplog.records if one.name == "fastapi_proxy_di.settings"]
    assert [str(one.exc_info[1].exceptions) for one in records if one.exc_info] == [  # type: ignore[union-attr]
        f"({records[0].exc_info[1].exceptions[0]!r},)"  # type: ignore[union-attr, index]
    ]
    assert "disk full" in repr(records[0].exc_info)


async def test_asgi_app_of_two_destinations_has_one_lifespan(inner: Inner) -> None:
    """Two base paths are one app; two upstreams are two lifespans."""
    starts: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        starts.append("up")
        yield
        starts.append("down")

    url = inner(FastAPI(lifespan=lifespan))
    async with Balancer.from_settings(billing(url + "/a", url + "/b")):
        async with Balancer.from_settings(billing(url)):
            two = list(starts)
        one = list(starts)

    assert (two, one, starts) == (["up", "up"], ["up", "up", "down"], ["up", "up", "down", "down"])


async def test_asgi_destination_that_joins_later_starts_then(inner: Inner) -> None:
    """The lifespan starts with the first request, and ends with the removal."""
    order: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        order.append("up")
        yield
        order.append("down")

    app = FastAPI(lifespan=lifespan)
    app.add_route("/", lambda request: JSONResponse("later"))
    first, later = inner(FastAPI()), inner(app)
    async with Balancer.from_settings(billing(first)) as balancer:
        balancer.replace_destinations([later])
        reply, _ = await asyncio.gather(balancer.client.get("/"), balancer.client.get("/"))
        up = list(order)
        balancer.replace_destinations([first])
        await until(lambda: "down" in order)
        balancer.replace_destinations([later])
        again = await balancer.client.get("/")

    assert (reply.json(), again.json(), up) == ("later", "later", ["up"])
    assert order == ["up", "down", "up", "down"]


async def test_asgi_destination_that_joins_and_fails_to_start_is_unreachable(inner: Inner) -> None:
    """A failed start at run time counts as a failed connection."""

    @asynccontextmanager
    async def bad(app: FastAPI) -> AsyncIterator[None]:
        raise LookupError("no database")
        yield

    async with Balancer.from_settings(billing(inner(FastAPI()))) as balancer:
        balancer.replace_destinations([inner(FastAPI(lifespan=bad))])
        with pytest.raises(httpx.ConnectError, match="no database") as raised:
            await balancer.client.get("/")

    assert isinstance(raised.value, UpstreamConnectError)


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("asgi://no.such.module:app", "importing no.such.module failed: ModuleNotFoundError"),
        ("asgi://json:app", "json has no attribute 'app'"),
        ("asgi://json:decoder.app", "json has no attribute 'decoder.app'"),
        ("asgi://sys:path", "'path' is not an ASGI app"),
    ],
)
async def test_asgi_address_that_leads_nowhere_is_a_fault_of_the_settings(
    address: str, text: str
) -> None:
    """The fault is raised at start, with the address."""
    app = FastAPI()
    app.include_router(proxy_router(billing(address)))
    with pytest.raises(StartupFailed) as raised:
        await run_app(app).__aenter__()

    assert isinstance(raised.value.__cause__, SettingsError)
    assert (
        f"upstream 'billing': destinations (UPSTREAM_BILLING_DESTINATIONS): {address}: {text}"
        in str(raised.value)
    )
