"""What the upstreams of one app share of OpenTelemetry."""

from __future__ import annotations

import pytest
from opentelemetry.propagators.b3 import B3MultiFormat
from opentelemetry.trace import NoOpTracerProvider, ProxyTracerProvider, TracerProvider

from fastapi_proxy_di.observability.telemetry import Telemetry, global_tracer_provider
from fastapi_proxy_di.settings import TelemetrySettings
from tests.observability.traced import Exported, propagating


@pytest.mark.parametrize("provider", [ProxyTracerProvider(), NoOpTracerProvider()])
def test_provider_that_waits_for_another_is_none(
    monkeypatch: pytest.MonkeyPatch, provider: TracerProvider
) -> None:
    """OpenTelemetry's placeholder and a provider that does nothing count as none."""
    monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", lambda: provider)

    assert global_tracer_provider() is None


def test_provider_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's."""
    provider = Exported().provider
    monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", lambda: provider)

    assert global_tracer_provider() is provider


@pytest.mark.parametrize("propagate", ["inject", "pass"])
def test_no_header_is_removed_where_headers_are_sent(propagate: str) -> None:
    """Injected headers are replaced in each attempt instead."""
    settings = TelemetrySettings(propagate=propagate)

    assert Telemetry(settings).removed_headers() == frozenset()


def test_headers_of_w3c_and_of_the_propagator_are_removed() -> None:
    """With ``propagate=off``."""
    with propagating(B3MultiFormat()):
        removed = Telemetry(TelemetrySettings(propagate="off")).removed_headers()

    assert {b"traceparent", b"tracestate", b"baggage", b"x-b3-traceid", b"b3"} <= removed
