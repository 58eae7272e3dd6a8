"""Runs a gateway for a test: one FastAPI app, one upstream, real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.middleware.base import RequestResponseEndpoint

from fastapi_proxy_di import Balancer, Upstream, UpstreamSettings, proxy_router
from tests.support.servers import Running, run_app, run_app_in_thread

__all__ = ["Billing", "Gateway", "billing", "gateway", "gateway_app", "pass_through", "until"]


class Billing(UpstreamSettings, name="billing"):
    """Settings of the upstream that most tests use."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running gateway: where it listens, its app and its upstream."""

    running: Running
    app: FastAPI

    @property
    def address(self) -> tuple[str, int]:
        """Host and port for a client."""
        return self.running.address

    @property
    def balancer(self) -> Balancer:
        """The live upstream."""
        return Upstream("billing").of(self.app)

    @property
    def in_flight(self) -> int:
        """Requests in flight at all destinations."""
        return sum(destination.in_flight for destination in self.balancer.destinations)


def billing(*destinations: str, **settings: Any) -> Billing:
    """Settings of the upstream; nested models may be given as mappings."""
    return Billing(**{"destinations": list(destinations), **settings})


async def pass_through(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """Do nothing, as a middleware of ``@app.middleware("http")``."""
    return await call_next(request)


def gateway_app(
    *destinations: str,
    prefix: str = "/billing",
    router: Mapping[str, Any] | None = None,
    include: Mapping[str, Any] | None = None,
    middlewares: int = 0,
    app: FastAPI | None = None,
    **settings: Any,
) -> FastAPI:
    """Build an app that proxies ``prefix`` to the upstream ``billing``.

    Args:
        *destinations: Addresses.
        prefix: Where the router is mounted.
        router: Further arguments of ``proxy_router``.
        include: Further arguments of ``include_router``.
        middlewares: How many ``@app.middleware("http")`` stand in front.
        app: An app to add to, instead of a new one.
        **settings: Of the upstream.
    """
    app = app or FastAPI()
    app.include_router(
        proxy_router(billing(*destinations, **settings), **(router or {})),
        prefix=prefix,
        **(include or {}),
    )
    for _ in range(middlewares):
        app.middleware("http")(pass_through)
    return app


@contextlib.asynccontextmanager
async def gateway(
    *destinations: str,
    server: Mapping[str, Any] | None = None,
    in_thread: bool = False,
    **options: Any,
) -> AsyncIterator[Gateway]:
    """Run an app as ``gateway_app`` builds it.

    Args:
        *destinations: Addresses.
        server: Options of ``uvicorn.Config``.
        in_thread: Run it in a thread and loop of its own.
        **options: As for ``gateway_app``.
    """
    app = gateway_app(*destinations, **options)
    run = run_app_in_thread if in_thread else run_app
    async with run(app, **(server or {})) as running:
        yield Gateway(running, app)


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until a condition is true that no event reports; ``seconds`` is for slow machines.

    Raises:
        TimeoutError: The condition has not come true in that many seconds.
    """
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.002)
