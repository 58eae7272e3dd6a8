"""``proxy_collector`` and ``metrics_router``: the metrics of an app's upstreams for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from fastapi.params import Depends
from starlette.requests import Request
from starlette.responses import Response

from fastapi_proxy_di.integration.lifespan import RUNTIME
from fastapi_proxy_di.observability.families import Numbers

if TYPE_CHECKING:
    from prometheus_client.registry import Collector  # an extra

__all__ = ["metrics_router", "proxy_collector"]


def proxy_collector(*apps: Any) -> Collector:
    """Give a collector of the metrics of all upstreams of an app, for any registry.

    ```python
    from prometheus_client import REGISTRY

    REGISTRY.register(proxy_collector(app))
    ```

    The collector gives nothing while no lifespan of the app runs. The label ``process`` of all
    series has the process id, because a scrape sees one process. Needs the extra ``prometheus``.

    Args:
        *apps: The app that mounts or injects the upstreams. Several apps of one process, such as
            mounted ones, share one collector, because a registry takes each metric once.

    Raises:
        ModuleNotFoundError: The extra is not installed.
    """
    collector: Collector = _collectors().UpstreamCollector(
        lambda: [one for app in apps for one in _numbers(app)]
    )
    return collector


def metrics_router(
    path: str = "/metrics", *, dependencies: Sequence[Depends] | None = None
) -> APIRouter:
    """Give a router whose one route serves the metrics of the app's upstreams to Prometheus.

    Addresses of destinations are labels, so guard the route unless only your Prometheus can
    reach it: ``app.include_router(metrics_router(), dependencies=[Depends(require_scraper)])``.
    The route serves the upstreams of the app that includes the router, and nothing else; to serve
    them beside metrics of your own, add `proxy_collector` to your registry. Needs the extra
    ``prometheus``.

    Args:
        path: Path of the route.
        dependencies: Dependencies of the route.

    Raises:
        ModuleNotFoundError: The extra is not installed.
    """
    collectors = _collectors()
    router = APIRouter(dependencies=dependencies)

    # No coroutine, so FastAPI runs it in a thread: a thousand destinations take half a second.
    def metrics(request: Request) -> Response:
        collector = collectors.UpstreamCollector(lambda: _numbers(request.scope["app"]))
        content, media_type = collectors.exposition(collector, request.headers.get("accept", ""))
        return Response(content, headers={"content-type": media_type})

    router.add_api_route(path, metrics, methods=["GET"], include_in_schema=False)
    return router


def _numbers(app: Any) -> Iterable[Numbers]:
    runtime = getattr(app, RUNTIME, None)
    return () if runtime is None else runtime.numbers()


def _collectors() -> ModuleType:
    try:
        return import_module("fastapi_proxy_di.observability.prometheus")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "metrics for Prometheus need the extra prometheus: "
            "pip install 'fastapi-proxy-di[prometheus]'",
            name=error.name,
        ) from error
