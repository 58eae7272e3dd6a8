"""A proxied route is found past what stands before it, and never takes what that would match."""

import re
import string
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.routing import APIRoute, iter_route_contexts
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Host, Match, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

from fastapi_proxy_di import proxy_router
from fastapi_proxy_di.integration.fastpath import FastPath
from fastapi_proxy_di.integration.precedence import EarlyRoute, in_front_of
from fastapi_proxy_di.integration.router import ProxyRoute, _forward, _shortcut_of
from tests.support.gateways import billing
from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin
from tests.support.servers import run_app


def _scope(path: str, method: str = "GET", kind: str = "http") -> Scope:
    return {
        "type": kind,
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "headers": [(b"host", b"gateway.test")],
        "query_string": b"",
    }


@pytest.fixture(autouse=True)
def proved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the short way be open, as it is once an app has started."""
    monkeypatch.setattr(FastPath, "proved", True)


def _early(app: FastAPI) -> EarlyRoute:
    with in_front_of(app.router, _shortcut_of, _forward, ProxyRoute.matches):
        (early,) = (one for one in app.router.routes if isinstance(one, EarlyRoute))
    return early


def _taken_from(early: EarlyRoute, scope: Scope) -> str | None:
    """The path of the route whose requests the early one takes, ``None`` if it does not."""
    match, child_scope = early.matches({**scope})
    if match is not Match.FULL:
        return None
    (shortcut,) = child_scope.values()
    return str(shortcut.context.path_format)


def _usual(routes: list[BaseRoute], scope: Scope) -> str | None:
    """The path of the route that gets the request if one after the other is asked."""
    for route in routes:
        if route.matches({**scope})[0] is Match.FULL:
            leaves = iter_route_contexts([route])
            return next(
                (
                    leaf.path_format
                    for leaf in leaves
                    if (context := getattr(leaf, "_route_context", None)) is not None
                    and _matches(context, scope)
                ),
                f"not in a router: {route}",
            )
    return None


def _matches(context: Any, scope: Scope) -> bool:
    route = context.original_route
    if isinstance(route, APIRoute):
        matched: Match = route.matches({**scope, "fastapi": {"effective_route_context": context}})[
            0
        ]
    else:
        matched = context.matches({**scope})[0]
    return matched is Match.FULL


class _ByHeader(APIRoute):
    """Matches by something that is not in the path."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return Match.FULL, {}


