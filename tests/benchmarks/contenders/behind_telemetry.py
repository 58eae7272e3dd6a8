"""The bare endpoint, the proxied route and the mounted application with FastAPI's own tracing on.

The provider records each span and exports none, so that the export is not measured.
"""

from fastapi import FastAPI
from opentelemetry.sdk.trace import TracerProvider

from fastapi_proxy_di import proxy_app, proxy_lifespan, proxy_router


def _app() -> FastAPI:
    return FastAPI(lifespan=proxy_lifespan, telemetry={"tracer_provider": TracerProvider()})


endpoint = _app()


@endpoint.get("/1k", response_model=None)
async def constant() -> dict[str, str]:
    """Return a constant."""
    return {"message": "Hello World"}


router = _app()
router.include_router(proxy_router("origin"))

mount = _app()
mount.mount("/", proxy_app("origin"))
