"""Routes that get no request because an upstream is mounted before them, found by their order."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import BaseRoute, Host, Mount, Route, Router
from starlette.staticfiles import StaticFiles

from fastapi_proxy_di import proxy_app, proxy_router
from fastapi_proxy_di.integration.shadowed import shadowed_routes


def endpoint() -> None:
    """Stand for the endpoint of a local route."""


class Everything(HTTPEndpoint):
    """An endpoint whose route takes every method."""


def mounted(prefix: str = "/billing", **options: Any) -> FastAPI:
    """Give an app with the upstream ``billing`` mounted at ``prefix``."""
    app = FastAPI()
    app.include_router(proxy_router("billing", **options), prefix=prefix)
    return app


def shown(app: FastAPI | Starlette) -> list[str]:
    """Give the findings as they are logged."""
    return [str(one) for one in shadowed_routes(app.routes)]


def local(path: str, *methods: str) -> Callable[[FastAPI], None]:
    """Add a local route."""
    return lambda app: app.add_api_route(path, endpoint, methods=list(methods or ("GET",)))


def websocket(path: str) -> Callable[[FastAPI], None]:
    """Add a local WebSocket route."""
    return lambda app: app.add_api_websocket_route(path, endpoint)


def included(path: str, prefix: str) -> Callable[[FastAPI], None]:
    """Add a local route in a router in a router."""

    def include(app: FastAPI) -> None:
        inner, outer = APIRouter(prefix="/inner"), APIRouter()
        inner.add_api_route(path, endpoint)
        outer.include_router(inner)
        app.include_router(outer, prefix=prefix)

    return include


def sub_app(path: str, app: Any) -> Callable[[FastAPI], None]:
    """Mount an application."""
    return lambda around: around.mount(path, app)


def route(path: str, what: Any = endpoint) -> Callable[[FastAPI], None]:
    """Add a route of Starlette's."""
    return lambda app: app.router.routes.append(Route(path, what))


@pytest.mark.parametrize(
    ("add", "route"),
    [
        (local("/billing/health"), "GET /billing/health"),
        (local("/billing"), "GET /billing"),
        (local("/billing/{item}", "POST", "PUT"), "POST/PUT /billing/{item}"),
        (websocket("/billing/{room}/live"), "WebSocket /billing/{room}/live"),
        (included("/x", "/billing"), "GET /billing/inner/x"),
        (route("/billing/x"), "GET/HEAD /billing/x"),
        (route("/billing/x", Everything), "HTTP /billing/x"),
        (sub_app("/billing/docs", Starlette()), "/billing/docs"),
        (sub_app("/billing", FastAPI()), "/billing"),
        (sub_app("/a", Starlette(routes=[Route("/x", endpoint)])), None),
        (local("/billing2"), None),
        (local("/{path:path}"), None),
        (included("/x", "/other"), None),
    ],
)
def test_local_route_behind_a_mount(add: Callable[[FastAPI], None], route: str | None) -> None:
    """Routes, routers and applications, whose paths all lie below the mount."""
    app = mounted()
    add(app)

    assert shown(app) == ([] if route is None else [f"{route} (behind 'billing' at /billing)"])


def test_local_route_before_the_mount_is_reached() -> None:
    """So are FastAPI's own routes; a second copy behind the mount is no finding."""
    app = FastAPI()
    local("/billing/x")(app)
    app.mount("/billing/files", StaticFiles(directory=Path(__file__).parent))
    app.include_router(proxy_router("billing"))
    local("/billing/x")(app)
    local("/billing/files/x")(app)

    assert shown(app) == []


def test_root_mount_takes_everything_behind_it() -> None:
    """Applications and other hosts too."""
    app = mounted("")
    local("/health")(app)
    app.mount("/sub", FastAPI())
    app.mount("/files", StaticFiles(directory=Path(__file__).parent))
    app.host("api.example", FastAPI())
    app.include_router(proxy_router("search"), prefix="/search")

    assert shown(app) == [
        "GET /health (behind 'billing' at /)",
        "/sub (behind 'billing' at /)",
        "/files (behind 'billing' at /)",
        "api.example (behind 'billing' at /)",
        "/search (behind 'billing' at /)",
    ]


