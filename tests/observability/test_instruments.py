"""The metrics as OpenTelemetry exports them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from importlib.metadata import version

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from opentelemetry.metrics import Histogram, Meter, MeterProvider, _internal
from opentelemetry.sdk.metrics import MeterProvider as SdkMeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, ScopeMetrics

from fastapi_proxy_di import proxy_router
from fastapi_proxy_di.observability import instruments
from fastapi_proxy_di.observability.families import families
from fastapi_proxy_di.observability.histogram import Durations
from fastapi_proxy_di.observability.instruments import Instruments
from fastapi_proxy_di.observability.metrics import QUEUE
from fastapi_proxy_di.observability.telemetry import SCHEMA

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
        scope = self.scope()
        for metric in scope.metrics if scope else ():
            for point in metric.data.data_points:
                value = getattr(point, "value", None)
                count = getattr(point, "count", None)
                yield metric.name, dict(point.attributes or {}), value or count or 0

    def scope(self) -> ScopeMetrics | None:
        """Collect, and give what is of this package."""
        data = self._reader.get_metrics_data()
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                if scope.scope.name == "fastapi_proxy_di":
                    return scope
        return None

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
    not_allowed = {
        **ok,
        "http.response.status_code": 405,
        "http.request.method": "_OTHER",
        "error.type": "405",
    }
    assert ("proxy.attempts", destination, 4) in points
    assert ("proxy.first_byte.duration", destination, 4) in points
    assert (durations, ok, 3) in points
    assert (durations, not_allowed, 1) in points
    assert ("http.client.active_requests", server, 0) in points
    assert ("proxy.destination.count", {**upstream, "proxy.destination.state": "available"}, 1) in (
        points
    )


def test_names_and_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names and units are those of the families; the meter has the version of the conventions."""
    exported = Exported()
    with TestClient(gateway("billing", exported.provider, monkeypatch)) as client:
        client.get("/billing/x")
        scope = exported.scope()

    assert scope is not None
    assert (scope.scope.version, scope.schema_url) == (version("fastapi-proxy-di"), SCHEMA)
    expected = {one.name: (one.unit, one.text) for one in families(())}
    named = {one.name: (one.unit, one.description) for one in scope.metrics}
    assert named.items() <= expected.items()
    assert {*expected} - {*named} == {  # nothing happened that they count
        "proxy.ejections",
        "proxy.failures",
        "proxy.queue.duration",
        "proxy.refusals",
        "proxy.retries",
        "proxy.tap.unread",
        "proxy.tunnel.ends",
    }


def test_required_attributes_of_the_conventions() -> None:
    """Durations have the attributes that OpenTelemetry's registry requires of HTTP clients."""
    attributes = {one.name: {*one.attributes} for one in families(())}
    server = {"server.address", "server.port"}

    assert attributes["http.client.request.duration"] >= server | {
        "http.request.method",
        "http.response.status_code",
        "error.type",
    }
    assert attributes["http.client.active_requests"] >= server
    assert attributes["http.client.open_connections"] >= server | {"http.connection.state"}
    assert all(found >= {"proxy.upstream"} for found in attributes.values())


