"""Makes one client span per attempt, and sends its context to the destination.

Spans are made below the current span, which FastAPI's own telemetry, a middleware or the app has
made. A proxied request without a current span gets none, as on a path that telemetry leaves
out, and its trace headers pass as the client sent them. The same holds for every request that
the sampler leaves out. A call or lease of the app outside of requests gets a root span where a
provider is set; in a job that a
request has started, its spans are below the request's.

Names and attributes are OpenTelemetry's stable conventions for HTTP clients, and ``proxy.*`` for
what they do not name. Telemetry never fails a request: an exception of a provider or exporter is
logged once, and the request goes on without a span.
"""

from __future__ import annotations

import logging
from asyncio import CancelledError
from collections.abc import Callable, Collection
from importlib.metadata import version
from typing import Final
from urllib.parse import unquote_plus

from opentelemetry import baggage, propagate, trace
from opentelemetry.context import Context, get_current
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    Tracer,
    TracerProvider,
)
from starlette.types import Scope

from fastapi_proxy_di.errors import ProxyError
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.fallback import FALLBACK_FROM
from fastapi_proxy_di.observability.attributes import OTHER, method_of, server_of
from fastapi_proxy_di.observability.telemetry import (
    REQUEST_SCOPE,
    SCHEMA,
    Telemetry,
    replaced_headers,
)
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.transport.protocol import Headers
from fastapi_proxy_di.wire.targets import join_target

__all__ = ["Tracing"]

_SECRET_PARAMETERS: Final = frozenset(
    {"AWSAccessKeyId", "Signature", "X-Amz-Credential", "X-Amz-Security-Token", "X-Amz-Signature"}
    | {"X-Goog-Signature", "sig"}
)
"""Query parameters whose values are not shown (OpenTelemetry's conventions for ``url.full``)."""

_BAGGAGE: Final = frozenset({b"baggage"})
_CANCELLED: Final = "cancelled"

_logger = logging.getLogger("fastapi_proxy_di.tracing")


class Tracing:
    """Makes the spans of one upstream.

    Args:
        upstream: Name of the upstream.
        telemetry: The telemetry of the app.
        how: Gives the name of what picks for a request: policy, affinity or address.

    Attributes:
        upstream: Name of the upstream.
        how: Gives the name of what picks for a request: policy, affinity or address.
        injects: Whether the context of a span is sent to the destination.
        passes_baggage: Whether baggage that the client sent is sent on.
    """

    def __init__(
        self,
        upstream: str,
        telemetry: Telemetry,
        how: Callable[[Exchange, Destination | None], str],
    ) -> None:
        self.upstream: Final = upstream
        self.how: Final = how
        self.injects: Final = telemetry.settings.propagate == "inject"
        self.passes_baggage: Final = telemetry.settings.baggage == "pass"
        self._telemetry: Final = telemetry
        self._known: TracerProvider | None = None
        self._tracer: Tracer | None = None
        self._propagator: TextMapPropagator | None = None
        self._fields: frozenset[bytes] = frozenset()
        self._failed = False

    def observe(self, exchange: Exchange) -> ExchangeSpans | None:
        """Give the observer that makes the spans of an exchange, ``None`` for no spans."""
        try:
            proxied = exchange.send is not None
            context = get_current()
            if proxied and not context:
                return None  # what is empty has no span
            current = trace.get_current_span(context)
            recording = current.is_recording()
            if not recording and (proxied or _left_out(current.get_span_context())):
                return None
            tracer = self._tracer_now()
            if tracer is None and not (recording and self.injects):
                return None
            if proxied:
                span = self._telemetry.request_span(exchange.scope, current)
                if span is not current:
                    context = trace.set_span_in_context(span, context)
            return ExchangeSpans(
                self, tracer, context, exchange.scope if proxied else REQUEST_SCOPE.get()
            )
        except Exception as error:  # noqa: BLE001  # telemetry fails no request
            self.failed(error)
            return None

    def fields_of(self, propagator: TextMapPropagator) -> frozenset[bytes]:
        """Give the headers that a propagator replaces; kept for the next request.

        The client's baggage is one of them, also for a propagator that sends none.
        """
        if propagator is not self._propagator:
            own = frozenset[bytes]() if self.passes_baggage else _BAGGAGE
            self._fields = replaced_headers(propagator) | own
            self._propagator = propagator
        return self._fields

    def failed(self, error: Exception) -> None:
        """Log the first exception of the telemetry."""
        if not self._failed:
            self._failed = True
            _logger.warning(
                "%s: tracing failed, requests go on without spans: %r",
                self.upstream,
                error,
                exc_info=error,
                extra={"upstream": self.upstream},
            )

    def _tracer_now(self) -> Tracer | None:
        provider = self._telemetry.tracer_provider() if self._telemetry.settings.tracing else None
        if provider is None:
            return None
        if provider is not self._known:
            self._tracer = provider.get_tracer(
                "fastapi_proxy_di", version("fastapi-proxy-di"), schema_url=SCHEMA
            )
            self._known = provider
        return self._tracer


