"""``proxy_collector`` and ``metrics_router``: the metrics of an app's upstreams for Prometheus."""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import Iterable, Sequence
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from fastapi import APIRouter
from fastapi.params import Depends
from starlette.requests import Request
from starlette.responses import Response

from fastapi_proxy_di.integration.lifespan import RUNTIME
from fastapi_proxy_di.integration.problems import problem
from fastapi_proxy_di.integration.runtime import Runtime
from fastapi_proxy_di.observability.families import Numbers, Readings
from fastapi_proxy_di.observability.workers import warn_of_local_sums

if TYPE_CHECKING:
    from prometheus_client.registry import Collector  # an extra

__all__ = ["metrics_router", "proxy_collector"]

MetricsScope: TypeAlias = Literal["process", "cluster"]
"""Whose metrics a router serves: those of the process that responds, or of all."""


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
    path: str = "/metrics",
    *,
    scope: MetricsScope = "process",
    dependencies: Sequence[Depends] | None = None,
) -> APIRouter:
    """Give a router whose one route serves the metrics of the app's upstreams to Prometheus.

    Addresses of destinations are labels, so guard the route unless only your Prometheus can
    reach it: ``app.include_router(metrics_router(), dependencies=[Depends(require_scraper)])``.
    The route serves the upstreams of the app that includes the router, and nothing else; to serve
    them beside metrics of your own, add `proxy_collector` to your registry. Needs the extra
    ``prometheus``.

    Args:
        path: Path of the route.
        scope: ``"process"`` for the metrics of the process that responds, whose id is the label
            ``process``. ``"cluster"`` for the sums over all processes that share
            ``cluster.store``, without that label: let Prometheus scrape one target, e.g. the
            address of the load balancer. The sums are up to ``cluster.snapshot_interval`` old,
            and have all that processes counted which have ended since. They never fall: while the
            store is lost, or has lost totals, the response is 503. Without a store they are those
            of the process that responds.
        dependencies: Dependencies of the route.

    Raises:
        ModuleNotFoundError: The extra is not installed.
        ValueError: ``scope`` is something else.
    """
    if scope not in get_args(MetricsScope):
        raise ValueError(f"scope: {scope!r} is neither 'process' nor 'cluster'")
    collectors = _collectors()
    router = APIRouter(dependencies=dependencies)

    def response(collector: Collector, request: Request) -> Response:
        content, media_type = collectors.exposition(collector, request.headers.get("accept", ""))
        return Response(content, headers={"content-type": media_type})

    # No coroutine, so FastAPI runs it in a thread: a thousand destinations take half a second.
    def metrics(request: Request) -> Response:
        return response(
            collectors.UpstreamCollector(lambda: _numbers(request.scope["app"])), request
        )

    async def sums(request: Request) -> Response:
        readings = await _sums(request.scope["app"])
        if readings is None:
            return problem(503, "The store of all processes does not have the sums at the moment.")
        return await to_thread(response, collectors.SumCollector(readings), request)

    endpoint = metrics if scope == "process" else sums
    router.add_api_route(path, endpoint, methods=["GET"], include_in_schema=False)
    return router


def _numbers(app: Any) -> Iterable[Numbers]:
    runtime = getattr(app, RUNTIME, None)
    return () if runtime is None else runtime.numbers()


async def _sums(app: Any) -> list[Readings] | None:
    """Give what all processes have together; ``None`` while the store does not have it."""
    runtime: Runtime | None = getattr(app, RUNTIME, None)
    if runtime is not None and runtime.cluster is not None:
        return await runtime.cluster.readings()
    warn_of_local_sums()
    return [one.read() for one in _numbers(app)]


def _collectors() -> ModuleType:
    try:
        return import_module("fastapi_proxy_di.observability.prometheus")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "metrics for Prometheus need the extra prometheus: "
            "pip install 'fastapi-proxy-di[prometheus]'",
            name=error.name,
        ) from error
