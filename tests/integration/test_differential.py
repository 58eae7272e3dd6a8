"""A proxied route behaves as an ordinary route mounted the same way, in every composition.

Long because it is a table: each composition is a few lines, and is asked the same of an
ordinary endpoint and of a proxied route (see ``differential``).

Annotations here are read by FastAPI in closures, so they are not postponed.
"""

import inspect
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial, wraps
from typing import Annotated, Any

import fastapi.routing
import pytest
import starlette.exceptions
import starlette.middleware
import starlette.routing
from fastapi import (
    APIRouter,
    BackgroundTasks,
    Body,
    Depends,
    FastAPI,
    Form,
    Header,
    HTTPException,
    Query,
    Request,
    Response,
    Security,
)
from fastapi.dependencies.utils import get_parameterless_sub_dependant
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute, iter_route_contexts
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_proxy_di import Balancer, Upstream, proxy_lifespan
from tests.integration.differential import Broken, Gate, Side, outcomes

pytestmark = pytest.mark.e2e


Compose = Callable[[Side], ASGIApp | None]


@dataclass(frozen=True)
class Composition:
    """One row of the table.

    Attributes:
        compose: Builds it.
        reaches: Whether an allowed request reaches the endpoint and the upstream.
        refuses: Whether something in it refuses the requests that ask to be refused.
    """

    compose: Compose
    reaches: bool
    refuses: bool


TABLE: list[Composition] = []


def composition(*, reaches: bool = True, refuses: bool = True) -> Callable[[Compose], Compose]:
    """Add a function to the table; arguments as the attributes of ``Composition``."""

    def put(compose: Compose) -> Compose:
        TABLE.append(Composition(compose, reaches, refuses))
        return compose

    return put


def _takes(owner: Callable[..., Any], name: str) -> bool:
    """Whether this FastAPI has an argument that came after the lowest supported version."""
    return name in inspect.signature(owner).parameters


# -- dependencies at every level ---------------------------------------------------------------


@composition(refuses=False)
def _nothing(side: Side) -> None:
    side.mount()


@composition()
def _dependency_of_the_app(side: Side) -> None:
    side.app = FastAPI(dependencies=side.guards())
    side.mount()


@composition()
def _dependency_of_the_include(side: Side) -> None:
    side.mount(dependencies=side.guards())


@composition()
def _dependency_of_the_router(side: Side) -> None:
    side.app.include_router(side.router(dependencies=side.guards()), prefix="/mount")


@composition()
def _dependency_of_the_parent_router(side: Side) -> None:
    parent = APIRouter(dependencies=side.guards())
    side.mount(parent)
    side.app.include_router(parent)


@composition()
def _dependency_of_the_include_of_the_parent(side: Side) -> None:
    parent = APIRouter(prefix="/parent")
    side.mount(parent)
    side.app.include_router(parent, dependencies=side.guards())
    side.at = "/parent/mount"


@composition()
def _dependencies_of_every_level(side: Side) -> None:
    side.app = FastAPI(dependencies=side.guards("app"))
    grandparent = APIRouter(dependencies=side.guards("grandparent"))
    parent = APIRouter(dependencies=side.guards("parent"))
    parent.include_router(
        side.router(dependencies=side.guards("router")),
        prefix="/mount",
        dependencies=side.guards("include"),
    )
    grandparent.include_router(parent, dependencies=side.guards("include of parent"))
    side.app.include_router(grandparent, dependencies=side.guards("include of grandparent"))


@composition(refuses=False)
def _dependency_added_to_the_router_before_the_include(side: Side) -> None:
    """It has no effect on existing routes, on either side."""
    router = side.router()
    router.dependencies.extend(side.guards())
    side.app.include_router(router, prefix="/mount")


@composition()
def _dependency_added_to_the_routes(side: Side) -> None:
    router = side.router()
    for route in router.routes:
        route.dependencies.extend(side.guards())  # type: ignore[attr-defined]
    side.app.include_router(router, prefix="/mount")


@composition()
def _dependency_added_to_the_dependants_of_the_include(side: Side) -> None:
    side.mount()

    def add() -> None:
        for context in iter_route_contexts(side.app.routes):
            if context.path is None or not context.path.startswith("/mount"):
                continue
            own: Any = getattr(context, "_route_context", None) or context.original_route
            dependant = (getattr(own, "starlette_route", None) or own).dependant
            guard = get_parameterless_sub_dependant(
                depends=Depends(side.guard()), path=context.path
            )
            dependant.dependencies.insert(0, guard)

    add()