class ExchangeSpans:
    """Makes the spans of one exchange; an ``Observer``.

    Args:
        tracing: The tracing of the upstream.
        tracer: Makes the spans; ``None`` for no spans, only the current context is sent.
        context: The context of the parent of the spans.
        request: The scope of the request that the app handles, ``None`` outside of requests.
    """

    __slots__ = ("_attempts", "_context", "_original", "_request", "_tracer", "_tracing")

    def __init__(
        self, tracing: Tracing, tracer: Tracer | None, context: Context, request: Scope | None
    ) -> None:
        self._tracing = tracing
        self._tracer = tracer
        self._context = context
        self._request = request
        self._attempts = 0
        self._original: Span | None = None

    def picked(
        self, exchange: Exchange, tried: Collection[Destination], destination: Destination | None
    ) -> None:
        """Do nothing; a span names what has picked its destination."""

    def attempt_began(self, exchange: Exchange) -> None:
        """Start a span, and put its context into the headers of the attempt."""
        exchange.attempt_headers = None
        try:
            context = self._context
            if self._tracer is not None:
                exchange.span = span = self._start(exchange, self._tracer)
                if not span.is_recording():
                    return
                context = trace.set_span_in_context(span, context)
            if self._tracing.injects:
                exchange.attempt_headers = self._injected(exchange, context)
        except Exception as error:  # noqa: BLE001  # telemetry fails no request
            self._tracing.failed(error)

    def head(self, exchange: Exchange) -> None:
        """Set the status of the response."""
        if exchange.span is not None:
            self._status(exchange.span, exchange.response.status)

    def received(self, exchange: Exchange) -> None:
        """End the span, before the client's server gets the last piece of the response."""
        self._end(exchange, None)

    def attempt_ended(self, exchange: Exchange, failure: BaseException | None) -> None:
        """End the span, unless the whole response has been received."""
        self._end(exchange, failure)

    def responded(self, exchange: Exchange, status: int, headers: Headers) -> None:
        """Do nothing; ``head`` has set the status."""

    def sent(self, size: int) -> None:
        """Do nothing; the server counts bytes."""

    def ended(self, exchange: Exchange, failure: BaseException | None) -> None:
        """Do nothing; the span ends with its attempt."""

    def _start(self, exchange: Exchange, tracer: Tracer) -> Span:
        destination = exchange.destination
        address, port = server_of(destination)
        attributes: dict[str, str | int | float] = {
            "server.address": address,
            "proxy.upstream": self._tracing.upstream,
            "proxy.destination": destination.url,
            "proxy.pick": self._tracing.how(exchange, destination),
        }
        if port is not None:
            attributes["server.port"] = port
        if FALLBACK_FROM in exchange.scope:
            attributes["proxy.fallback_from"] = exchange.scope[FALLBACK_FROM]
        if self._attempts:
            attributes["http.request.resend_count"] = self._attempts
        elif exchange.queued is not None:
            attributes["proxy.queue.duration"] = exchange.queued
        self._attempts += 1
        links = []
        if exchange.avoid and self._original is not None:
            links.append(Link(self._original.get_span_context()))
        if exchange.scope["type"] == "lease":  # sends nothing
            name, kind = "lease", SpanKind.INTERNAL
        else:
            name, kind = _describe(exchange, attributes), SpanKind.CLIENT
        span = tracer.start_span(name, self._context, kind, attributes, links)
        if not exchange.avoid:
            self._original = span
        return span

    def _injected(self, exchange: Exchange, context: Context) -> Headers:
        """Give the headers of the attempt: the client's, with the fields of the propagator set."""
        if self._request is not None and not self._tracing.passes_baggage:
            context = _without_received_baggage(self._request, context)
        carrier: dict[str, str] = {}
        propagator = propagate.get_global_textmap()
        propagator.inject(carrier, context)
        injected = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in carrier.items()
        ]
        own = self._tracing.fields_of(propagator).union(name for name, _ in injected)
        return [pair for pair in exchange.headers if pair[0] not in own] + injected

    def _end(self, exchange: Exchange, failure: BaseException | None) -> None:
        span, exchange.span = exchange.span, None
        if span is None:
            return
        try:
            try:
                _set_result(span, exchange, failure)
            finally:
                span.end()
        except Exception as error:  # noqa: BLE001  # telemetry fails no request
            self._tracing.failed(error)

    def _status(self, span: Span, status: int) -> None:
        try:
            span.set_attribute("http.response.status_code", status)
            if status >= 400:  # an error for a client, by the conventions
                span.set_attribute("error.type", str(status))
                span.set_status(StatusCode.ERROR)
        except Exception as error:  # noqa: BLE001  # telemetry fails no request
            self._tracing.failed(error)


