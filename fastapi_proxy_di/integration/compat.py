"""The undocumented FastAPI and Starlette names that the integration uses, one accessor each.

Each accessor says what happens if the name is missing: an error when the app starts, or a
slower way with the same result. No guard is skipped. The names of Starlette's ``Request`` and
``WebSocket`` that ``Balancer.forward`` uses are in ``upstream.client_request``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import fastapi
import fastapi.routing
from fastapi import FastAPI, params
from fastapi.dependencies import models
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.routing import BaseRoute, Mount
from starlette.types import ASGIApp, Scope

_DEPENDANT_FIELDS: Final = ("call", "dependencies", "path_params", "request_param_name")
"""The fields of a dependency tree that the integration reads."""


class UnknownFastAPI(RuntimeError):
    """Raised at start if the version of FastAPI or Starlette lacks a name that we need."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"FastAPI {fastapi.__version__} has no {name}, which fastapi_proxy_di needs. Install "
            "a version that the installed fastapi_proxy_di supports"
        )


def effective_route(route: APIRoute) -> Any:
    """Return the include of ``route`` that FastAPI makes a request handler for, or ``route``.

    FastAPI keeps the path, pattern and methods of each include of a route in a separate
    object, which a context variable holds while ``get_route_handler`` runs. If the variable
    is missing, ``route`` is returned, and the lifespan of a proxy router raises
    `UnknownFastAPI`, because the patterns of the includes are not wider.
    """
    variable = getattr(fastapi.routing, "_effective_route_context_var", None)
    include = None if variable is None else variable.get()
    return route if getattr(include, "original_route", None) is not route else include


def routes_of(routes: Iterable[BaseRoute]) -> Iterator[Any]:
    """Yield all routes of an app, with a separate object for each include of a route.

    Each has the route that was included as ``original_route``.

    Raises:
        UnknownFastAPI: FastAPI has no ``iter_route_contexts``, or no ``original_route``.
    """
    iter_route_contexts = getattr(fastapi.routing, "iter_route_contexts", None)
    if iter_route_contexts is None:
        raise UnknownFastAPI("fastapi.routing.iter_route_contexts")
    for route in iter_route_contexts(list(routes)):
        if not hasattr(route, "original_route"):
            raise UnknownFastAPI("RouteContext.original_route")
        yield route


def pattern_of(route: Any) -> re.Pattern[str]:
    """Return the compiled pattern of a route, or of an include of a route.

    Raises:
        UnknownFastAPI: The route has no ``path_regex``.
    """
    pattern = getattr(route, "path_regex", None)
    if not isinstance(pattern, re.Pattern):
        raise UnknownFastAPI("Route.path_regex")
    return pattern


def dependant_of(route: Any) -> Any | None:
    """Return the dependency tree of a route yielded by `routes_of`, ``None`` for no tree.

    Raises:
        UnknownFastAPI: FastAPI has no ``Dependant``, or one without a field that we need.
    """
    kind = getattr(models, "Dependant", None)
    if kind is None:
        raise UnknownFastAPI("fastapi.dependencies.models.Dependant")
    dependant = getattr(route, "dependant", None)
    if not isinstance(dependant, kind):
        return None
    for field in _DEPENDANT_FIELDS:
        if not hasattr(dependant, field):
            raise UnknownFastAPI(f"Dependant.{field}")
    return dependant


def telemetry_provider(app: Any, name: str) -> Any | None:
    """Return a provider that an app gives to FastAPI's telemetry; ``None`` for the global one.

    FastAPI before 0.142, and other frameworks, have no telemetry of their own.

    Args:
        app: The app.
        name: ``"tracer_provider"`` or ``"meter_provider"``.
    """
    config = getattr(app, "_telemetry", None)
    return config.get(name) if isinstance(config, dict) else None


def request_span(scope: Scope, current: Any) -> Any:
    """Return FastAPI's span of a request where ``current`` is its span of the endpoint.

    The endpoint ends before the response is sent, so what is below its span would outlive it. If a
    name is missing, ``current`` is returned.

    Args:
        scope: The scope of the request.
        current: The current span.
    """
    if getattr(current, "name", None) != "fastapi.endpoint":
        return current
    span = getattr(scope.get("fastapi.telemetry"), "span", None)
    return current if span is None else span


def route_template(scope: Scope) -> str | None:
    """Return the path template of the route that a request has matched, ``None`` for none.

    The path of an include is with its prefix, that of a mount with ``/{path:path}``. Both are
    without the mounts around the app. If FastAPI's effective route is missing, the path of an
    include is that of its route, without the prefix.
    """
    route = scope.get("route")
    if isinstance(route, Mount):
        return f"{route.path}/{{path:path}}"
    include = (scope.get("fastapi") or {}).get("effective_route_context")
    if getattr(include, "original_route", None) is route:
        route = include
    path = getattr(route, "path", None)
    return path if isinstance(path, str) else None


def app_dependencies(app: FastAPI) -> Sequence[params.Depends]:
    """Return the app-level dependencies of ``app``.

    Raises:
        UnknownFastAPI: The router of the app has no ``dependencies``.
    """
    if not hasattr(app.router, "dependencies"):
        raise UnknownFastAPI("APIRouter.dependencies")
    return app.router.dependencies


def exception_handlers(scope: Scope) -> dict[Any, Any] | None:
    """Return the table of exception handlers by class that Starlette uses for a request.

    Returns ``None`` if Starlette did not put the table into the scope. A `ProxyError` without
    a handler in the app is then a 500 with a traceback.
    """
    tables = scope.get("starlette.exception_handlers")
    return tables[0] if tables else None


def exception_middleware(app: Starlette) -> ExceptionMiddleware | None:
    """Return the middleware of ``app`` that calls the exception handlers.

    Returns ``None`` if a middleware around it does not have its inner app as ``app``. Requests
    then add the handler of `ProxyError` by `exception_handlers`, once they resolve an upstream.
    """
    layer: Any = middleware_stack(app)
    while layer is not None and not isinstance(layer, ExceptionMiddleware):
        layer = getattr(layer, "app", None)
    return layer


def middleware_stack(app: Starlette) -> ASGIApp:
    """Return the middleware stack of ``app``; builds it if it is not built yet.

    Raises:
        UnknownFastAPI: The app has no ``middleware_stack``.
    """
    if not hasattr(app, "middleware_stack"):
        raise UnknownFastAPI("Starlette.middleware_stack")
    if app.middleware_stack is None:
        app.middleware_stack = app.build_middleware_stack()
    return app.middleware_stack
