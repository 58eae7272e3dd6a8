"""Spans of attempts: their parents, names and attributes."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request
from fastapi.testclient import TestClient
from opentelemetry import context, propagate
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind
from starlette.applications import Starlette
from starlette.routing import Mount

from fastapi_proxy_di import (
    Balancer,
    Upstream,
    UpstreamSettings,
    UpstreamTimeout,
    proxy_app,
    proxy_lifespan,
)
from fastapi_proxy_di.errors import Failure
from fastapi_proxy_di.observability import tracing
from tests.observability.traced import ORIGIN, TRACE, Exported, gateway
from tests.support.gateways import until
from tests.support.processes import ROOT

Billing = Annotated[Balancer, Depends(Upstream("billing"))]


def ids(span: ReadableSpan) -> tuple[str, str]:
    """Give the ids of trace and span in hexadecimal."""
    assert span.context is not None
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"


def test_span_has_the_attributes_of_the_conventions_and_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The client span is below the server span, and its context is sent."""
    exported = Exported()
    with TestClient(gateway(monkeypatch, tracer_provider=exported.provider)) as client:
        sent = dict(client.get("/billing/x?sig=secret&y=1", headers={"traceparent": TRACE}).json())

    (server,) = exported.spans(SpanKind.SERVER)
    (attempt,) = exported.spans(SpanKind.CLIENT)
    assert exported.parent(attempt) == server.name
    trace_id, span_id = ids(attempt)
    assert sent["traceparent"] == f"00-{trace_id}-{span_id}-01"
    assert trace_id == TRACE.split("-")[1]
    assert attempt.name == "GET"
    assert dict(attempt.attributes or {}) == {
        "http.request.method": "GET",
        "server.address": "tests.observability.traced:origin",
        "url.full": "http://localhost/x?sig=REDACTED&y=1",
        "proxy.upstream": "billing",
        "proxy.destination": ORIGIN,
        "proxy.pick": "power_of_two_choices",
        "http.response.status_code": 200,
    }
    assert server.end_time is not None
    assert attempt.end_time is not None
    assert attempt.end_time <= server.end_time


def test_reference_has_every_attribute() -> None:
    """The first column of its table is what the code sets."""
    page = (ROOT / "docs" / "reference" / "traces.md").read_text()
    table = page.partition("## Attributes")[2].partition("## Headers")[0]
    cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    code = Path(tracing.__file__).read_text()

    named = re.findall(r"`(.+?)`", " ".join(cells))
    assert sorted(named) == sorted(
        set(re.findall(r'"((?:gen_ai|http|url|server|error|proxy)\..+?)"', code))
    )


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("a=%20&b", "a=%20&b"),
        ("sig=1&sig=2", "sig=REDACTED&sig=REDACTED"),
        ("s%69g=1&X-Amz-Signature=2", "s%69g=REDACTED&X-Amz-Signature=REDACTED"),
        ("sig", "sig"),
        ("design=1&Sig=2", "design=1&Sig=2"),
    ],
)
def test_url_has_no_values_of_secret_parameters(
    monkeypatch: pytest.MonkeyPatch, query: str, shown: str
) -> None:
    """By the decoded name; the rest of the query is as it was sent."""
    exported = Exported()
    with TestClient(gateway(monkeypatch, tracer_provider=exported.provider)) as client:
        client.get(f"/billing/x?{query}")

    (attempt,) = exported.spans(SpanKind.CLIENT)
    assert (attempt.attributes or {})["url.full"] == f"http://localhost/x?{shown}"


def test_method_that_the_conventions_do_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names no span, and is kept as the original."""
    exported = Exported()
    with TestClient(gateway(monkeypatch, tracer_provider=exported.provider)) as client:
        client.request("PURGE", "/billing/x")

    (attempt,) = exported.spans(SpanKind.CLIENT)
    attributes = attempt.attributes or {}
    assert attempt.name == "HTTP"
    assert attributes["http.request.method"] == "_OTHER"
    assert attributes["http.request.method_original"] == "PURGE"


def test_span_of_the_app_is_the_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made by the app's own code around the forwarding."""
    exported = Exported()
    app = gateway(monkeypatch, tracer_provider=exported.provider)
    tracer = exported.provider.get_tracer("app")

    @app.get("/own")
    async def own(request: Request, billing: Billing) -> Any:
        with tracer.start_as_current_span("mine"):
            return await billing.forward(request, "/x")

    with TestClient(app) as client:
        assert client.get("/own").status_code == 200

    (attempt,) = exported.spans(SpanKind.CLIENT)
    assert exported.parent(attempt) == "mine"