def test_each_collection_reads_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once after another one too: the last one before the process ends has everything."""
    exported = Exported()
    with TestClient(gateway("billing", exported.provider, monkeypatch)) as client:
        read = []
        for _ in range(3):
            client.get("/billing/x")
            read.append(exported.value("proxy.attempts"))

    assert read == [1, 2, 3]


def test_totals_stay_when_the_app_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """The collection at exit has them; after another start they go on, and do not double."""
    exported = Exported()
    app = gateway("billing", exported.provider, monkeypatch)
    for starts in range(1, 4):
        with TestClient(app) as client:
            client.get("/billing/x")
            assert exported.value("proxy.attempts") == starts
            assert exported.value("http.client.request.duration") == starts
            assert exported.value("proxy.destination.count") == 1
        assert exported.value("proxy.attempts") == starts
        assert not [name for name, *_ in exported.points() if name == "proxy.destination.count"]


def test_totals_of_the_last_ended_upstreams_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """An app may make upstreams for ever."""
    monkeypatch.setattr(instruments, "ENDED_UPSTREAMS", 2)
    exported = Exported()
    for name in ("one", "two", "three", "two", "four"):
        with TestClient(gateway(name, exported.provider, monkeypatch)) as client:
            client.get(f"/{name}/x")
    totals = {
        name: exported.value("proxy.attempts", proxy_upstream=name)
        for name in ("one", "two", "three", "four")
    }

    assert totals == {"one": 0, "two": 2, "three": 0, "four": 1}


def test_sets_of_attributes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Durations beyond the bound have one set together; those that were known go on."""
    monkeypatch.setattr(instruments, "ATTRIBUTE_SETS", 1)
    exported = Exported()
    for name in ("one", "two", "three", "one"):
        with TestClient(gateway(name, exported.provider, monkeypatch)) as client:
            client.get(f"/{name}/x")
    points = [
        (attributes.get("proxy.upstream"), attributes.get("otel.metric.overflow"), count)
        for name, attributes, count in exported.points()
        if name == "proxy.first_byte.duration"
    ]

    assert points == [("one", None, 2), (None, True, 2)]


def test_provider_that_is_set_after_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """As apps do that set theirs in the lifespan: the global provider waits for the real one."""
    exported = Exported()
    waiting = _internal._ProxyMeterProvider()
    with TestClient(gateway("billing", waiting, monkeypatch)) as client:
        client.get("/billing/x")
        waiting.on_set_meter_provider(exported.provider)
        client.get("/billing/x")

        assert exported.value("proxy.attempts") == 2
        assert exported.value("proxy.first_byte.duration") == 1


class OtherPlaceholder(Histogram):
    """A placeholder that does not show under the known name whether it waits."""

    def __init__(self) -> None:
        self.recorded: list[float] = []

    def record(self, amount: float, *_: object, **__: object) -> None:
        """Keep the duration."""
        self.recorded.append(amount)


class OtherPlaceholders(SdkMeterProvider):
    """A provider with one such placeholder for all histograms."""

    def __init__(self) -> None:
        super().__init__()
        self.histogram = OtherPlaceholder()

    def get_meter(self, *names: object, **options: object) -> Meter:
        """Give a meter that has the placeholder."""
        meter = super().get_meter("x")
        meter.create_histogram = lambda *_, **__: self.histogram  # type: ignore[method-assign]
        return meter


def test_placeholder_gets_no_durations_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that hides whether it waits gets all of them, so that none is lost."""
    recorded: list[float] = []
    monkeypatch.setattr(
        "opentelemetry.metrics._internal.instrument._ProxyHistogram.record",
        lambda _, amount, *__: recorded.append(amount),
    )
    hiding = OtherPlaceholders()
    for provider in (_internal._ProxyMeterProvider(), hiding):
        Instruments(provider).record(QUEUE, 0.1, Durations(("billing",)))

    assert (recorded, hiding.histogram.recorded) == ([], [0.1])


def test_provider_that_is_set_between_two_starts(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The app that starts after it goes on with the counts of the one before."""
    exported = Exported()
    waiting = _internal._ProxyMeterProvider()
    with TestClient(gateway("billing", waiting, monkeypatch)) as client:
        client.get("/billing/x")
    waiting.on_set_meter_provider(exported.provider)
    app = gateway("billing", exported.provider, monkeypatch)
    with caplog.at_level(logging.WARNING, "opentelemetry"):
        for starts in range(2, 4):
            with TestClient(app) as client:
                client.get("/billing/x")
                assert exported.value("proxy.attempts") == starts
    assert not caplog.records


def test_apps_with_one_provider(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Apps share the instruments of a provider: OpenTelemetry warns of a second set."""
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
    """A request that did not wait has no time in the queue."""
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
    """The exception is logged once, and every request gets its response."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", ORIGIN)
    app = FastAPI(telemetry={"meter_provider": provider, "metrics": False})
    app.include_router(proxy_router("billing"), prefix="/billing")
    with caplog.at_level(logging.WARNING, "fastapi_proxy_di"), TestClient(app) as client:
        assert [client.get("/billing/x").status_code for _ in range(3)] == [200] * 3

    assert [record.getMessage() for record in caplog.records] == [text]