class _OwnWays(APIRouter):
    """A router that decides for itself."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return Match.FULL, {}


async def _endpoint() -> None:
    """Never called."""


_SEGMENT = st.sampled_from(["a", "b", "ab", "{x}", "a{x}", "{x:path}", "docs", ""])
_PATH = st.lists(_SEGMENT, min_size=1, max_size=3, unique_by=lambda one: "{" in one or one).map(
    lambda segments: "/" + "/".join(segments)
)
_PREFIX = st.sampled_from(["", "/a", "/b", "/a/b", "/ab", "/docs"])
_ASKED = st.lists(st.sampled_from(["a", "b", "ab", "docs", "", "c", "a\n"]), max_size=4).map(
    lambda segments: "/" + "/".join(segments)
)


def _router(path: str, router_class: type[APIRouter] = APIRouter) -> APIRouter:
    router = router_class()
    router.add_api_route(path, _endpoint)
    return router


def _nested(path: str) -> APIRouter:
    outer = APIRouter()
    outer.include_router(_router(path))
    return outer


def _nested_proxy() -> APIRouter:
    outer = _router("/a/x")
    outer.include_router(proxy_router("users"), prefix="/a")
    outer.add_api_route("/b", _endpoint)
    return outer


_ADDITIONS: dict[str, Callable[[FastAPI, str, str], Any]] = {
    "route": lambda app, path, prefix: app.add_api_route(path, _endpoint),
    "post": lambda app, path, prefix: app.add_api_route(path, _endpoint, methods=["POST"]),
    "plain": lambda app, path, prefix: app.router.routes.append(Route(path, _endpoint)),
    "websocket": lambda app, path, prefix: app.router.routes.append(
        WebSocketRoute(path, _endpoint)
    ),
    "mount": lambda app, path, prefix: app.mount(prefix, FastAPI()),
    "router": lambda app, path, prefix: app.include_router(_router(path), prefix=prefix),
    "nested": lambda app, path, prefix: app.include_router(_nested(path), prefix=prefix),
    "host": lambda app, path, prefix: app.router.routes.append(Host("gateway.test", FastAPI())),
    "own matching": lambda app, path, prefix: app.router.routes.append(_ByHeader(path, _endpoint)),
    "own router": lambda app, path, prefix: app.include_router(
        _router(path, _OwnWays), prefix=prefix
    ),
    "proxy": lambda app, path, prefix: app.include_router(proxy_router("billing"), prefix=prefix),
    "nested proxy": lambda app, path, prefix: app.include_router(_nested_proxy(), prefix=prefix),
    "tenants": lambda app, path, prefix: app.include_router(
        proxy_router("billing", path="/{tenant}/{path:path}"), prefix=prefix
    ),
}


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(sorted(_ADDITIONS)), _PATH, _PREFIX), max_size=5),
    _PREFIX,
    st.lists(_ASKED, min_size=1, max_size=12),
)
def test_the_usual_order_decides(
    additions: list[tuple[str, str, str]], prefix: str, asked: list[str]
) -> None:
    """Whatever stands before the mounts, the early route takes only what they would get."""
    app = FastAPI()
    for kind, path, given_prefix in additions:
        _ADDITIONS[kind](app, path, given_prefix)
    app.include_router(proxy_router("billing"), prefix=prefix)
    early = _early(app)

    for path in (*asked, *(one.rstrip("\n") + "\n" for one in asked)):
        for method in ("GET", "POST"):
            scope = _scope(path, method)
            taken = _taken_from(early, scope)
            if taken is not None:
                assert taken == _usual(app.router.routes, scope)


@pytest.mark.parametrize("path", ["/billing/x", "/billing", "/billing/docs"])
def test_routes_elsewhere_are_passed_by(path: str) -> None:
    """Documentation, other routes, routers and mounts cost a request for the mount nothing."""
    app = FastAPI()
    for one in string.ascii_lowercase:
        app.add_api_route(f"/{one}/{{x}}", _endpoint)
    app.include_router(_router("/users/{name}"))
    app.mount("/static", FastAPI())
    outer = APIRouter()
    outer.include_router(proxy_router("billing"), prefix="/billing")
    app.include_router(outer)

    assert _taken_from(_early(app), _scope(path)) == "/billing{path}"


async def test_routes_that_join_while_running_count() -> None:
    """A route put in front, or into a router in front, gets its requests at once."""
    local = APIRouter()
    app = FastAPI()
    app.include_router(local)
    async with ScriptedOrigin() as origin:
        app.include_router(proxy_router(billing(origin.url)))
        async with run_app(app) as running:
            before = await fetch(running.address, target="/late")
            local.add_api_route("/late", lambda: "in the router")
            in_router = await fetch(running.address, target="/late")
            app.router.routes.insert(0, Route("/late", lambda _: PlainTextResponse("in front")))
            in_front = await fetch(running.address, target="/late")

    assert before.body == b"ok"
    assert in_router.body == b'"in the router"'
    assert in_front.body == b"in front"


async def test_the_routes_of_the_app_stay_as_they_are() -> None:
    """Names resolve, the schema is the same, and after the end nothing is left behind."""
    app = FastAPI()

    @app.get("/own/{item}")
    async def own(item: str) -> None:
        """An endpoint beside the proxy."""

    app.include_router(proxy_router("billing"), prefix="/billing")
    routes, schema = [*app.router.routes], app.openapi()
    app.openapi_schema = None
    app.dependency_overrides.clear()
    async with ScriptedOrigin() as origin:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("UPSTREAM_BILLING_DESTINATIONS", origin.url)
            for _ in range(2):
                async with run_app(app) as running:
                    assert app.url_path_for("own", item="1") == "/own/1"
                    assert app.url_path_for("proxy_billing", path="/x") == "/billing/x"
                    assert app.openapi() == schema
                    assert sum(isinstance(one, EarlyRoute) for one in app.router.routes) == 1
                    async with httpx.AsyncClient(trust_env=False) as client:
                        url = "http://{}:{}/billing/x".format(*running.address)
                        assert (await client.get(url)).text == "ok"

                assert app.router.routes == routes


def test_root_path_goes_the_usual_way() -> None:
    """Where a server in front strips a prefix, FastAPI knows how, and does it."""
    app = FastAPI()
    app.include_router(proxy_router("billing"), prefix="/billing")
    early = _early(app)

    assert _taken_from(early, {**_scope("/billing/x"), "root_path": "/api"}) is None
    assert _taken_from(early, _scope("/billing/x", kind="websocket")) is None
    assert _taken_from(early, _scope("/billing/x")) == "/billing{path}"


async def _refuse() -> None:
    raise HTTPException(401)


def _replace_the_include(app: FastAPI) -> None:
    """Include the same router again, guarded this time."""
    include: Any = app.router.routes[-1]
    app.router.routes.remove(include)
    router: APIRouter = include.original_router
    app.include_router(router, prefix="/billing", dependencies=[Depends(_refuse)])


def _replace_a_route_of_a_router(app: FastAPI) -> None:
    """Put another route into a router in front, for the one that was there."""
    local: APIRouter = next(
        route.original_router for route in app.router.routes if hasattr(route, "original_router")
    )
    local.routes.clear()
    local.add_api_route("/billing/x", _endpoint, dependencies=[Depends(_refuse)])


def _replace_the_proxied_route(app: FastAPI) -> None:
    """Add it again to its router, guarded this time."""
    include: Any = app.router.routes[-1]
    router: APIRouter = include.original_router
    old: Any = router.routes[0]
    router.routes.remove(old)
    others = [*router.routes]
    router.routes.clear()
    router.add_api_route(
        old.path, old.endpoint, methods=[*old.methods], dependencies=[Depends(_refuse)]
    )
    router.routes.extend(others)


def _replace_all_routes(app: FastAPI) -> None:
    """Give the app another list of routes."""
    app.router.routes = [Route("/billing/x", lambda _: PlainTextResponse("", 401))]


@pytest.mark.parametrize(
    "change",
    [
        _replace_the_include,
        _replace_a_route_of_a_router,
        _replace_the_proxied_route,
        _replace_all_routes,
    ],
)
async def test_routes_that_are_replaced_while_running_count(
    change: Callable[[FastAPI], None],
) -> None:
    """As many as before, but others: what was known of the old ones is forgotten."""
    app = FastAPI()
    app.include_router(_router("/elsewhere"))
    async with ScriptedOrigin() as origin:
        app.include_router(proxy_router(billing(origin.url)), prefix="/billing")
        async with run_app(app) as running:
            before = await fetch(running.address, target="/billing/x")
            change(app)
            after = await fetch(running.address, target="/billing/x")

    assert (before.status, after.status) == (200, 401)
    assert not any(isinstance(route, EarlyRoute) for route in app.router.routes)


class _GuardsByItself(APIRouter):
    """A router that looks at requests before its routes do."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise HTTPException(401)


async def test_a_router_around_the_mount_that_guards_by_itself_is_not_passed() -> None:
    """A class of its own may do anything; its requests go through it."""
    app, guarding = FastAPI(), _GuardsByItself()
    async with ScriptedOrigin() as origin:
        guarding.include_router(proxy_router(billing(origin.url)), prefix="/billing")
        app.include_router(guarding)
        async with run_app(app) as running:
            reply = await fetch(running.address, target="/billing/x")

    assert reply.status == 401
    assert not origin.requests


async def test_a_route_with_another_pattern_than_its_path_keeps_its_requests() -> None:
    """Patterns are replaced to ignore case, for one."""
    app = FastAPI()
    app.add_api_route("/billing/Admin", _endpoint, dependencies=[Depends(_refuse)])
    async with ScriptedOrigin() as origin:
        app.include_router(proxy_router(billing(origin.url)), prefix="/billing")
        for route in app.router.routes:
            if isinstance(route, Route):
                route.path_regex = re.compile(route.path_regex.pattern, re.IGNORECASE)
        async with run_app(app) as running:
            reply = await fetch(running.address, target="/billing/admin")

    assert reply.status == 401
    assert not origin.requests