def test_server_span_of_a_middleware_is_the_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenTelemetry's own ASGI middleware, in an app whose FastAPI makes no spans."""
    exported = Exported()
    app = gateway(monkeypatch, tracer_provider=exported.provider, tracing=False)
    app.add_middleware(OpenTelemetryMiddleware, tracer_provider=exported.provider)
    with TestClient(app) as client:
        client.get("/billing/x", headers={"traceparent": TRACE})

    (server,) = exported.spans(SpanKind.SERVER)
    (attempt,) = exported.spans(SpanKind.CLIENT)
    assert exported.parent(attempt) == server.name
    assert ids(attempt)[0] == TRACE.split("-")[1]


def test_proxied_request_without_a_current_span_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a path that FastAPI's telemetry leaves out."""
    exported = Exported()
    app = gateway(
        monkeypatch,
        tracer_provider=exported.provider,
        exclude=lambda scope: scope["path"].startswith("/billing"),
    )
    with TestClient(app) as client:
        sent = dict(client.get("/billing/x", headers={"traceparent": TRACE}).json())

    assert sent["traceparent"] == TRACE
    assert not exported.spans(SpanKind.CLIENT)


class Settings(UpstreamSettings, name="billing"):
    """The upstream of an app that is mounted in Starlette."""


def test_proxied_request_in_plain_starlette_gets_no_span(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starlette makes no spans, although a global provider is set."""
    exported = Exported()
    monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", lambda: exported.provider)
    mount = Mount("/billing", proxy_app(Settings(destinations=[ORIGIN])))
    with TestClient(Starlette(routes=[mount], lifespan=proxy_lifespan)) as client:
        sent = dict(client.get("/billing/x", headers={"traceparent": TRACE}).json())

    assert sent["traceparent"] == TRACE
    assert not exported.spans(SpanKind.CLIENT)


def test_proxy_app_by_itself_is_below_the_span_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any framework; a middleware makes the server span."""
    exported = Exported()
    monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", lambda: exported.provider)
    app = proxy_app(Settings(destinations=[ORIGIN]))
    with TestClient(OpenTelemetryMiddleware(app)) as client:
        assert client.get("/x").status_code == 200

    (server,) = exported.spans(SpanKind.SERVER)
    (attempt,) = exported.spans(SpanKind.CLIENT)
    assert exported.parent(attempt) == server.name


def test_call_outside_of_requests_is_a_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """With FastAPI's provider; a lease as well."""
    exported = Exported()
    app = gateway(monkeypatch, tracer_provider=exported.provider)

    async def use(balancer: Balancer) -> dict[str, str]:
        async with balancer.lease():
            return dict((await balancer.client.get("/x")).json())

    with TestClient(app) as client:
        assert client.portal is not None
        sent = client.portal.call(use, Upstream("billing").of(app))

    (call,) = exported.spans(SpanKind.CLIENT)
    (lease,) = exported.spans(SpanKind.INTERNAL)
    assert (call.parent, lease.parent) == (None, None)
    assert sent["traceparent"].split("-")[1:3] == list(ids(call))
    assert dict(lease.attributes or {}) == {
        "server.address": "tests.observability.traced:origin",
        "proxy.upstream": "billing",
        "proxy.destination": ORIGIN,
        "proxy.pick": "power_of_two_choices",
    }


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionRefusedError(), "ConnectionRefusedError"),
        ("the SDK says so", "LeaseFailed"),
        (UpstreamTimeout("late", failure=Failure.ACTIVITY_TIMEOUT), "activity_timeout"),
        (UpstreamTimeout("the caller's", failure=Failure.TOTAL_TIMEOUT), None),
    ],
)
def test_lease_that_failed_has_a_span_with_an_error(
    monkeypatch: pytest.MonkeyPatch, error: Exception | str, expected: str | None
) -> None:
    """With the class or the failure; no text of the app. Failures of other sides do not count."""
    exported = Exported()
    app = gateway(monkeypatch, tracer_provider=exported.provider)

    async def use(balancer: Balancer) -> None:
        async with balancer.lease() as lease:
            lease.failed(error)

    with TestClient(app) as client:
        assert client.portal is not None
        client.portal.call(use, Upstream("billing").of(app))

    (span,) = exported.spans(SpanKind.INTERNAL)
    assert (span.attributes or {}).get("error.type") == expected
    assert span.status.is_ok is (expected is None)
    assert not span.status.description


