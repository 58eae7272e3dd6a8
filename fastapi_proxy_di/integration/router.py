"""``proxy_router("billing")``: an upstream mounted as HTTP and WebSocket routes.

Annotations here are looked at by FastAPI when the app runs, so they are not postponed.

A proxied route is an ordinary FastAPI route. One whose effective dependencies are our own
alone skips FastAPI's request machinery, which would cost more than the proxying; others have
FastAPI solve their dependencies and skip the rest. Whenever anything about a route is not
known to be harmless, it goes FastAPI's way.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple, cast
from weakref import WeakKeyDictionary

from fastapi import APIRouter, Depends, FastAPI, HTTPException, params
from fastapi.routing import APIRoute, RouteContext
from starlette._exception_handler import wrap_app_handling_exceptions
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from fastapi_proxy_di.forwarding.overrides import Overrides
from fastapi_proxy_di.forwarding.target import PathOutsideMount, target_below
from fastapi_proxy_di.integration.dependency import Upstream
from fastapi_proxy_di.integration.fastpath import FastPath, Shortcut, Solve, is_proved, shortcut_of
from fastapi_proxy_di.integration.lifespan import (
    balancer_of,
    proxy_lifespan,
    warn_of_unreachable_websockets,
)
from fastapi_proxy_di.integration.openapi import describe_path_parameters
from fastapi_proxy_di.integration.options import ForwardOptions, options_overrides
from fastapi_proxy_di.integration.problems import install_handler
from fastapi_proxy_di.settings import Mention
from fastapi_proxy_di.transforms.pipeline import Transform, pipeline_of
from fastapi_proxy_di.upstream.balancer import Balancer

_FULL: Final = Match.FULL
"""Looking a member up in its enum takes 0.15 µs on CPython 3.11."""
_TAIL: Final = "/{path:path}"
_CONVERTOR: Final = "fastapi_proxy_di_rest"
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
"""What the OpenAPI schema of a route for all methods names."""


class _RestConvertor(Convertor[str]):
    """The rest of a path: empty, or a slash and anything, line ends included."""

    regex = r"(?:/[\s\S]*)?"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor(_CONVERTOR, _RestConvertor())


class ProxyEndpoint(NamedTuple):
    """What a route needs to know of the endpoint it leads to.

    Attributes:
        upstream: Where it forwards to.
        any_method: Whether every method the server lets through is forwarded.
        plain: Whether the endpoint takes nothing but the balancer.
        overrides: The mount's transforms, ``None`` for none.
    """

    upstream: Upstream
    any_method: bool
    plain: bool
    overrides: Overrides | None


_ENDPOINTS: Final[WeakKeyDictionary[Callable[..., Any], ProxyEndpoint]] = WeakKeyDictionary()
"""Endpoints made here. Routes are rebuilt on each include; what they lead to is not."""


def proxy_router(
    *upstreams: Mention | Upstream,
    path: str = _TAIL,
    methods: Sequence[str] | None = None,
    http: bool = True,
    websocket: bool = True,
    dependencies: Sequence[params.Depends] = (),
    options: Callable[..., Any] | None = None,
    transforms: Iterable[Transform] = (),
    include_in_schema: bool = False,
) -> APIRouter:
    """Give a router that forwards all below it to an upstream, HTTP and WebSocket.

    ```python
    app.include_router(proxy_router("billing"), prefix="/billing")
    ```

    The router starts and stops the upstream with the app.

    Args:
        *upstreams: Names, settings classes or instances. Several need ``{upstream}`` in
            ``path``.
        path: Ends in ``/{path:path}``, which is what is forwarded; all before it belongs to
            the mount, path parameters included.
        methods: Methods to forward, all that the server lets through by default.
        http: Whether HTTP is forwarded.
        websocket: Whether WebSockets are.
        dependencies: Run before every proxied request, as with ``APIRouter``.
        options: A dependency that gives a `ForwardOptions` per request.
        transforms: Changes to requests and answers: models of `fastapi_proxy_di.transforms`,
            or functions that take an ``OutboundRequest`` or ``OutboundResponse``. They run
            after those of the upstream's settings.
        include_in_schema: Whether the routes are in the app's OpenAPI schema.

    Returns:
        A router to include.

    Raises:
        ValueError: The arguments do not fit together.
        SettingsError: A name is not one.
    """
    mentions = [one if isinstance(one, Upstream) else Upstream(one) for one in upstreams]
    _check(mentions, path, http=http, websocket=websocket)
    router = APIRouter(route_class=ProxyRoute, lifespan=_lifespan, dependencies=list(dependencies))
    head = path.removesuffix(_TAIL)
    pipeline = pipeline_of(transforms)
    overrides = None if pipeline is None else Overrides(transforms=pipeline)
    for upstream in mentions:
        mount = head.replace("{upstream}", upstream.name) + f"{{path:{_CONVERTOR}}}"
        if http:
            endpoint = _http_endpoint(upstream, options, overrides)
            _ENDPOINTS[endpoint] = ProxyEndpoint(
                upstream, methods is None, options is None, overrides
            )
            name, served = f"proxy_{upstream.name}", list(methods or _METHODS)
            router.add_api_route(
                mount, endpoint, methods=served, name=name, include_in_schema=False
            )
            # One route has one operation id, so each method is documented by one of its own.
            # No request comes so far: the one above takes them all.
            for method in served if include_in_schema else ():
                router.add_api_route(mount, endpoint, methods=[method], name=name)
        if websocket:
            tunnel = _websocket_endpoint(upstream, options, overrides)
            _ENDPOINTS[tunnel] = ProxyEndpoint(upstream, False, options is None, overrides)
            router.add_api_websocket_route(mount, tunnel, name=f"proxy_{upstream.name}")
    return router


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Start the app's upstreams, and see which way proxied requests may take."""
    if FastPath.proved is None:
        FastPath.proved = await is_proved()
    async with proxy_lifespan(app):
        # Each proxy router comes by here; the first one looks for all.
        warn_of_unreachable_websockets(app, _ENDPOINTS)
        # Only a running app needs them, and importing the package should cost little.
        from fastapi_proxy_di.integration.bypass import around  # noqa: PLC0415
        from fastapi_proxy_di.integration.precedence import in_front_of  # noqa: PLC0415

        with (
            in_front_of(app.router, _shortcut_of, _forward, ProxyRoute.matches) as early,
            around(app, early),
        ):
            yield