def _left_out(current: SpanContext) -> bool:
    """Whether the sampler has left a trace out.

    A span that has ended, or is another process's, does not record either, but is a parent for what
    a job does.
    """
    return current.is_valid and not current.trace_flags.sampled


def _describe(exchange: Exchange, attributes: dict[str, str | int | float]) -> str:
    """Set the attributes of a request, and give the name of its span."""
    attributes["url.full"] = _url(exchange)
    attributes["http.request.method"] = method = method_of(exchange.method)
    if method == OTHER:
        attributes["http.request.method_original"] = exchange.method.decode("latin-1")
        return "HTTP"
    return method


def _set_result(span: Span, exchange: Exchange, failure: BaseException | None) -> None:
    """Set how an attempt or a tunnel has ended, and what it has used."""
    if (usage := exchange.usage) is not None:
        span.set_attribute("gen_ai.usage.input_tokens", usage.input_tokens)
        span.set_attribute("gen_ai.usage.output_tokens", usage.output_tokens)
    end = exchange.tunnel_end
    if end is not None:
        span.set_attributes(
            {
                "proxy.tunnel.end.reason": end.reason.value,
                "proxy.tunnel.messages.up": end.upward_messages,
                "proxy.tunnel.messages.down": end.downward_messages,
                "proxy.tunnel.bytes.up": end.upward_bytes,
                "proxy.tunnel.bytes.down": end.downward_bytes,
            }
        )
        failure = end.error
    if failure is None:
        return
    if isinstance(failure, CancelledError):
        # No error: another response came first, or the server shuts down.
        span.set_attribute("error.type", _CANCELLED)
        return
    kind = failure.failure.value if isinstance(failure, ProxyError) else type(failure).__name__
    span.set_attribute("error.type", kind)
    span.set_status(StatusCode.ERROR)


def _url(exchange: Exchange) -> str:
    """Give the URL that is asked for, without the values of parameters that carry signatures."""
    address = exchange.destination.address
    target = join_target(address.base_path, exchange.target, b"").decode("latin-1")
    query = exchange.query.decode("latin-1")
    if query:
        query = "?" + "&".join(map(_redacted, query.split("&")))
    scheme = address.scheme if address.scheme in {"http", "https"} else "http"
    return f"{scheme}://{address.authority.decode()}{target}{query}"


def _redacted(parameter: str) -> str:
    name, equals, _ = parameter.partition("=")
    return f"{name}=REDACTED" if equals and unquote_plus(name) in _SECRET_PARAMETERS else parameter


def _without_received_baggage(request: Scope, context: Context) -> Context:
    """Remove what the client of a request has sent as baggage; what the app has set stays."""
    if not baggage.get_all(context):
        return context
    received = baggage.get_all(propagate.extract(_headers_of(request), Context()))
    for name, value in received.items():
        if baggage.get_baggage(name, context) == value:
            context = baggage.remove_baggage(name, context)
    return context


def _headers_of(request: Scope) -> dict[str, str]:
    """Give the headers of a request as a propagator reads them."""
    received: dict[str, str] = {}
    for name, value in request.get("headers", ()):
        key = name.decode("latin-1")
        text = value.decode("latin-1")
        received[key] = f"{received[key]},{text}" if key in received else text
    return received
