"""Lifespans that fail: everything that was started is stopped."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest
from fastapi import APIRouter, FastAPI

from fastapi_proxy_di import (
    ProxyNotStarted,
    Upstream,
    UpstreamSettings,
    proxy_lifespan,
    proxy_router,
)
from tests.support.gateways import billing
from tests.support.origins import Connection, ScriptedOrigin

Lifespan = Callable[[FastAPI], contextlib.AbstractAsyncContextManager[None]]


class Users(UpstreamSettings, name="users"):
    """A second upstream."""


class Broken(Exception):
    """The exception of a failing lifespan."""


@contextlib.asynccontextmanager
async def fails_at_start(_: FastAPI) -> AsyncIterator[None]:
    """Fail before the app is served."""
    raise Broken("at start")
    yield


@contextlib.asynccontextmanager
async def fails_at_end(_: FastAPI) -> AsyncIterator[None]:
    """Fail when the app ends."""
    yield
    raise Broken("at end")


def _app_fails(url: str, lifespan: Lifespan) -> FastAPI:
    @contextlib.asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[None]:
        async with proxy_lifespan(app), lifespan(app):
            yield

    app = FastAPI(lifespan=own)
    app.include_router(proxy_router(_probed(url)), prefix="/billing")
    return app


def _later_router_fails(url: str, lifespan: Lifespan) -> FastAPI:
    app = FastAPI()
    app.include_router(proxy_router(_probed(url)), prefix="/billing")
    app.include_router(APIRouter(lifespan=lifespan))
    return app


def _earlier_router_fails(url: str, lifespan: Lifespan) -> FastAPI:
    app = FastAPI()
    app.include_router(APIRouter(lifespan=lifespan))
    app.include_router(proxy_router(_probed(url)), prefix="/billing")
    return app


def _probed(url: str) -> UpstreamSettings:
    return billing(url, health={"path": "/health", "interval": 0.01, "jitter": 0})


async def _nothing_is_left(app: FastAPI, origin: ScriptedOrigin, before: set[str]) -> None:
    await origin.all_left()
    with pytest.raises(ProxyNotStarted):
        Upstream("billing").of(app)
    assert _names() <= before


def _names() -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks()}


_PLACES = [_app_fails, _later_router_fails, _earlier_router_fails]


@pytest.mark.parametrize("place", _PLACES)
async def test_failing_start_stops_started_upstreams(place: Callable[..., FastAPI]) -> None:
    """Probers and connections end, wherever the failing lifespan is."""
    async with ScriptedOrigin() as origin:
        app, before = place(origin.url, fails_at_start), _names()
        with pytest.raises(Broken):
            await app.router.lifespan_context(app).__aenter__()
        await _nothing_is_left(app, origin, before)


@pytest.mark.parametrize("place", _PLACES)
async def test_failing_end_stops_the_upstreams(place: Callable[..., FastAPI]) -> None:
    """Nothing runs on after a failure at shutdown."""
    async with ScriptedOrigin() as origin:
        app, before = place(origin.url, fails_at_end), _names()
        with pytest.raises(Broken):
            async with app.router.lifespan_context(app):
                Upstream("billing").of(app)
        await _nothing_is_left(app, origin, before)


async def test_one_upstream_that_cannot_start_stops_the_others() -> None:
    """The in-process app of the second fails, and the first's prober ends."""
    async with ScriptedOrigin() as origin:
        app, before = FastAPI(), _names()
        app.include_router(proxy_router(_probed(origin.url)), prefix="/billing")
        inner = "asgi://tests.integration.inner_apps:fails_at_start"
        app.include_router(proxy_router(Users(destinations=[inner])), prefix="/users")
        with pytest.raises(Exception, match="inner app is broken"):
            await app.router.lifespan_context(app).__aenter__()
        await _nothing_is_left(app, origin, before)


async def test_cancelled_start_stops_started_upstreams() -> None:
    """The server stops while the app starts."""
    asked = asyncio.Event()

    async def never_responds(connection: Connection) -> None:
        asked.set()
        await connection.peer_left()

    async with ScriptedOrigin(never_responds) as origin:
        app, before = FastAPI(), _names()
        app.include_router(proxy_router(_probed(origin.url)), prefix="/billing")

        task = asyncio.ensure_future(app.router.lifespan_context(app).__aenter__())
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await _nothing_is_left(app, origin, before)
