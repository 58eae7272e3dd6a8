"""What telemetry costs in the event loop, for one request."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from types import SimpleNamespace
from typing import Any, Final, cast

from opentelemetry import propagate, trace
from opentelemetry.context import get_current
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind

from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.observability.metrics import Metrics
from fastapi_proxy_di.observability.telemetry import Telemetry
from fastapi_proxy_di.observability.tracing import Tracing
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.transport.protocol import TransportExchange
from tests.pools.samples import destinations_of

_TIMES: Final = 300
_ROUNDS: Final = 15
_MOST_SECONDS: Final = 50e-6
_HEADERS: Final = [(b"accept", b"*/*"), (b"via", b"1.1 gateway"), (b"x-forwarded-for", b"10.0.0.9")]


async def send(message: object) -> None:
    """Stand for the client."""


def exchange_with(destination: Destination) -> Exchange:
    """Give an exchange that has a response of 200."""
    scope = {"type": "http", "headers": _HEADERS}
    exchange = Exchange(scope, None, send, b"/invoices/7", b"")
    exchange.headers = list(_HEADERS)
    exchange.destination = destination
    exchange.transport_exchange = cast("TransportExchange", SimpleNamespace(status=200))
    return exchange


def best_seconds(*functions: Callable[[], object]) -> list[float]:
    """Give the least time of each function, which are called in turns."""
    best = [float("inf")] * len(functions)
    for _ in range(_ROUNDS):
        for number, function in enumerate(functions):
            began = perf_counter()
            for _ in range(_TIMES):
                function()
            best[number] = min(best[number], (perf_counter() - began) / _TIMES)
    return best


def test_span_and_injection_add_little_to_what_opentelemetry_takes() -> None:
    """At most 50 µs on top of a span of the SDK with the same attributes and its injection."""
    provider = TracerProvider()
    tracer = provider.get_tracer("tests")
    exchange = exchange_with(destinations_of(1)[0])
    tracing = Tracing(
        "billing", Telemetry(tracer_provider=lambda: provider), lambda scope, picked: "two-choices"
    )
    attributes: dict[str, Any] = {
        "server.address": "10.0.0.1",
        "server.port": 8080,
        "http.request.method": "GET",
        "url.full": "http://10.0.0.1:8080/invoices/7",
        "proxy.upstream": "billing",
        "proxy.destination": "http://10.0.0.1:8080",
        "proxy.pick": "two-choices",
    }

    def ours() -> None:
        observer = tracing.observe(exchange)
        assert observer is not None
        observer.attempt_began(exchange)
        observer.head(exchange)
        observer.received(exchange)
        observer.attempt_ended(exchange, None)

    def bare() -> None:
        span = tracer.start_span("GET", get_current(), SpanKind.CLIENT, attributes)
        propagate.inject({}, trace.set_span_in_context(span))
        span.set_attribute("http.response.status_code", 200)
        span.end()

    with tracer.start_as_current_span("request"):
        with_ours, alone = best_seconds(ours, bare)

    assert exchange.attempt_headers is not None
    assert with_ours - alone <= _MOST_SECONDS


def test_counting_costs_the_same_for_a_thousand_destinations() -> None:
    """No step of a request visits all destinations."""

    def counting(count: int) -> Callable[[], None]:
        pool = destinations_of(count)
        metrics = Metrics("billing", pool)
        exchange = exchange_with(pool[-1])

        def count_one() -> None:
            metrics.attempt_began(exchange)
            metrics.head(exchange)
            metrics.ended(exchange, None)
            metrics.attempt_ended(exchange, None)

        return count_one

    few, many = best_seconds(counting(3), counting(1000))

    assert many <= 2 * few