@composition()
def _router_included_twice_with_other_guards(side: Side) -> None:
    router = side.router()
    side.app.include_router(router, prefix="/other", dependencies=side.guards("other"))
    side.app.include_router(router, prefix="/mount", dependencies=side.guards("mine"))


@composition()
def _path_parameter_in_the_prefix(side: Side) -> None:
    async def guard(tenant: str, connection: HTTPConnection) -> None:
        side.judge(f"tenant {tenant}", connection.headers)

    side.mount(prefix="/tenants/{tenant}/mount", dependencies=[Depends(guard)])
    side.at = "/tenants/t%20x/mount"


@composition()
def _include_with_every_option(side: Side) -> None:
    side.mount(
        tags=["t"],
        dependencies=side.guards(),
        responses={418: {"description": "x"}},
        deprecated=True,
        include_in_schema=False,
        default_response_class=PlainTextResponse,
    )


@composition()
def _only_some_methods(side: Side) -> None:
    router = side.router(methods=["GET", "POST"], dependencies=side.guards())
    side.app.include_router(router, prefix="/mount")


@composition()
def _without_redirects_of_slashes(side: Side) -> None:
    side.app = FastAPI(redirect_slashes=False)
    side.mount(dependencies=side.guards())


# -- dependencies of every kind ----------------------------------------------------------------


@composition()
def _in_a_thread(side: Side) -> None:
    def dependency(connection: HTTPConnection) -> None:
        on_the_loop = threading.current_thread() is threading.main_thread()
        side.judge(f"on the loop: {on_the_loop}", connection.headers)

    side.mount(dependencies=[Depends(dependency)])


@composition(refuses=False)
def _validated_query(side: Side) -> None:
    async def dependency(page: Annotated[int, Query(ge=1)] = 1) -> None:
        side.note(f"page {page}")

    side.mount(dependencies=[Depends(dependency)])


@composition()
def _validated_header(side: Side) -> None:
    async def dependency(x_refuse: Annotated[str | None, Header(min_length=2)] = None) -> None:
        side.note(f"header {x_refuse}")

    side.mount(dependencies=[Depends(dependency)])


@composition(refuses=False)
def _required_header_that_is_missing(side: Side) -> None:
    async def dependency(x_tenant: Annotated[str, Header()] = "none") -> None:
        side.note(f"tenant {x_tenant}")

    side.mount(dependencies=[Depends(dependency)])


@composition()
def _nested_and_shared(side: Side) -> None:
    shared = side.guard("shared")

    async def inner(_: Annotated[None, Depends(shared)]) -> str:
        side.note("inner")
        return "value"

    async def outer(
        given: Annotated[str, Depends(inner)], _: Annotated[None, Depends(shared)]
    ) -> None:
        side.note(f"outer has {given}")

    side.mount(dependencies=[Depends(outer), Depends(shared)])


@composition()
def _not_cached(side: Side) -> None:
    guard = side.guard()
    side.mount(dependencies=[Depends(guard), Depends(guard, use_cache=False)])


@composition(refuses=False)
def _background_tasks(side: Side) -> None:
    async def dependency(tasks: BackgroundTasks) -> None:
        side.note("before")
        tasks.add_task(side.note, "after")

    side.mount(dependencies=[Depends(dependency)])


@composition(refuses=False)
def _response_headers(side: Side) -> None:
    """FastAPI ignores them for an endpoint that returns a response."""

    async def dependency(connection: HTTPConnection, response: Response) -> None:
        side.note(f"finds {response.headers.get('x-seen')}")
        response.headers["x-seen"] = connection.headers.get("x-token", "")

    side.mount(dependencies=[Depends(dependency)])


@composition()
def _security_scopes(side: Side) -> None:
    async def needs(scopes: SecurityScopes, connection: HTTPConnection) -> None:
        side.judge(f"scopes {scopes.scopes}", connection.headers)

    side.mount(dependencies=[Security(needs, scopes=["billing:read"])])


@composition(reaches=False)
def _bearer_token(side: Side) -> None:
    async def dependency(
        credentials: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())],
    ) -> None:
        side.note(credentials.credentials)

    side.mount(dependencies=[Depends(dependency)])