class ProxyRoute(APIRoute):
    """An HTTP route that forwards. Takes the short way when nothing stands in it."""

    _fast_path: FastPath | None = None

    def __eq__(self, other: object) -> bool:
        # Starlette's routes are equal whatever their dependencies.
        return self is other

    __hash__ = object.__hash__

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        if self.include_in_schema:
            describe_path_parameters(self)
        return super().get_route_handler()

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child_scope = super().matches(scope)
        if match is Match.PARTIAL and self._proxied.any_method:
            return _FULL, child_scope
        return match, child_scope

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._fast_path is None:
            self._fast_path = FastPath(self, self._proxied.plain)
        if scope["method"] == "CONNECT":
            raise HTTPException(405)
        context = self._fast_path.context(scope)
        any_method = self._proxied.any_method
        if context is None or not (any_method or scope["method"] in context.methods):
            await super().handle(scope, receive, send)
        elif self._fast_path.is_open(context, scope):
            install_handler(scope)
            balancer = balancer_of(scope["app"], self._proxied.upstream.name)
            path, prefix = _target(scope)
            overrides = self._proxied.overrides
            await balancer.pass_on(scope, receive, send, path, prefix, overrides)
        elif any_method:
            # FastAPI's own way, past its list of methods.
            await context.app(scope, receive, send)
        else:
            await super().handle(scope, receive, send)

    @property
    def _proxied(self) -> ProxyEndpoint:
        return _ENDPOINTS[self.endpoint]


def _shortcut_of(leaf: RouteContext) -> Shortcut | None:
    """The short way of a plain proxied route for all methods."""
    route = leaf.original_route
    proxied = _ENDPOINTS.get(route.endpoint) if isinstance(route, ProxyRoute) else None
    # A mount with transforms goes by ``ProxyRoute``, which has them at hand.
    if proxied is None or not proxied.any_method or proxied.overrides is not None:
        return None
    context = getattr(leaf, "_route_context", None)
    return shortcut_of(context, proxied.upstream.name, proxied.plain)


def _forward(
    shortcut: Shortcut, scope: Scope, receive: Receive, send: Send
) -> Coroutine[Any, Any, None]:
    """Go the short way. Not a coroutine itself: each frame that waits is work for the collector."""
    context = shortcut.context
    scope["route"] = context.original_route
    scope["endpoint"] = context.endpoint
    overridden = context.dependency_overrides_provider.dependency_overrides
    if overridden or not shortcut.harmless:
        scope.setdefault("fastapi", {})["effective_route_context"] = context
        scope["path_params"] = _path_params(scope, shortcut)
        if overridden or shortcut.solve is None:
            # FastAPI's own way for this include, past its matching and list of methods.
            return cast(Coroutine[Any, Any, None], context.app(scope, receive, send))
        request = Request(scope, receive, send)
        return _forward_after(shortcut.solve, request, shortcut.upstream, send)
    rest, raw_mount = shortcut.rest(scope), shortcut.raw_mount
    if rest is None:
        scope["path_params"] = _path_params(scope, shortcut)
        rest, raw_mount = _target(scope)
    install_handler(scope)
    balancer = balancer_of(scope["app"], shortcut.upstream)
    return balancer.pass_on(scope, receive, send, rest, raw_mount)


