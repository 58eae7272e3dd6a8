"""Trace headers and baggage towards destinations."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request
from fastapi.testclient import TestClient
from opentelemetry import baggage, context, trace
from opentelemetry.context import Context
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.propagators.b3 import B3MultiFormat, B3SingleFormat
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.trace import Span
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from fastapi_proxy_di import (
    Balancer,
    ProxySettings,
    SettingsError,
    Upstream,
    proxy_lifespan,
)
from tests.observability.traced import TRACE, Exported, gateway, propagating

SENT = {
    "traceparent": TRACE,
    "tracestate": "a=1",
    "baggage": "user=1",
    "b3": "0",
    "x-b3-flags": "1",
}
"""Trace headers of a client."""

Billing = Annotated[Balancer, Depends(Upstream("billing"))]


def current(exported: Exported) -> str:
    """Give ids of the attempt's span as B3 writes them."""
    (attempt,) = exported.spans(SpanKind.CLIENT)
    assert attempt.context is not None
    return f"{attempt.context.trace_id:032x}-{attempt.context.span_id:016x}"


def test_other_headers_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fields of the global propagator are replaced, in whatever form the client has them."""
    exported = Exported()
    app = gateway(monkeypatch, tracer_provider=exported.provider)
    with TestClient(app) as client:
        got = client.get("/billing/x", headers=SENT).json()

    sent = dict(got)
    assert sent["traceparent"] == f"00-{current(exported)}-01"
    assert sent["tracestate"] == "a=1"
    assert "baggage" not in sent
    assert (sent["b3"], sent["x-b3-flags"]) == ("0", "1")
    assert len(got) == len(sent)


def test_b3_in_one_header(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's ``b3`` is the parent and is replaced; W3C's ``traceparent`` passes."""
    exported = Exported()
    parent = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1"
    with (
        propagating(B3SingleFormat()),
        TestClient(gateway(monkeypatch, tracer_provider=exported.provider)) as client,
    ):
        sent = dict(client.get("/billing/x", headers={**SENT, "b3": parent}).json())

    assert sent["b3"] == f"{current(exported)}-1"
    assert sent["b3"].startswith(parent[:32])
    assert sent["traceparent"] == TRACE


@pytest.mark.parametrize(("baggage", "expected"), [("own", None), ("pass", "user=1")])
def test_baggage_of_the_client_under_a_propagator_without_baggage(
    monkeypatch: pytest.MonkeyPatch, baggage: str, expected: str | None
) -> None:
    """B3 alone has none: destinations that trust baggage do not get the client's all the same."""
    exported = Exported()
    monkeypatch.setenv("FASTAPI_PROXY_TELEMETRY__BAGGAGE", baggage)
    with (
        propagating(B3SingleFormat()),
        TestClient(gateway(monkeypatch, tracer_provider=exported.provider)) as client,
    ):
        sent = dict(client.get("/billing/x", headers=SENT).json())

    assert sent.get("baggage") == expected
    assert sent["b3"] == f"{current(exported)}-1"


def test_b3_in_several_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them is replaced, and none is left of the client's."""
    exported = Exported()
    parent = {
        "x-b3-traceid": "4bf92f3577b34da6a3ce929d0e0e4736",
        "x-b3-spanid": "00f067aa0ba902b7",
        "x-b3-sampled": "1",
    }
    with (
        propagating(B3MultiFormat()),
        TestClient(gateway(monkeypatch, tracer_provider=exported.provider)) as client,
    ):
        got = client.get("/billing/x", headers={"traceparent": TRACE, **parent}).json()

    sent = dict(got)
    assert f"{sent['x-b3-traceid']}-{sent['x-b3-spanid']}" == current(exported)
    assert sent["x-b3-traceid"] == parent["x-b3-traceid"]
    assert sent["x-b3-sampled"] == "1"
    assert sent["traceparent"] == TRACE
    assert len(got) == len(sent)


