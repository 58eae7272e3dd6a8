"""A thousand upstreams start, serve and end in one app, and leave nothing behind."""

from __future__ import annotations

import asyncio
import gc
import os
import tracemalloc
import weakref
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from fastapi_proxy_di import Balancer, UpstreamSettings, proxy_lifespan, proxy_upstream
from fastapi_proxy_di.integration.lifespan import RUNTIME
from fastapi_proxy_di.observability import instruments
from tests.support.gateways import until
from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin
from tests.support.servers import Running, run_app

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ROUNDS = 1000
MOST_KIB_PER_ROUND = 2.0
"""What may stay of one upstream: its name, its totals, and what the allocator keeps."""


class Tenant(UpstreamSettings, name="tenant"):
    """The settings of all tenants."""


def gateway(balancers: dict[str, Balancer]) -> FastAPI:
    """Make an app that serves its tenants."""
    app = FastAPI(lifespan=proxy_lifespan)

    @app.get("/{tenant}/{path:path}")
    async def forward(request: Request, tenant: str) -> Response:
        return await balancers[tenant].forward(request, mount=f"/{tenant}")

    return app


async def rounds(
    app: FastAPI, running: Running, balancers: dict[str, Balancer], settings: Tenant, numbers: range
) -> list[weakref.ref[Any]]:
    """Start, ask and end upstreams one after the other, each with a name of its own."""
    seen: list[weakref.ref[Any]] = []
    for number in numbers:
        name = f"tenant-{number}"
        async with proxy_upstream(app, settings.named(name)) as balancer:
            _ = balancer.subscribe(lambda event: None)
            balancers[name] = balancer
            reply = await fetch(running.address, target=f"/{name}/x")
            assert reply.status == 200
            seen += [weakref.ref(balancer), weakref.ref(balancer._running.rules.journey)]
            del balancer, balancers[name]
    return seen


def sockets() -> int:
    """Give the number of open sockets and files of this process."""
    return len(list(Path(f"/proc/{os.getpid()}/fd").iterdir()))


async def test_upstreams_leave_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither tasks, sockets, memory, listeners nor sets of labels."""
    for bound in ("ENDED_UPSTREAMS", "ATTRIBUTE_SETS"):
        monkeypatch.setattr(instruments, bound, 20)
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    balancers: dict[str, Balancer] = {}
    app = gateway(balancers)
    app.telemetry = {"meter_provider": provider}  # type: ignore[attr-defined]
    monkeypatch.setattr(
        "fastapi_proxy_di.integration.lifespan.get_meter_provider", lambda: provider
    )
    async with ScriptedOrigin() as origin, run_app(app) as running:
        settings = Tenant(destinations=[origin.url], health={"path": "/health"})
        await rounds(app, running, balancers, settings, range(50))
        events = getattr(app, RUNTIME).events
        await until(lambda: origin.open_connections == 0)
        gc.collect()
        tasks, files, listeners = len(asyncio.all_tasks()), sockets(), len(events._listeners)
        tracemalloc.start()
        try:
            seen = await rounds(app, running, balancers, settings, range(50, 50 + ROUNDS))
            await until(lambda: origin.open_connections == 0)
            origin.requests.clear()
            gc.collect()
            kib = tracemalloc.get_traced_memory()[0] / 1024
        finally:
            tracemalloc.stop()
        await until(lambda: len(asyncio.all_tasks()) <= tasks)
        # The timer of the last one's requests ends within milliseconds.
        await until(lambda: [gc.collect()] and all(one() is None for one in seen))
        data = reader.get_metrics_data()
        assert data is not None
        attempts = [
            (point.attributes or {})["proxy.upstream"]
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == "proxy.attempts"
            for point in metric.data.data_points
        ]

        assert len(asyncio.all_tasks()) <= tasks
        assert sockets() <= files
        assert len(events._listeners) == listeners
        assert len(attempts) == 20
        assert kib / ROUNDS < MOST_KIB_PER_ROUND
