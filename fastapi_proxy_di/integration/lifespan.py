"""``proxy_lifespan``: starts and closes the upstreams of an app, in one runtime per app.

The first lifespan to run, of the app or of a proxy router, starts every upstream that the app
mounts or injects, and closes them all. Later lifespans do nothing.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Final

from fastapi import FastAPI
from fastapi.routing import APIWebSocketRoute
from opentelemetry.metrics import get_meter_provider
from starlette.applications import Starlette

from fastapi_proxy_di.errors import ProxyNotStarted, SettingsError
from fastapi_proxy_di.forwarding.unavailable import closed
from fastapi_proxy_di.integration.broken_responses import kept_broken
from fastapi_proxy_di.integration.compat import (
    dependant_of,
    request_span,
    route_template,
    telemetry_provider,
)
from fastapi_proxy_di.integration.limited import is_limited
from fastapi_proxy_di.integration.mentions import (
    EndsInLoop,
    mentions_of,
    overridden_upstreams,
    reached_routes,
)
from fastapi_proxy_di.integration.mounts import claimed
from fastapi_proxy_di.integration.problems import install_at_start
from fastapi_proxy_di.integration.proxied import proxied_by
from fastapi_proxy_di.integration.request_ids import identified
from fastapi_proxy_di.integration.runtime import Runtime
from fastapi_proxy_di.integration.shadowed import MountPaths, mount_paths
from fastapi_proxy_di.observability.telemetry import Telemetry, global_tracer_provider
from fastapi_proxy_di.settings import ProxySettings, TelemetrySettings
from fastapi_proxy_di.upstream.balancer import Balancer
from fastapi_proxy_di.upstream.client_request import check_request

_logger = logging.getLogger("fastapi_proxy_di.lifespan")

RUNTIME: Final = "_fastapi_proxy_di_runtime"
"""Attribute of the app that holds its runtime; ``app.state`` would be ten times slower."""

_ENDED: Final = "_fastapi_proxy_di_ended"
"""Attribute of an app whose lifespan has ended, for the message that says so."""

SETTINGS: Final = "_fastapi_proxy_di_settings"
"""Attribute of the app that holds the settings given by ``proxy_lifespan.configure``."""


class ProxyLifespan:
    """Runs the upstreams of an app.

    ``FastAPI(lifespan=proxy_lifespan)``, or ``Starlette(lifespan=proxy_lifespan)``, is for an
    app that injects upstreams or mounts ``proxy_app``. In a lifespan of your own write
    ``async with proxy_lifespan(app):``, also for a mounted sub-app, whose lifespan no server
    runs. Proxy routers run this lifespan themselves. Idempotent.
    """

    def __call__(self, app: Starlette) -> AbstractAsyncContextManager[None]:
        """Run the upstreams of ``app``.

        Args:
            app: The app; its routes and dependencies are searched for upstreams.

        Raises:
            SettingsError: Every fault of every upstream.
        """
        return _running(app)

    def configure(self, app: Starlette, settings: ProxySettings) -> None:
        """Give an app its `ProxySettings`, instead of those of the environment alone.

        Args:
            app: The app, before it starts.
            settings: The settings; variables win over the defaults of their class, not over
                arguments that they were made with.

        Raises:
            SettingsError: The app has started.
        """
        if hasattr(app, RUNTIME):
            raise SettingsError(
                "proxy_lifespan.configure: the app has started; configure it before, e.g. where "
                "it is made"
            )
        setattr(app, SETTINGS, settings)


proxy_lifespan: Final = ProxyLifespan()
"""The `ProxyLifespan` of every app."""


@asynccontextmanager
async def _running(app: Starlette) -> AsyncIterator[None]:
    if hasattr(app, RUNTIME):
        yield
        return
    await check_request()
    runtime = Runtime()
    setattr(app, RUNTIME, runtime)
    # The callbacks run in reverse order, each one even if another failed.
    async with AsyncExitStack() as at_end:
        at_end.push_async_callback(runtime.aclose)
        at_end.push_async_callback(_end_overrides, app)
        at_end.callback(forget_runtime, app)
        with claimed(app) as mounted, kept_broken(app):
            install_at_start(app)
            await runtime.start(
                mentions_of(app, mounted),
                getattr(app, SETTINGS, None),
                partial(_telemetry_of, app),
            )
            for one in mounted:
                one.bind(runtime.balancers.get(one.upstream.name))
            if is_limited(reached_routes(app.routes), mounted):
                runtime.warn_of_limits()
            runtime.mounts = mount_paths(app.routes)
            _warn_of_shadowed_routes(runtime.mounts)
            with identified(app, wanted=runtime.request_id):
                yield


def _telemetry_of(app: Starlette, settings: TelemetrySettings) -> Telemetry:
    return Telemetry(
        settings,
        lambda: telemetry_provider(app, "tracer_provider") or global_tracer_provider(),
        lambda: telemetry_provider(app, "meter_provider") or get_meter_provider(),
        request_span,
        route_template,
    )


async def _end_overrides(app: Starlette) -> None:
    async with AsyncExitStack() as stack:
        for override in overridden_upstreams(app).values():
            if isinstance(override, EndsInLoop):
                stack.push_async_callback(override.end_in_loop)


def _warn_of_shadowed_routes(mounts: Iterable[MountPaths]) -> None:
    shadowed = [route for mount in mounts for route in mount.shadowed]
    if shadowed:
        _logger.warning(
            "these routes get no requests, because an upstream is mounted before them: %s; "
            "declare them before the include_router(...) or app.mount(...) of the upstream",
            ", ".join(map(str, shadowed)),
        )


def runtime_of(app: Any, what: str, name: str = "billing") -> Runtime:
    """Give the runtime of ``app``.

    Args:
        app: The app whose lifespan is running.
        what: What is wrong if no lifespan ran, for the message.
        name: An upstream, for the message.

    Raises:
        ProxyNotStarted: No lifespan ran, or it has ended.
    """
    runtime: Runtime | None = getattr(app, RUNTIME, None)
    if runtime is None:
        if hasattr(app, _ENDED):
            raise ProxyNotStarted(f"{what}, because the lifespan of this app has ended")
        raise ProxyNotStarted(
            f"{what}, because no lifespan of this app ran. Add "
            "FastAPI(lifespan=proxy_lifespan), or app.include_router(proxy_router("
            f"{name!r})); for a mounted sub-app `async with proxy_lifespan(sub_app):` in the "
            "outer app's lifespan; in tests `with TestClient(app) as client:`"
        )
    return runtime


def forget_runtime(app: Any) -> None:
    """Take the runtime from ``app``, whose lifespan ends."""
    delattr(app, RUNTIME)
    setattr(app, _ENDED, True)


def balancer_of(app: Any, name: str) -> Balancer:
    """Give the running balancer of an upstream of ``app``.

    Raises:
        ProxyNotStarted: No lifespan ran, or the upstream was added after it started.
        UpstreamClosed: The upstream was made by `proxy_upstream`, and its block has ended.
    """
    runtime = runtime_of(app, f"upstream {name!r} is not started", name)
    balancer = runtime.balancers.get(name)
    if balancer is not None:
        return balancer
    if runtime.has_removed(name):
        raise closed(name)
    raise ProxyNotStarted(
        f"upstream {name!r} is not started: when the lifespan of this app ran, no route "
        f"mounted or injected it (started: {', '.join(runtime.balancers) or 'none'}), or "
        "it was overridden. Include the routes before the app starts"
    )


def warn_of_unreachable_websockets(app: FastAPI) -> None:
    """Log a warning for each dependency that cannot run before a proxied WebSocket.

    Warns once per start of the app.

    Args:
        app: The app, whose lifespan is running.
    """
    runtime: Runtime = getattr(app, RUNTIME)
    if runtime.websockets_checked:
        return
    runtime.websockets_checked = True
    for route in reached_routes(app.routes):
        dependant = dependant_of(route)
        proxied = proxied_by(getattr(route, "endpoint", None))
        if (
            not isinstance(route.original_route, APIWebSocketRoute)
            or proxied is None
            or dependant is None
            # The second route of a mount has the same dependencies.
            or not route.path_format.endswith("/{path}")
        ):
            continue
        for blocker in _request_takers(dependant):
            _logger.warning(
                "%s: %s takes Request, so it cannot run before a WebSocket: every handshake on "
                "%s is refused. Let it take fastapi.requests.HTTPConnection, or mount with "
                "proxy_router(..., websocket=False)",
                proxied.upstream.name,
                getattr(blocker, "__qualname__", repr(blocker)),
                route.path_format,
                extra={"upstream": proxied.upstream.name},
            )


def _request_takers(dependant: Any) -> Iterator[Any]:
    for dependency in dependant.dependencies:
        if dependency.request_param_name:
            yield dependency.call
        yield from _request_takers(dependency)