@composition()
def _yielding(side: Side) -> None:
    async def dependency(connection: HTTPConnection) -> AsyncIterator[None]:
        side.judge("open", connection.headers)
        try:
            yield
        except BaseException as error:
            side.note(f"roll back for {type(error).__name__}")
            raise
        else:
            side.note("commit")
        finally:
            side.note("close")

    side.mount(dependencies=[Depends(dependency), *side.guards("behind")])


@composition()
def _yielding_around_a_refusal(side: Side) -> None:
    async def dependency() -> AsyncIterator[None]:
        try:
            yield
        except BaseException as error:
            side.note(f"roll back for {type(error).__name__}")
            raise
        finally:
            side.note("close")

    side.mount(dependencies=[Depends(dependency), *side.guards("behind")])


@composition()
def _yielding_and_raising_at_the_end(side: Side) -> None:
    async def dependency(connection: HTTPConnection) -> AsyncIterator[None]:
        side.judge("open", connection.headers)
        yield
        side.note("close")

    def in_a_thread() -> Iterator[None]:
        side.note("open in a thread")
        yield
        side.note("close in a thread")

    side.mount(dependencies=[Depends(dependency), Depends(in_a_thread)])


@composition()
def _yielding_before_the_response(side: Side) -> None:
    async def resource(connection: HTTPConnection) -> AsyncIterator[str]:
        side.judge("open", connection.headers)
        yield "it"
        side.note("close")

    async def dependency(it: Annotated[str, Depends(resource, scope="function")]) -> None:
        side.note(f"has {it}")

    side.mount(dependencies=[Depends(dependency)])


@composition(refuses=False)
def _yielding_object(side: Side) -> None:
    class Session:
        async def __call__(self) -> AsyncIterator[None]:
            side.note("open")
            yield
            side.note("close")

    side.mount(dependencies=[Depends(Session())])


@composition()
def _object_with_parameters(side: Side) -> None:
    class Requires:
        def __init__(self, role: str) -> None:
            self.role = role

        async def __call__(self, connection: HTTPConnection) -> None:
            side.judge(f"requires {self.role}", connection.headers)

    side.mount(dependencies=[Depends(Requires("admin")), Depends(Requires("auditor"))])


@composition(refuses=False)
def _yielding_partial(side: Side) -> None:
    async def dependency(*, what: str = "") -> AsyncIterator[None]:
        side.note(f"open {what}")
        yield
        side.note("close")

    side.mount(dependencies=[Depends(partial(dependency, what="it"))])


@composition(refuses=False)
def _yielding_behind_a_decorator(side: Side) -> None:
    class Session:
        async def __call__(self) -> AsyncIterator[None]:
            side.note("open")
            try:
                yield
            except BaseException as error:
                side.note(f"roll back for {type(error).__name__}")
                raise
            else:
                side.note("commit")

    session = Session()

    @wraps(session)
    def decorated(*arguments: Any, **named: Any) -> Any:
        return session(*arguments, **named)

    side.mount(dependencies=[Depends(decorated)])


@composition()
def _reading_the_body(side: Side) -> None:
    async def dependency(request: Request) -> None:
        body = await request.body()
        side.judge(f"read {len(body)}", request.headers)

    side.mount(dependencies=[Depends(dependency)])


@composition(refuses=False)
def _declaring_a_body(side: Side) -> None:
    async def dependency(number: Annotated[int, Body(embed=True)] = 0) -> None:
        side.note(f"given {number}")

    side.mount(dependencies=[Depends(dependency)])


@composition(refuses=False)
def _declaring_a_form(side: Side) -> None:
    """FastAPI keeps no bytes of a form, so neither side gets the body; their errors differ."""

    async def dependency(number: Annotated[int, Form()] = 0) -> None:
        side.note(f"given {number}")

    async def handler(request: Request, error: Exception) -> Response:
        return PlainTextResponse("the body is gone", 500)

    side.app.add_exception_handler(Exception, handler)
    side.mount(dependencies=[Depends(dependency)])


@composition(refuses=False)
def _calling_the_upstream(side: Side) -> None:
    upstream = Upstream(side.upstream)

    async def dependency(
        request: Request, balancer: Annotated[Balancer, Depends(upstream)]
    ) -> None:
        await request.body()  # or the forward's watch for the client's departure drops it
        response = await balancer.forward(request, "/auth", override_body=b"token")
        side.note(f"upstream says {response.status_code}")

    side.app = FastAPI(lifespan=proxy_lifespan)
    side.mount(dependencies=[Depends(dependency)])


