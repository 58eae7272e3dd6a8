"""What the upstreams of one app share of OpenTelemetry: the settings and the providers."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from opentelemetry import propagate, trace
from opentelemetry.metrics import MeterProvider, get_meter_provider
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import NoOpTracerProvider, ProxyTracerProvider, Span, TracerProvider
from starlette.types import Scope

from fastapi_proxy_di.settings import TelemetrySettings

__all__ = ["REQUEST_SCOPE", "SCHEMA", "Telemetry", "global_tracer_provider"]

SCHEMA: Final = "https://opentelemetry.io/schemas/1.44.0"
"""The version of OpenTelemetry's conventions that the names follow; FastAPI's own as well."""

REQUEST_SCOPE: Final[ContextVar[Scope | None]] = ContextVar(
    "fastapi_proxy_di.request_scope", default=None
)
"""The ASGI scope of the request that the app handles, ``None`` outside of requests. The calls of
the app itself compare their baggage with the baggage that this request had."""


def global_tracer_provider() -> TracerProvider | None:
    """Give the global provider of spans, ``None`` if none is set."""
    provider = trace.get_tracer_provider()
    return None if isinstance(provider, ProxyTracerProvider | NoOpTracerProvider) else provider


def _current(scope: Scope, current: Span) -> Span:
    return current


def _no_route(_: Scope) -> None:
    """Give no route, for upstreams outside an app."""


_B3: Final = frozenset(
    {b"b3", b"x-b3-traceid", b"x-b3-spanid", b"x-b3-parentspanid", b"x-b3-sampled", b"x-b3-flags"}
)
"""The headers of both forms of B3. A propagator sets one form, readers understand both."""

_W3C_FIELDS: Final = frozenset({b"traceparent", b"tracestate", b"baggage"})


@dataclass(frozen=True, slots=True)
class Telemetry:
    """The telemetry of an app.

    The provider of spans is looked up for each exchange, because many apps set theirs in the
    lifespan. OpenTelemetry's placeholder for the global provider of metrics passes instruments on.

    Attributes:
        settings: The settings of the app.
        tracer_provider: Gives the provider of spans, ``None`` if none is set.
        meter_provider: Gives the provider of metrics.
        request_span: Gives the span of a proxied request, of its scope and the current span.
        route_of: Gives the path template of the route that a request has matched, ``None`` for
            none.
    """

    settings: TelemetrySettings = field(default_factory=TelemetrySettings)
    tracer_provider: Callable[[], TracerProvider | None] = global_tracer_provider
    meter_provider: Callable[[], MeterProvider] = get_meter_provider
    request_span: Callable[[Scope, Span], Span] = _current
    route_of: Callable[[Scope], str | None] = _no_route

    def removed_headers(self) -> frozenset[bytes]:
        """Give the trace headers of the client that no destination gets."""
        if self.settings.propagate != "off":
            return frozenset()
        return _W3C_FIELDS | replaced_headers(propagate.get_global_textmap())


def replaced_headers(propagator: TextMapPropagator) -> frozenset[bytes]:
    """Give the headers that a propagator replaces, in lower case.

    A propagator that sets one header of B3 replaces all of them: the origin would take the
    client's for the parent.
    """
    fields = frozenset(name.lower().encode("latin-1") for name in propagator.fields)
    return fields if fields.isdisjoint(_B3) else fields | _B3
