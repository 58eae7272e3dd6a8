"""The metrics as OpenTelemetry exports them."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from opentelemetry.metrics import Histogram, Meter, MeterProvider
from opentelemetry.sdk.metrics import MeterProvider as SdkMeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from fastapi_proxy_di import proxy_router

ORIGIN = "asgi://tests.observability.test_instruments:origin"

origin = FastAPI(telemetry={"tracing": False, "metrics": False})


@origin.get("/{path:path}")
async def found(path: str) -> str:
    """Respond to every request."""
    return path


class Exported:
    """A meter provider that is read by the test."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = SdkMeterProvider(metric_readers=[self._reader])

    def points(self) -> Iterator[tuple[str, dict[str, object], float]]:
        """Collect, and give name, attributes and value of each point of this package."""
        data = self._reader.get_metrics_data()
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                if scope.scope.name == "fastapi_proxy_di":
                    for metric in scope.metrics:
                        for point in metric.data.data_points:
                            value = getattr(point, "value", None)
                            count = getattr(point, "count", None)
                            yield metric.name, dict(point.attributes or {}), value or count or 0

    def value(self, name: str, **attributes: object) -> float:
        """Collect, and give the sum of the points that have these attributes."""
        wanted = {key.replace("_", "."): value for key, value in attributes.items()}
        return sum(
            value
            for found, has, value in self.points()
            if found == name and wanted.items() <= has.items()
        )


def gateway(name: str, provider: MeterProvider, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    """Make a gateway of one upstream whose telemetry has the provider."""
    monkeypatch.setenv(f"UPSTREAM_{name.upper()}_DESTINATIONS", ORIGIN)
    app = FastAPI(telemetry={"meter_provider": provider})
    app.include_router(proxy_router(name), prefix=f"/{name}")
    return app


def test_counts_and_durations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read and recorded, with the attributes of the conventions."""
    exported = Exported()
    with TestClient(gateway("billing", exported.provider, monkeypatch)) as client:
        for _ in range(3):
            client.get("/billing/x")
        client.request("BREW", "/billing/x")
        points = [
            point for point in exported.points() if point[0] != "http.client.open_connections"
        ]

    upstream = {"proxy.upstream": "billing"}
    destination = {**upstream, "proxy.destination": ORIGIN}
    server = {**upstream, "server.address": ORIGIN.removeprefix("asgi://")}
    durations = "http.client.request.duration"
    ok = {**server, "http.response.status_code": 200, "http.request.method": "GET"}
    not_allowed = {**ok, "http.response.status_code": 405, "http.request.method": "_OTHER"}
    assert ("proxy.attempts", destination, 4) in points
    assert ("proxy.first_byte.duration", destination, 4) in points
    assert (durations, ok, 3) in points
    assert (durations, not_allowed, 1) in points
    assert ("http.client.active_requests", server, 0) in points
    assert ("proxy.destination.count", {**upstream, "proxy.destination.state": "available"}, 1) in (
        points
    )


def test_apps_with_one_provider(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They share its instruments: OpenTelemetry warns of a second set."""
    exported = Exported()
    billing = gateway("billing", exported.provider, monkeypatch)
    orders = gateway("orders", exported.provider, monkeypatch)
    with (
        caplog.at_level(logging.WARNING, "opentelemetry"),
        TestClient(billing) as client,
        TestClient(orders) as other,
    ):
        client.get("/billing/x")
        other.get("/orders/x")

        assert exported.value("proxy.attempts") == 2
    assert not caplog.records


def test_metrics_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is exported."""
    monkeypatch.setenv("FASTAPI_PROXY_TELEMETRY__METRICS", "false")
    exported = Exported()
    with TestClient(gateway("billing", exported.provider, monkeypatch)) as client:
        client.get("/billing/x")

        assert not [*exported.points()]


def test_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time in the queue, recorded for requests that waited."""
    exported = Exported()
    monkeypatch.setenv("UPSTREAM_BILLING_LIMITS__MAX_IN_FLIGHT", "1")
    monkeypatch.setenv("UPSTREAM_BILLING_LIMITS__QUEUE", "1")
    with TestClient(gateway("billing", exported.provider, monkeypatch)) as client:
        client.get("/billing/x")

        assert exported.value("proxy.queue.duration", proxy_upstream="billing") == 0


class BrokenHistogram(Histogram):
    """Raises for each duration."""

    def __init__(self) -> None:
        """Do nothing."""

    def record(self, *_: object, **__: object) -> None:
        """Raise."""
        raise RuntimeError("no disk")


class BrokenRecording(SdkMeterProvider):
    """A provider whose histograms raise."""

    def get_meter(self, *names: object, **options: object) -> Meter:
        """Give a meter whose histograms raise."""
        meter = super().get_meter("x")
        meter.create_histogram = lambda *_, **__: BrokenHistogram()  # type: ignore[method-assign]
        return meter


class BrokenProvider(MeterProvider):
    """A provider that raises."""

    def get_meter(self, *_: object, **__: object) -> Meter:
        """Raise."""
        raise RuntimeError("no meter")


@pytest.mark.parametrize(
    ("provider", "text"),
    [
        (BrokenRecording(), "recording a duration failed: RuntimeError('no disk')"),
        (BrokenProvider(), "metrics go to no meter provider: RuntimeError('no meter')"),
    ],
)
def test_provider_that_raises(
    provider: MeterProvider,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is logged once, and every request is answered."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", ORIGIN)
    app = FastAPI(telemetry={"meter_provider": provider, "metrics": False})
    app.include_router(proxy_router("billing"), prefix="/billing")
    with caplog.at_level(logging.WARNING, "fastapi_proxy_di"), TestClient(app) as client:
        assert [client.get("/billing/x").status_code for _ in range(3)] == [200] * 3

    assert [record.getMessage() for record in caplog.records] == [text]