async def _forward_after(solve: Solve, request: Request, upstream: str, send: Send) -> None:
    """Run the dependencies of an include, then forward."""
    scope, receive = request.scope, request.receive
    try:
        background = await solve(request)
        install_handler(scope)
        path, prefix = _target(scope)
        balancer = balancer_of(scope["app"], upstream)
        response = await balancer.forward_raw(request, path, prefix, None)
    except Exception as error:  # noqa: BLE001  # the app's handlers decide what it means
        await _fail(error, request, send)
        return
    response.background = background
    await response(scope, receive, send)


async def _fail(error: Exception, request: Request, send: Send) -> None:
    """Have the app's handlers answer, with the request that has the body if it was read."""

    async def failed(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    await wrap_app_handling_exceptions(failed, request)(request.scope, request.receive, send)


def _path_params(scope: Scope, shortcut: Shortcut) -> dict[str, Any]:
    return {**scope.get("path_params", {}), "path": scope["path"][len(shortcut.mount) :]}


def _target(scope: Scope) -> tuple[bytes, bytes]:
    try:
        return target_below(scope, scope["path_params"]["path"], routed=True)
    except PathOutsideMount:
        raise HTTPException(404) from None


def _http_endpoint(
    upstream: Upstream, options: Callable[..., Any] | None, overrides: Overrides | None
) -> Callable[..., Awaitable[Response]]:
    # Not Annotated: typing caches it by equality, and upstreams are equal by name alone, so
    # another app's upstream of the same name would come back, with its settings.
    async def forward(request: Request, balancer: Balancer = Depends(upstream)) -> Response:
        path, prefix = _target(request.scope)
        if not _is_real(balancer):
            return await balancer.forward(request, _given(path))
        return await balancer.forward_raw(request, path, prefix, overrides)

    if options is None:
        return forward

    async def forward_as_chosen(
        request: Request,
        balancer: Balancer = Depends(upstream),
        chosen: ForwardOptions = Depends(options),
    ) -> Response:
        path, prefix = _target(request.scope)
        if not _is_real(balancer):
            return await balancer.forward(
                request,
                _given(path),
                additional_headers=chosen.headers,
                override_host=chosen.override_host,
                timeout=chosen.timeout,
            )
        return await balancer.forward_raw(
            request, path, prefix, options_overrides(chosen, overrides), chosen.affinity_key
        )

    return forward_as_chosen


def _websocket_endpoint(
    upstream: Upstream, options: Callable[..., Any] | None, overrides: Overrides | None
) -> Callable[..., Awaitable[None]]:
    async def tunnel(websocket: WebSocket, balancer: Balancer = Depends(upstream)) -> None:
        path, prefix = _target(websocket.scope)
        if not _is_real(balancer):
            await balancer.forward_websocket(websocket, _given(path))
            return
        await balancer.tunnel_raw(websocket, path, prefix, overrides)

    if options is None:
        return tunnel

    async def tunnel_as_chosen(
        websocket: WebSocket,
        balancer: Balancer = Depends(upstream),
        chosen: ForwardOptions = Depends(options),
    ) -> None:
        path, prefix = _target(websocket.scope)
        if not _is_real(balancer):
            await balancer.forward_websocket(
                websocket,
                _given(path),
                additional_headers=chosen.headers,
                open_timeout=chosen.timeout,
            )
            return
        await balancer.tunnel_raw(
            websocket,
            path,
            prefix,
            options_overrides(chosen, overrides),
            open_timeout=chosen.timeout,
            affinity_key=chosen.affinity_key,
        )

    return tunnel_as_chosen


def _is_real(balancer: Balancer) -> bool:
    """Whether it has more than the public methods, which are all that a test's stand-in has.

    By its type, because mocks answer ``isinstance`` as they are told.
    """
    return issubclass(type(balancer), Balancer)


def _given(path: bytes) -> str:
    """The path as the public methods take it."""
    return path.decode("latin-1") or "/"


def _check(mentions: list[Upstream], path: str, *, http: bool, websocket: bool) -> None:
    if not mentions:
        raise ValueError('proxy_router needs an upstream, e.g. proxy_router("billing")')
    if not path.startswith("/") or not path.endswith(_TAIL):
        raise ValueError(f"path: {path!r} must start with '/' and end in '{_TAIL}'")
    if not http and not websocket:
        raise ValueError("proxy_router with http=False and websocket=False mounts nothing")
    names = [upstream.name for upstream in mentions]
    if len(set(names)) != len(names):
        raise ValueError(f"proxy_router was given an upstream twice: {', '.join(names)}")
    if len(names) > 1 and "{upstream}" not in path:
        raise ValueError(
            "several upstreams need '{upstream}' in path, e.g. path='/{upstream}/{path:path}'"
        )
