"""Who gets which request of a mount: the app before it, the upstream, and no route behind it."""

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
from fastapi_proxy_di.integration.shadowed import MountPaths, mount_paths


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
    """Give the shadowed routes as they are logged."""
    return [str(one) for mount in mount_paths(app.routes) for one in mount.shadowed]


def texts(app: FastAPI | Starlette) -> list[str]:
    """Give each mount with its local routes, and with what it forwards if that is not all."""
    return [", ".join([_subject(one), *_local(one)]) for one in mount_paths(app.routes)]


def _subject(mount: MountPaths) -> str:
    host = f"{mount.host} " if mount.host else ""
    proxied = "/".join(mount.proxied) or "-"
    only = "" if proxied == "HTTP/WebSocket" else f" ({proxied})"
    return f"{mount.upstream} at {host}{mount.path}{only}"


def _local(mount: MountPaths) -> list[str]:
    return [f"{'/'.join(one.requests)} {one.path}".strip() for one in mount.local]


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


def test_local_routes_of_a_mount() -> None:
    """Routes, routers, files and applications before the mount, with all their paths in it."""
    app = FastAPI(openapi_url=None)
    local("/billing")(app)
    local("/billing/{item}", "POST", "PUT")(app)
    websocket("/billing/live")(app)
    included("/x", "/billing")(app)
    route("/billing/every", Everything)(app)
    app.mount("/billing/files", StaticFiles(directory=Path(__file__).parent))
    app.mount("/billing/sub", Starlette(routes=[Route("/inner", endpoint)]))
    app.mount("/billing/api", FastAPI())
    local("/elsewhere")(app)
    local("/{path:path}/x")(app)
    app.include_router(proxy_router("billing"), prefix="/billing")
    local("/billing/behind")(app)

    (text,) = texts(app)
    assert text.split(", ") == [
        "billing at /billing",
        "GET /billing",
        "POST/PUT /billing/{item}",
        "WebSocket /billing/live",
        "GET /billing/inner/x",
        "HTTP /billing/every",
        "/billing/files",
        "/billing/sub",
        "/billing/api",
    ]


def test_local_routes_of_a_mount_of_some_methods() -> None:
    """With the methods that the mount would take."""
    app = FastAPI(openapi_url=None)
    local("/billing/x", "GET", "PUT")(app)
    local("/billing/y", "PUT")(app)
    websocket("/billing/z")(app)
    route("/billing/every", Everything)(app)
    app.include_router(proxy_router("billing", methods=["GET"], websocket=False), prefix="/billing")

    assert texts(app) == ["billing at /billing (GET), GET /billing/x, GET /billing/every"]


def test_local_routes_of_a_mount_at_the_root() -> None:
    """FastAPI's own pages, and no routes of other mounts."""
    app = FastAPI(docs_url=None, redoc_url=None)
    app.include_router(proxy_router("search"), prefix="/search")
    app.mount("/orders", GZipMiddleware(proxy_app("orders")))
    app.include_router(proxy_router("billing"))

    assert texts(app) == [
        "search at /search",
        "orders at /orders",
        "billing at /, GET/HEAD /openapi.json",
    ]


def test_mounts_of_several_includes() -> None:
    """Each is its own; one behind another of the same path forwards nothing."""
    router, outer = proxy_router("billing"), APIRouter()
    outer.include_router(router, prefix="/inner")
    app = FastAPI(openapi_url=None)
    app.include_router(outer, prefix="/a")
    app.include_router(router, prefix="/b")
    app.include_router(proxy_router("search", "orders", path="/{upstream}/{path:path}"))
    app.include_router(proxy_router("search"), prefix="/b")

    assert texts(app) == [
        "billing at /a/inner",
        "billing at /b",
        "search at /search",
        "orders at /orders",
        "search at /b (-)",
    ]


def test_mounts_of_nested_apps_and_hosts() -> None:
    """With the host, and with local routes inside and around."""
    inside: list[BaseRoute] = [
        Route("/billing/x", endpoint),
        Mount("/billing", proxy_app("billing")),
    ]
    app = Starlette(
        routes=[
            Route("/api/billing/y", endpoint),
            Mount("/api", Router(inside)),
            Host("a.example", Router(inside)),
            Host("b.example", proxy_app("search")),
            Host("c.example", proxy_app("search")),
        ]
    )

    assert texts(app) == [
        "billing at /api/billing, GET/HEAD /api/billing/y, GET/HEAD /api/billing/x",
        "billing at a.example /billing, GET/HEAD /billing/x",
        "search at b.example /, GET/HEAD /api/billing/y, /api",
        "search at c.example /, GET/HEAD /api/billing/y, /api",
    ]


def test_shadowed_route_is_not_local_for_a_later_mount() -> None:
    """A route that an earlier mount hides takes no requests from a later one."""
    app = mounted()
    local("/billing/x")(app)
    app.include_router(proxy_router("search"))

    assert texts(app)[1].startswith("search at /, GET/HEAD /openapi.json")
    assert "/billing/x" not in texts(app)[1]
