"""The bare endpoint, the proxied route and the mounted application with telemetry on.

Providers keep what they get and export nothing, so that the export is not measured.
"""

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_proxy_di import proxy_app, proxy_lifespan, proxy_router

_TRACES: TelemetryConfig = {"tracer_provider": TracerProvider()}
_METRICS: TelemetryConfig = {"meter_provider": MeterProvider([InMemoryMetricReader()])}


def _app(telemetry: TelemetryConfig = _TRACES) -> FastAPI:
    return FastAPI(lifespan=proxy_lifespan, telemetry=telemetry)


def _router(telemetry: TelemetryConfig) -> FastAPI:
    app = _app(telemetry)
    app.include_router(proxy_router("origin"))
    return app


endpoint = _app()


@endpoint.get("/1k", response_model=None)
async def constant() -> dict[str, str]:
    """Return a constant."""
    return {"message": "Hello World"}


router = _router(_TRACES)
metrics = _router(_METRICS)


class OwnSpans:
    """ASGI wrapper that makes one span of each request, and nothing else."""

    def __init__(self, app: ASGIApp, provider: TracerProvider) -> None:
        self.app = app
        self.tracer = provider.get_tracer("own")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        with self.tracer.start_as_current_span(scope["method"], kind=SpanKind.SERVER):
            await self.app(scope, receive, send)


_PROVIDER = TracerProvider()
own_spans = OwnSpans(_router({"tracing": False, "tracer_provider": _PROVIDER}), _PROVIDER)

mount = _app()
mount.mount("/", proxy_app("origin"))