@composition()
def _overridden_at_start(side: Side) -> None:
    guard = side.guard("overridden")
    side.app.dependency_overrides[guard] = side.guard("the override")
    side.mount(dependencies=[Depends(guard)])


@composition()
def _overridden_late(side: Side) -> None:
    guard, late = side.guard("overridden"), side.guard("the late override")
    side.mount(dependencies=[Depends(guard)])
    side.when_running.append(lambda: side.app.dependency_overrides.update({guard: late}))


@composition()
def _overridden_with_sub_dependencies(side: Side) -> None:
    guard, inner = side.guard("overridden"), side.guard("inner")

    async def override(_: Annotated[None, Depends(inner)]) -> None:
        side.note("the override")

    side.app.dependency_overrides[guard] = override
    side.mount(dependencies=[Depends(guard)])


# -- middlewares of every kind and level ---------------------------------------------------------


async def _dispatch(side: Side, request: Request, call_next: RequestResponseEndpoint) -> Response:
    side.note("middleware in")
    if "x-refuse" in request.headers:
        return PlainTextResponse("refused", 403)
    response = await call_next(request)
    response.headers["x-middleware"] = str(response.status_code)
    return response


@composition()
def _pure_asgi_middleware(side: Side) -> None:
    side.app.add_middleware(Gate, side=side)
    side.mount()


@composition()
def _pure_asgi_middleware_of_the_constructor(side: Side) -> None:
    side.app = FastAPI(middleware=[starlette.middleware.Middleware(Gate, side=side)])
    side.mount(dependencies=side.guards())


@composition()
def _base_http_middleware(side: Side) -> None:
    """It does not see WebSockets, on either side."""
    side.app.add_middleware(BaseHTTPMiddleware, dispatch=partial(_dispatch, side))
    side.mount()