def test_mount_of_some_methods_takes_these() -> None:
    """Other methods reach the local route; a second mount may take the rest."""
    app = mounted(methods=["GET", "POST"], include_in_schema=True)
    local("/billing/x", "GET", "PUT")(app)
    local("/billing/y", "PUT")(app)
    websocket("/billing/z")(app)
    route("/billing/every", Everything)(app)
    app.mount("/billing/sub", Starlette())
    app.include_router(proxy_router("search"), prefix="/billing")

    assert shown(app) == [
        "GET /billing/x (behind 'billing' at /billing)",
        "WebSocket /billing/z (behind 'billing' at /billing)",
    ]


def test_mount_without_websockets_takes_none() -> None:
    """A mounted application behind it may serve them; static files are never WebSockets."""
    app = mounted(websocket=False)
    websocket("/billing/x")(app)
    app.mount("/billing/sub", Starlette())
    app.mount("/billing/files", StaticFiles(directory=Path(__file__).parent))

    assert shown(app) == ["/billing/files (behind 'billing' at /billing)"]


def test_two_mounts_share_the_methods_of_a_route() -> None:
    """Each is named with what it takes."""
    app = mounted(methods=["GET"])
    app.include_router(proxy_router("search", methods=["PUT"]), prefix="/billing")
    local("/billing/x", "GET", "PUT", "DELETE")(app)

    assert shown(app) == [
        "GET /billing/x (behind 'billing' at /billing)",
        "PUT /billing/x (behind 'search' at /billing)",
    ]


def test_connect_is_not_taken() -> None:
    """No mount forwards ``CONNECT``."""
    app = mounted()
    local("/billing/x", "CONNECT")(app)

    assert shown(app) == []


def test_mounted_proxy_app_takes_what_is_below() -> None:
    """In middlewares too. Starlette's ``Mount`` does not match its path without the slash."""
    app = FastAPI()
    app.mount("/billing", GZipMiddleware(proxy_app("billing")))
    local("/billing")(app)
    local("/billing/x")(app)
    local("/other/x")(app)
    app.mount("/billing", Starlette())

    assert shown(app) == [
        "GET /billing/x (behind 'billing' at /billing)",
        "/billing (behind 'billing' at /billing)",
    ]


def test_mount_of_root_takes_the_root() -> None:
    """Its path without the slash is empty."""
    app = Starlette(routes=[Mount("/", proxy_app("billing")), Route("/", endpoint)])

    assert shown(app) == ["GET/HEAD / (behind 'billing' at /)"]


def test_routes_of_nested_apps() -> None:
    """Routes inside nested apps and behind them are found."""
    inside: list[BaseRoute] = [
        Route("/x", endpoint),
        Mount("/billing", proxy_app("billing")),
        Route("/billing/x", endpoint),
    ]
    app = Starlette(routes=[Mount("/api", Router(inside)), Route("/api/billing/y", endpoint)])

    assert shown(app) == [
        "GET/HEAD /api/billing/x (behind 'billing' at /api/billing)",
        "GET/HEAD /api/billing/y (behind 'billing' at /api/billing)",
    ]


def test_mount_of_one_host_takes_nothing_from_others() -> None:
    """Its routes are compared with each other, and with what is before the host."""
    billing: list[BaseRoute] = [
        Mount("/billing", proxy_app("billing")),
        Route("/billing/x", endpoint),
    ]
    app = Starlette(
        routes=[
            Host("a.example", Router(billing)),
            Host("b.example", proxy_app("billing")),
            Route("/billing/x", endpoint),
            Mount("/search", proxy_app("search")),
            Host("c.example", Router([Route("/search/x", endpoint)])),
        ]
    )

    assert shown(app) == [
        "GET/HEAD /billing/x (behind 'billing' at /billing)",
        "GET/HEAD /search/x (behind 'search' at /search)",
    ]


def test_route_with_a_matching_of_its_own_is_left_out() -> None:
    """Its path does not say which requests the route gets."""

    class Versioned(APIRoute):
        def matches(self, scope: Any) -> Any:
            """Match by a header."""

    app = mounted()
    app.router.add_api_route("/billing/x", endpoint, route_class_override=Versioned)

    assert shown(app) == []
