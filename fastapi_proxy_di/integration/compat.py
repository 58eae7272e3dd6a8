"""The undocumented FastAPI and Starlette names that the integration uses, one accessor each.

Each accessor says what happens where the name is missing: a fault when the app starts, or a
slower way that is right as well. No guard is skipped. What ``Balancer.forward`` needs of
Starlette's ``Request`` and ``WebSocket`` is in ``upstream.client_request``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import fastapi
import fastapi.routing
from fastapi.dependencies import models
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Scope


class UnknownFastAPI(RuntimeError):
    """Raised when the app starts: this version of FastAPI or Starlette lacks a name we need."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"FastAPI {fastapi.__version__} has no {name}, which fastapi_proxy_di needs. Install "
            "a version that the installed fastapi_proxy_di supports"
        )


def effective_route(route: APIRoute) -> Any:
    """Return the include of ``route`` that FastAPI makes a request handler for, or ``route``.

    FastAPI keeps the path, pattern and methods of each include of a route in an object of its
    own, and names it in a context variable while ``get_route_handler`` runs. Where the
    variable is missing ``route`` is returned, and `routes_of` sees at start that includes were
    left out.
    """
    variable = getattr(fastapi.routing, "_effective_route_context_var", None)
    include = None if variable is None else variable.get()
    return route if getattr(include, "original_route", None) is not route else include


def routes_of(routes: Iterable[BaseRoute]) -> Iterator[Any]:
    """Give all routes, those of included routers as each include has them.

    Raises:
        UnknownFastAPI: There is no ``iter_route_contexts``.
    """
    iter_route_contexts = getattr(fastapi.routing, "iter_route_contexts", None)
    if iter_route_contexts is None:
        raise UnknownFastAPI("fastapi.routing.iter_route_contexts")
    yield from iter_route_contexts(list(routes))


def dependant_of(route: Any) -> Any | None:
    """Give the tree of dependencies of a route as `routes_of` gives it, ``None`` for none.

    Raises:
        UnknownFastAPI: There is no ``Dependant``.
    """
    kind = getattr(models, "Dependant", None)
    if kind is None:
        raise UnknownFastAPI("fastapi.dependencies.models.Dependant")
    dependant = getattr(route, "dependant", None)
    return dependant if isinstance(dependant, kind) else None


def exception_handlers(scope: Scope) -> dict[Any, Any] | None:
    """Give the exception handlers of the app by class, as this request will look them up.

    ``None`` where Starlette does not put them into the scope: a `ProxyError` that the app has
    no handler for is then a 500 with a traceback.
    """
    tables = scope.get("starlette.exception_handlers")
    return tables[0] if tables else None


def middleware_stack(app: Starlette) -> ASGIApp:
    """Give the middlewares of ``app``, which are built if no request has come yet.

    Raises:
        UnknownFastAPI: There is no ``middleware_stack``.
    """
    if not hasattr(app, "middleware_stack"):
        raise UnknownFastAPI("Starlette.middleware_stack")
    if app.middleware_stack is None:
        app.middleware_stack = app.build_middleware_stack()
    return app.middleware_stack