@composition()
def _decorated_middleware(side: Side) -> None:
    @side.app.middleware("http")
    async def middleware(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await _dispatch(side, request, call_next)

    side.mount(dependencies=side.guards())


@composition()
def _middlewares_in_order(side: Side) -> None:
    for name in ("inner", "middle", "outer"):
        side.app.add_middleware(Gate, side=side, name=name)
    side.mount(dependencies=side.guards())


@composition()
def _cors(side: Side) -> None:
    side.app.add_middleware(
        CORSMiddleware, allow_origins=["https://other.test"], allow_methods=["PUT"]
    )
    side.mount(dependencies=side.guards())


@composition()
def _gzip(side: Side) -> None:
    side.app.add_middleware(GZipMiddleware)
    side.mount(dependencies=side.guards())


@composition()
def _gzip_within_a_base_http_middleware(side: Side) -> None:
    side.app.add_middleware(GZipMiddleware)
    side.app.add_middleware(BaseHTTPMiddleware, dispatch=partial(_dispatch, side))
    side.mount(dependencies=side.guards())


@composition()
def _trusted_host(side: Side) -> None:
    side.app.add_middleware(TrustedHostMiddleware, allowed_hosts=["gateway.test"])
    side.mount(dependencies=side.guards())


@composition(reaches=False)
def _host_that_is_not_trusted(side: Side) -> None:
    side.app.add_middleware(TrustedHostMiddleware, allowed_hosts=["other.test"])
    side.mount(dependencies=side.guards())


@composition(reaches=False)
def _redirect_to_https(side: Side) -> None:
    side.app.add_middleware(HTTPSRedirectMiddleware)
    side.mount(dependencies=side.guards())


@composition()
def _wrapped_around_the_stack_late(side: Side) -> None:
    side.mount()

    def wrap() -> None:
        assert side.app.middleware_stack is not None
        side.app.middleware_stack = Gate(side.app.middleware_stack, side, "late")

    side.when_running.append(wrap)


@composition()
def _added_late_by_a_rebuilt_stack(side: Side) -> None:
    side.mount()

    def rebuild() -> None:
        side.app.user_middleware.insert(0, starlette.middleware.Middleware(Gate, side=side))
        side.app.middleware_stack = side.app.build_middleware_stack()

    side.when_running.append(rebuild)


@composition()
def _wrapped_around_the_app_of_the_router_late(side: Side) -> None:
    side.mount()

    def wrap() -> None:
        side.app.router.middleware_stack = Gate(side.app.router.middleware_stack, side, "router")

    side.when_running.append(wrap)


@composition()
def _build_of_the_stack_replaced(side: Side) -> None:
    """As OpenTelemetry's instrumentor does."""
    build = side.app.build_middleware_stack
    side.app.build_middleware_stack = lambda: Gate(build(), side)  # type: ignore[method-assign]
    side.mount()


@composition()
def _served_behind_a_middleware(side: Side) -> ASGIApp:
    side.mount()
    return Gate(side.app, side, "outside")


# -- route classes and patched functions of the framework ----------------------------------------


class _Noting(APIRoute):
    def get_route_handler(self) -> Any:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            response: Response = await handler(request)
            response.headers["x-route-class"] = "noting"
            return response

        return handle


@composition()
def _route_class_of_the_parent_router(side: Side) -> None:
    """An include keeps the class of its route."""
    parent = APIRouter(route_class=_Noting)
    side.mount(parent)
    side.app.include_router(parent, dependencies=side.guards())


@composition()
def _route_class_of_the_app(side: Side) -> None:
    side.app.router.route_class = _Noting
    side.mount(dependencies=side.guards())


@composition()
def _get_route_handler_patched(side: Side) -> None:
    get = APIRoute.get_route_handler

    def patched(route: APIRoute) -> Callable[[Request], Awaitable[Response]]:
        handler = get(route)

        async def handle(request: Request) -> Response:
            side.judge(f"handler of {request.path_params.get('path', '')}", request.headers)
            return await handler(request)

        return handle

    side.patch.setattr(APIRoute, "get_route_handler", patched)
    side.mount()


Handle = Callable[[Any, Scope, Receive, Send], Awaitable[None]]


def _hooked(side: Side, name: str, old: Handle) -> Handle:
    """Wrap a method that takes scope, receive and send."""

    async def hooked(owner: Any, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await old(owner, scope, receive, send)
            return
        path = scope.get("path_params", {}).get("path", "")
        try:
            side.judge(f"{name} of {path!r}", Headers(scope=scope))
        except HTTPException:
            await PlainTextResponse("refused by a hook", 403)(scope, receive, send)
        else:
            await old(owner, scope, receive, send)

    return hooked


@composition()
def _handle_of_api_routes_patched(side: Side) -> None:
    side.patch.setattr(APIRoute, "handle", _hooked(side, "APIRoute.handle", APIRoute.handle))
    side.mount()


@composition()
def _handle_of_api_routes_patched_late(side: Side) -> None:
    hooked = _hooked(side, "APIRoute.handle", APIRoute.handle)
    side.when_running.append(lambda: side.patch.setattr(APIRoute, "handle", hooked))
    side.mount(dependencies=side.guards())


@composition(refuses=False)
def _handle_of_starlette_routes_patched(side: Side) -> None:
    """FastAPI does not call it for the route of an include."""
    for owner in (starlette.routing.Route, starlette.routing.WebSocketRoute):
        hooked = _hooked(side, f"{owner.__name__}.handle", owner.handle)
        side.patch.setattr(owner, "handle", hooked)
    side.mount()


@composition()
def _call_of_routers_patched(side: Side) -> None:
    owner = starlette.routing.Router
    side.patch.setattr(owner, "__call__", _hooked(side, "Router", owner.__call__))
    side.mount()


@composition()
def _handle_of_routers_patched(side: Side) -> None:
    side.patch.setattr(APIRouter, "handle", _hooked(side, "APIRouter.handle", APIRouter.handle))
    side.mount()


@composition()
def _call_of_starlette_patched(side: Side) -> None:
    side.patch.setattr(Starlette, "__call__", _hooked(side, "Starlette", Starlette.__call__))
    side.mount()


@composition()
def _matches_patched(side: Side) -> None:
    """The hook may hide a route; the number of its calls may differ."""
    matches = APIRoute.matches

    def patched(route: APIRoute, scope: Scope) -> tuple[starlette.routing.Match, Scope]:
        if "x-refuse" in Headers(scope=scope):
            return starlette.routing.Match.NONE, {}
        return matches(route, scope)

    side.patch.setattr(APIRoute, "matches", patched)
    side.mount()


def _hooked_request_response(side: Side, name: str, old: Any) -> Any:
    """Wrap the function behind each route, as Aikido Zen does."""

    def request_response(function: Any) -> ASGIApp:
        async def wrapped(request: Request) -> Response:
            path = request.path_params.get("path", "")
            side.judge(f"{name} of {path!r}", request.headers)
            response: Response = await function(request)
            side.note(f"{name} has {response.status_code}")
            return response

        app: ASGIApp = old(wrapped)
        return app

    return request_response


@composition()
def _request_response_patched(side: Side) -> None:
    for module in (fastapi.routing, starlette.routing):
        hooked = _hooked_request_response(side, module.__name__, module.request_response)
        side.patch.setattr(module, "request_response", hooked)
    side.mount()


@composition()
def _get_request_handler_patched(side: Side) -> None:
    """As Sentry's integration does."""
    get = fastapi.routing.get_request_handler

    def patched(*arguments: Any, **named: Any) -> Any:
        handler = get(*arguments, **named)

        async def handle(request: Request) -> Response:
            side.judge(f"handler of {request.path_params.get('path', '')!r}", request.headers)
            return await handler(request)

        return handle

    side.patch.setattr(fastapi.routing, "get_request_handler", patched)
    side.mount()


def _hooked_function(side: Side, name: str) -> None:
    """Log each call of a function of ``fastapi.routing``, and refuse in it."""
    old = getattr(fastapi.routing, name)

    async def patched(*arguments: Any, **named: Any) -> Any:
        request = named.get("request")
        side.judge(name, request.headers if request else {})
        return await old(*arguments, **named)

    side.patch.setattr(fastapi.routing, name, patched)


@composition()
def _solve_dependencies_patched(side: Side) -> None:
    _hooked_function(side, "solve_dependencies")
    side.mount(dependencies=side.guards())


@composition(refuses=False)
def _run_endpoint_function_patched(side: Side) -> None:
    _hooked_function(side, "run_endpoint_function")
    side.mount()


@composition()
def _hook_that_refuses_by_path_parameters(side: Side) -> None:
    """As ddtrace's application security does: it reads the result of routing, and refuses."""
    handle = APIRoute.handle

    async def patched(route: APIRoute, scope: Scope, receive: Receive, send: Send) -> None:
        found = scope["path_params"].get("path", "")
        side.note(f"sees {found!r} of {scope['route'].name != ''}")
        if found == "a/b c;d=%":
            await PlainTextResponse("blocked", 403)(scope, receive, send)
        else:
            await handle(route, scope, receive, send)

    side.patch.setattr(APIRoute, "handle", patched)
    side.mount(dependencies=side.guards())


# -- hosts, mounts and sub-apps --------------------------------------------------------------


def _sub_app(side: Side, **options: Any) -> FastAPI:
    """Make a sub-app with the mount, started by the lifespan of the side's app."""
    sub = FastAPI(**options)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with proxy_lifespan(sub):
            yield

    side.app = FastAPI(lifespan=lifespan, dependencies=side.guards("of the outer app"))
    side.mount(sub, dependencies=side.guards("of the sub-app"))
    return sub


@composition()
def _mounted_sub_app(side: Side) -> None:
    sub = _sub_app(side)
    side.app.mount("/sub", sub)
    side.at = "/sub/mount"


@composition()
def _sub_app_with_middlewares(side: Side) -> None:
    sub = _sub_app(side)
    sub.add_middleware(GZipMiddleware)
    sub.add_middleware(Gate, side=side, name="of the sub-app")
    side.app.add_middleware(Gate, side=side, name="of the outer app")
    side.app.mount("/sub", sub)
    side.at = "/sub/mount"


@composition()
def _sub_app_behind_a_mount_with_middleware(side: Side) -> None:
    sub = _sub_app(side)
    gate = starlette.middleware.Middleware(Gate, side=side, name="of the mount")
    side.app.router.routes.append(Mount("/sub", app=sub, middleware=[gate]))
    side.at = "/sub/mount"


@composition()
def _sub_app_below_a_path_parameter(side: Side) -> None:
    sub = _sub_app(side)
    side.app.mount("/tenants/{tenant}", sub)
    side.at = "/tenants/t%20x/mount"


@composition()
def _host(side: Side) -> None:
    sub = _sub_app(side)
    side.app.router.routes.append(Host("gateway.test", sub))


@composition(reaches=False)
def _other_host(side: Side) -> None:
    sub = _sub_app(side)
    side.app.router.routes.append(Host("other.test", sub))


@composition()
def _host_with_a_parameter(side: Side) -> None:
    sub = _sub_app(side)
    side.app.router.routes.append(Host("{tenant}.test", Gate(sub, side)))


@composition()
def _inside_a_starlette_app(side: Side) -> ASGIApp:
    side.mount(dependencies=side.guards())
    inner = side.app

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with proxy_lifespan(inner):
            yield

    side.at = "/inner/mount"
    return Starlette(routes=[Mount("/inner", app=inner)], lifespan=lifespan)


@composition()
def _root_path_of_the_app(side: Side) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer versions would have the server say it
        side.app = FastAPI(root_path="/api")
    side.mount(dependencies=side.guards())


@composition()
def _root_path_of_the_server(side: Side) -> None:
    side.server["root_path"] = "/api"
    side.mount(dependencies=side.guards())


@composition()
def _local_routes_around(side: Side) -> None:
    @side.app.get("/mount/a")
    async def before() -> str:
        side.note("reached the local route before")
        return "before"

    side.mount(dependencies=side.guards())

    @side.app.post("/mount/a/b")
    async def behind() -> str:
        side.note("reached the local route behind")
        return "behind"


# -- handlers of exceptions ------------------------------------------------------------------


async def _handled(side: Side, request: Request, error: Exception) -> Response:
    side.note(f"handler of {type(error).__name__}")
    body = (await request.body()).decode()
    return JSONResponse({"handled": type(error).__name__, "body": body}, 418)


def _handles(side: Side, kind: int | type[Exception], *guards: Callable[..., Any]) -> None:
    async def handler(request: Request, error: Exception) -> Response:
        return await _handled(side, request, error)

    side.app.add_exception_handler(kind, handler)
    side.mount(dependencies=[Depends(guard) for guard in (*guards, side.guard())])


@composition()
def _handler_of_http_exceptions(side: Side) -> None:
    _handles(side, starlette.exceptions.HTTPException)


@composition()
def _handler_of_a_status(side: Side) -> None:
    _handles(side, 403)


@composition()
def _handler_of_an_exception(side: Side) -> None:
    async def read(request: Request) -> None:
        await request.body()

    _handles(side, Broken, read)


@composition()
def _handler_of_everything(side: Side) -> None:
    _handles(side, Exception)


@composition()
def _handler_of_validation_errors(side: Side) -> None:
    async def page(page: int = 1) -> None:
        side.note(f"page {page}")

    _handles(side, RequestValidationError, page)


# -- limits, where this FastAPI has them -----------------------------------------------------

if _takes(FastAPI, "max_body_size"):

    @composition()
    def _max_body_size_of_the_app(side: Side) -> None:
        side.app = FastAPI(max_body_size=1000)
        side.mount(dependencies=side.guards())

    @composition()
    def _max_body_size_of_the_include(side: Side) -> None:
        side.mount(dependencies=side.guards(), max_body_size=1000)

    @composition()
    def _max_body_size_of_the_parent_router(side: Side) -> None:
        side.app = FastAPI(max_body_size=100_000)
        parent = APIRouter(max_body_size=1000)
        side.mount(parent)
        side.app.include_router(parent, dependencies=side.guards())


if _takes(FastAPI, "form_limits"):

    @composition(refuses=False)
    def _form_limits_of_the_include(side: Side) -> None:
        async def dependency(number: Annotated[int, Form()] = 0) -> None:
            side.note(f"given {number}")

        side.mount(dependencies=[Depends(dependency)], form_limits={"max_fields": 0})


# -- the test --------------------------------------------------------------------------------


def _by_name(row: Composition) -> str:
    return row.compose.__name__.strip("_")


@pytest.mark.parametrize("row", TABLE, ids=_by_name)
async def test_a_proxied_route_behaves_as_an_ordinary_one(row: Composition) -> None:
    """Status, headers, body, messages, and what ran in which order are the same for both."""
    own = await outcomes(row.compose, proxied=False)
    proxied = await outcomes(row.compose, proxied=True)

    assert own["allowed"].reached is row.reaches
    assert own["refused"].reached is (row.reaches and not row.refuses)
    differ = {name: (proxied[name], own[name]) for name in own if proxied[name] != own[name]}
    assert not differ, "\n".join(f"{name}:\n  {a}\n  {b}" for name, (a, b) in differ.items())