B3 = {
    "b3": "0",
    "x-b3-traceid": "4bf92f3577b34da6a3ce929d0e0e4736",
    "x-b3-spanid": "00f067aa0ba902b7",
    "x-b3-parentspanid": "05e3ac9a4f6e3b90",
    "x-b3-sampled": "1",
    "x-b3-flags": "1",
}
"""Headers of a client that sends B3 in both forms."""


@pytest.mark.parametrize(
    ("propagator", "own"),
    [
        (B3SingleFormat(), {"b3"}),
        (B3MultiFormat(), {"x-b3-traceid", "x-b3-spanid", "x-b3-sampled"}),
        (
            CompositePropagator([TraceContextTextMapPropagator(), B3SingleFormat()]),
            {"traceparent", "b3"},
        ),
    ],
    ids=["one header", "several headers", "beside W3C"],
)
def test_b3_of_the_client_in_the_other_form(
    monkeypatch: pytest.MonkeyPatch, propagator: TextMapPropagator, own: set[str]
) -> None:
    """Only the headers of the attempt go up; readers would take the client's for the parent."""
    exported = Exported()
    with (
        propagating(propagator),
        TestClient(gateway(monkeypatch, tracer_provider=exported.provider)) as client,
    ):
        got = dict(client.get("/billing/x", headers=B3).json())

    (attempt,) = exported.spans(SpanKind.CLIENT)
    parent = trace.get_current_span(propagator.extract(got, Context())).get_span_context()
    assert attempt.context is not None
    assert parent.span_id == attempt.context.span_id
    assert {name for name in got if "b3" in name or name == "traceparent"} == own


def test_b3_passes_in_both_forms_where_nothing_is_injected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a request that the sampler left out."""
    exported = Exported(sampler=ALWAYS_OFF)
    with (
        propagating(B3SingleFormat()),
        TestClient(gateway(monkeypatch, tracer_provider=exported.provider)) as client,
    ):
        got = dict(client.get("/billing/x", headers=B3).json())

    assert got.items() >= B3.items()


def test_request_that_the_sampler_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one header changes, of a proxied request and of a call within one."""
    exported = Exported(sampler=ALWAYS_OFF)
    app = gateway(monkeypatch, tracer_provider=exported.provider)

    @app.get("/call")
    async def call(billing: Billing) -> Any:
        return (await billing.client.get("/x")).json()

    with TestClient(app) as client:
        sent = dict(client.get("/billing/x", headers=SENT).json())
        called = dict(client.get("/call", headers=SENT).json())

    assert {name: sent[name] for name in SENT} == SENT
    assert not called.keys() & SENT.keys()
    assert not exported.spans(SpanKind.CLIENT)