def test_job_that_a_request_has_started_stays_in_its_trace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The job's spans are below the request's span, even after that has ended."""
    exported = Exported()
    app = gateway(monkeypatch, tracer_provider=exported.provider)
    jobs: list[asyncio.Task[Any]] = []

    async def work(billing: Balancer) -> Any:
        await until(lambda: exported.spans(SpanKind.SERVER))
        return (await billing.client.get("/x", headers={"traceparent": "replaced"})).json()

    @app.get("/start")
    async def start(billing: Billing) -> None:
        jobs.append(asyncio.create_task(work(billing), name="job"))

    async def result() -> dict[str, str]:
        return dict(await jobs[0])

    with TestClient(app) as client:
        client.get("/start")
        assert client.portal is not None
        sent = client.portal.call(result)

    (call,) = exported.spans(SpanKind.CLIENT)
    assert exported.parent(call) == "fastapi.endpoint"
    assert sent["traceparent"] == "00-{}-{}-{:02x}".format(*ids(call), call.context.trace_flags)


def test_job_of_another_process_stays_in_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that has read the context of its message; not one that the sampler left out."""
    exported = Exported()
    app = gateway(monkeypatch, tracer_provider=exported.provider)

    async def work(billing: Balancer, parent: str) -> dict[str, str]:
        context.attach(propagate.extract({"traceparent": parent}))
        return dict((await billing.client.get("/x")).json())

    with TestClient(app) as client:
        assert client.portal is not None
        billing = Upstream("billing").of(app)
        sent = client.portal.call(work, billing, TRACE)
        left_out = client.portal.call(work, billing, f"{TRACE[:-2]}00")

    (call,) = exported.spans(SpanKind.CLIENT)
    assert sent["traceparent"] == "00-{}-{}-01".format(*ids(call))
    assert ids(call)[0] == TRACE.split("-")[1]
    assert "traceparent" not in left_out


def test_app_in_the_same_process_is_below_the_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server span of the app is the child of the client span, as in another process."""
    exported = Exported()
    inner = FastAPI(telemetry={"tracer_provider": exported.provider})
    monkeypatch.setattr("tests.observability.traced.origin", inner)
    with TestClient(gateway(monkeypatch, tracer_provider=exported.provider)) as client:
        assert client.get("/billing/openapi.json").status_code == 200

    parents = {
        span.name: exported.parent(span)
        for kind in (SpanKind.SERVER, SpanKind.CLIENT)
        for span in exported.spans(kind)
    }
    assert parents == {
        "GET /billing/{path}": None,
        "GET": "GET /billing/{path}",
        "GET /openapi.json": "GET",
    }


def test_lease_with_affinity_has_a_span(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease has no request that an affinity could read."""
    exported = Exported()
    monkeypatch.setenv("UPSTREAM_BILLING_AFFINITY__HEADER", "x-user")
    app = gateway(monkeypatch, tracer_provider=exported.provider)

    async def use(balancer: Balancer) -> None:
        async with balancer.lease():
            pass

    with TestClient(app) as client:
        assert client.portal is not None
        client.portal.call(use, Upstream("billing").of(app))

    (lease,) = exported.spans(SpanKind.INTERNAL)
    assert (lease.attributes or {})["proxy.pick"] == "power_of_two_choices"


def test_call_ends_with_its_last_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    """The span ends before the caller handles the last piece, and only once."""
    exported = Exported()
    app = gateway(monkeypatch, tracer_provider=exported.provider)
    ended = []

    async def use(balancer: Balancer) -> None:
        async with balancer.client.stream("GET", "/x") as response:
            pieces = response.aiter_raw()
            await anext(pieces)
            ended.append(len(exported.spans(SpanKind.CLIENT)))
            assert await anext(pieces, None) is None

    with TestClient(app) as client:
        assert client.portal is not None
        client.portal.call(use, Upstream("billing").of(app))

    assert ended == [1]
    assert len(exported.spans(SpanKind.CLIENT)) == 1


def test_time_in_the_queue_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """In seconds, where a request has waited for its place; a hedged request too."""
    exported = Exported()
    monkeypatch.setenv("UPSTREAM_BILLING_LIMITS__MAX_IN_FLIGHT", "1")
    monkeypatch.setenv("UPSTREAM_BILLING_LIMITS__QUEUE", "1")
    monkeypatch.setenv("UPSTREAM_BILLING_RETRIES__HEDGE_AFTER", "100")
    app = gateway(monkeypatch, tracer_provider=exported.provider)

    @app.get("/both")
    async def both(billing: Billing) -> None:
        async with billing.client.stream("GET", "/first"):
            second = billing.client.build_request("GET", "/second")
            waiting = asyncio.create_task(billing.client.send(second), name="second")
            await until(lambda: billing.status().queued)
        await waiting

    with TestClient(app) as client:
        client.get("/both")

    waited = {
        str((span.attributes or {})["url.full"]): (span.attributes or {}).get(
            "proxy.queue.duration"
        )
        for span in exported.spans(SpanKind.CLIENT)
    }
    assert waited["http://localhost/first"] is None
    assert isinstance(waited["http://localhost/second"], float)


def test_tracing_off_sends_the_current_span(monkeypatch: pytest.MonkeyPatch) -> None:
    """The destination's spans are below the server span of the gateway."""
    exported = Exported()
    app = gateway(monkeypatch, tracer_provider=exported.provider)
    monkeypatch.setenv("FASTAPI_PROXY_TELEMETRY__TRACING", "false")
    with TestClient(app) as client:
        sent = dict(client.get("/billing/x").json())

    (server,) = exported.spans(SpanKind.SERVER)
    assert not exported.spans(SpanKind.CLIENT)
    assert sent["traceparent"].split("-")[2] == ids(server)[1]
