"""The metrics in Prometheus' text format."""

from __future__ import annotations

import os
import sys

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from fastapi_proxy_di import metrics_router, proxy_collector, proxy_router

UPSTREAMS = {
    "UPSTREAM_BILLING_DESTINATIONS": "asgi://tests.integration.test_metrics:origin",
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


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the router is made, not at the first scrape."""
    monkeypatch.delitem(sys.modules, "fastapi_proxy_di.observability.prometheus", raising=False)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)

    with pytest.raises(ModuleNotFoundError, match=r"fastapi-proxy-di\[prometheus\]"):
        metrics_router()
    with pytest.raises(ModuleNotFoundError, match=r"fastapi-proxy-di\[prometheus\]"):
        proxy_collector(FastAPI())