def test_call_in_a_trace_that_is_left_out_has_no_span(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the sampler of the provider takes everything, whatever it took before."""
    exported = Exported(sampler=ALWAYS_ON)
    app = gateway(monkeypatch, tracer_provider=exported.provider)
    left_out = trace.NonRecordingSpan(trace.SpanContext(1, 1, is_remote=False))

    async def call(balancer: Balancer) -> Any:
        with trace.use_span(left_out):
            return (await balancer.client.get("/x")).json()

    with TestClient(app) as client:
        assert client.portal is not None
        sent = dict(client.portal.call(call, Upstream("billing").of(app)))

    assert not sent.keys() & SENT.keys()
    assert not exported.spans(SpanKind.CLIENT)


def test_attempt_that_the_sampler_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider of its own does not record it: the client's headers pass."""
    exported = Exported(sampler=ALWAYS_OFF)
    recording = Exported()
    app = gateway(monkeypatch, tracer_provider=exported.provider, tracing=False)
    app.add_middleware(OpenTelemetryMiddleware, tracer_provider=recording.provider)
    with TestClient(app) as client:
        sent = dict(client.get("/billing/x", headers=SENT).json())

    assert {name: sent[name] for name in SENT} == SENT
    assert not exported.spans(SpanKind.CLIENT)


def test_no_propagation(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``propagate=off`` the destination gets no trace header, not even the client's."""
    exported = Exported()
    app = gateway(monkeypatch, tracer_provider=exported.provider)
    monkeypatch.setenv("FASTAPI_PROXY_TELEMETRY__PROPAGATE", "off")
    with TestClient(app) as client:
        sent = dict(client.get("/billing/x", headers=SENT).json())

    assert not sent.keys() & {"traceparent", "tracestate", "baggage"}
    assert len(exported.spans(SpanKind.CLIENT)) == 1


def test_propagation_as_the_client_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``propagate=pass``, given in code."""
    exported = Exported()
    app = gateway(monkeypatch, tracer_provider=exported.provider)
    proxy_lifespan.configure(app, ProxySettings(telemetry={"propagate": "pass"}))
    with TestClient(app) as client:
        sent = dict(client.get("/billing/x", headers=SENT).json())
        with pytest.raises(SettingsError, match="has started; configure it before"):
            proxy_lifespan.configure(app, ProxySettings())

    assert {name: sent[name] for name in SENT} == SENT
    assert len(exported.spans(SpanKind.CLIENT)) == 1


# -- baggage ------------------------------------------------------------------------------


def with_own_baggage(monkeypatch: pytest.MonkeyPatch, exported: Exported) -> FastAPI:
    """Make a gateway that sets ``tenant`` and another ``kept``, and calls in three ways."""
    app = gateway(monkeypatch, tracer_provider=exported.provider)

    def set_own() -> None:
        context.attach(baggage.set_baggage("tenant", "acme"))
        context.attach(baggage.set_baggage("kept", "2"))

    @app.get("/forward")
    async def forward(request: Request, billing: Billing) -> Any:
        set_own()
        return await billing.forward(request, "/x")

    @app.get("/client")
    async def client(billing: Billing) -> Any:
        set_own()
        return (await billing.client.get("/x")).json()

    @app.get("/httpx2")
    async def httpx2(billing: Billing) -> Any:
        set_own()
        return (await billing.httpx2_client.get("/x")).json()

    return app


def baggage_of(app: FastAPI, target: str) -> list[str]:
    """Give the entries that the origin gets, for a client that sends two lines of baggage."""
    lines = [("baggage", "user=1,kept=1"), ("baggage", "session=s")]
    with TestClient(app) as client:
        got = client.get(target, headers=lines).json()
    return sorted(entry for name, value in got if name == "baggage" for entry in value.split(","))


@pytest.mark.parametrize("way", ["forward", "client", "httpx2"])
def test_baggage_of_the_app_goes_up_alone(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Unchanged entries of the client's baggage are left out, in calls of the app too."""
    app = with_own_baggage(monkeypatch, Exported())

    assert baggage_of(app, f"/{way}") == ["kept=2", "tenant=acme"]


@pytest.mark.parametrize("way", ["forward", "client", "httpx2"])
def test_baggage_of_the_client_goes_up_where_it_is_passed(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """With ``baggage=pass``."""
    app = with_own_baggage(monkeypatch, Exported())
    monkeypatch.setenv("FASTAPI_PROXY_TELEMETRY__BAGGAGE", "pass")

    assert baggage_of(app, f"/{way}") == ["kept=2", "session=s", "tenant=acme", "user=1"]


def test_baggage_that_a_middleware_has_read_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenTelemetry's own ASGI middleware."""
    exported = Exported()
    app = gateway(monkeypatch, tracer_provider=exported.provider, tracing=False)
    app.add_middleware(OpenTelemetryMiddleware, tracer_provider=exported.provider)

    assert baggage_of(app, "/billing/x") == []
    assert len(exported.spans(SpanKind.CLIENT)) == 1


def test_spans_see_the_baggage_of_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processors may copy entries to spans; only the destination does not get them."""
    seen: list[object] = []

    class Sees:
        def on_start(self, span: Span, parent_context: Any = None) -> None:
            if span.kind is SpanKind.CLIENT:
                seen.append(baggage.get_baggage("user", parent_context))

        def __getattr__(self, name: str) -> Any:
            return lambda *_: None

    exported = Exported()
    exported.provider.add_span_processor(Sees())  # type: ignore[arg-type]
    app = gateway(monkeypatch, tracer_provider=exported.provider)

    assert baggage_of(app, "/billing/x") == []
    assert seen == ["1"]
