"""The metrics in Prometheus' text format."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text
from starlette.types import Message

from fastapi_proxy_di import metrics_router, proxy_collector, proxy_lifespan, proxy_router

UPSTREAMS = {
    "UPSTREAM_BILLING_DESTINATIONS": "asgi://tests.integration.test_metrics:origin",
    "UPSTREAM_BILLING_POLICY": "hash",
    "UPSTREAM_BILLING_HASH_KEY": "header:x-key",
    "UPSTREAM_ARCHIVE_DESTINATIONS": "http://127.0.0.1:9",
}

origin = FastAPI()


@origin.get("/{path:path}")
async def found(path: str) -> str:
    """Respond to every request."""
    return path


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    """Give a gateway of two upstreams that serves its metrics."""
    for name, value in UPSTREAMS.items():
        monkeypatch.setenv(name, value)
    app = FastAPI()
    app.include_router(proxy_router("billing"), prefix="/billing")
    app.include_router(proxy_router("archive"), prefix="/archive")
    app.include_router(metrics_router())
    return app


def test_page_has_the_metrics_of_all_upstreams(app: FastAPI) -> None:
    """Names and labels as Prometheus writes them; totals end in ``_total``."""
    with TestClient(app) as client:
        for _ in range(3):
            assert client.get("/billing/x").status_code == 200
        assert client.get("/archive/x").status_code == 502
        response = client.get("/metrics")

    assert response.headers["content-type"].startswith("text/plain")
    found = [one for family in read_text(response.text) for one in family.samples]
    assert {one.labels.pop("process") for one in found} == {str(os.getpid())}
    samples = {
        (one.name, *(one.labels[name] for name in sorted(one.labels))): one.value for one in found
    }
    url = UPSTREAMS["UPSTREAM_BILLING_DESTINATIONS"]
    server = url.removeprefix("asgi://")
    assert samples["proxy_attempts_total", url, "billing"] == 3
    assert samples["proxy_failures_total", "connect", "http://127.0.0.1:9", "archive"] == 1
    name = "http_client_request_duration_seconds"
    assert samples[f"{name}_count", "", "GET", "200", "billing", server, ""] == 3
    assert samples[f"{name}_bucket", "", "GET", "200", "+Inf", "billing", server, ""] == 3
    assert samples["proxy_destination_count", "available", "archive"] == 1


def test_page_is_openmetrics_for_a_scraper_that_asks(app: FastAPI) -> None:
    """As Prometheus itself does; a strict parser reads all of it."""
    accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
    with TestClient(app) as client:
        client.get("/billing/x")
        response = client.get("/metrics", headers={"accept": accept})

    assert response.headers["content-type"].startswith("application/openmetrics-text")
    families = read_openmetrics(response.text)  # type: ignore[no-untyped-call]
    names = {family.name for family in families}
    assert {"proxy_attempts", "http_client_request_duration_seconds"} <= names


def test_collector_joins_any_registry(app: FastAPI) -> None:
    """At any time; while no lifespan runs it collects nothing."""
    registry = CollectorRegistry()
    registry.register(proxy_collector(app))
    assert b"billing" not in generate_latest(registry)
    with TestClient(app):
        assert b'proxy_upstream="billing"' in generate_latest(registry)
    assert b"billing" not in generate_latest(registry)


def test_collector_of_several_apps(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mounted app has upstreams of its own; the page still has each metric once."""
    monkeypatch.setenv("UPSTREAM_ORDERS_DESTINATIONS", "http://127.0.0.1:9")
    mounted = FastAPI()
    mounted.include_router(proxy_router("orders"), prefix="/orders")
    registry = CollectorRegistry()
    registry.register(proxy_collector(app, mounted))
    with TestClient(app), TestClient(mounted):
        page = generate_openmetrics(registry).decode()  # type: ignore[no-untyped-call]

    families = [*read_openmetrics(page)]  # type: ignore[no-untyped-call]
    attempts = [
        one.labels["proxy_upstream"]
        for family in families
        for one in family.samples
        if one.name == "proxy_attempts_total"
    ]
    assert sorted(attempts) == ["archive", "billing", "orders"]


def test_page_is_made_outside_of_the_event_loop(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long page delays no request."""
    threads: list[int] = []

    @app.get("/loop")
    async def loop() -> None:
        threads.append(threading.get_ident())

    def exposition(*_: object) -> tuple[bytes, str]:
        threads.append(threading.get_ident())
        return b"", "text/plain"

    monkeypatch.setattr("fastapi_proxy_di.observability.prometheus.exposition", exposition)
    with TestClient(app) as client:
        client.get("/loop")
        client.get("/metrics")

    assert threads[0] != threads[1]


@pytest.mark.slow
async def test_clients_make_no_series(app: FastAPI) -> None:
    """Ten thousand paths, queries, hosts, methods, keys and users: the series of a hundred."""
    registry = CollectorRegistry()
    registry.register(proxy_collector(app))
    series = []
    async with proxy_lifespan(app):
        for numbers in (range(100), range(100, 10_000)):
            for number in numbers:
                assert await _status(app, number) == 405
            samples = [one for family in registry.collect() for one in family.samples]
            series.append({(one.name, *one.labels.values()) for one in samples})

    assert series[0] == series[1]
    assert 10_000 in [one.value for one in samples if one.name == "proxy_attempts_total"]


async def _status(app: FastAPI, number: int) -> int:
    """Send a request in which everything that a client chooses has the number."""
    statuses: list[int] = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    path = f"/billing/{number}"
    headers = {"host": f"{number}.test", "x-key": number, "authorization": f"Bearer {number}"}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        "method": f"M{number}",
        "path": path,
        "raw_path": path.encode(),
        "query_string": f"q={number}".encode(),
        "headers": [(name.encode(), str(value).encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", number),
        "server": ("127.0.0.1", 80),
        "root_path": "",
        "state": {},
    }
    receive: Any = None  # there is no body, and the client stays
    await app(scope, receive, send)
    return statuses[0]


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the router is made, not at the first scrape."""
    monkeypatch.delitem(sys.modules, "fastapi_proxy_di.observability.prometheus", raising=False)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)

    with pytest.raises(ModuleNotFoundError, match=r"fastapi-proxy-di\[prometheus\]"):
        metrics_router()
    with pytest.raises(ModuleNotFoundError, match=r"fastapi-proxy-di\[prometheus\]"):
        proxy_collector(FastAPI())
