"""``proxy_router("billing")``: an upstream mounted as HTTP and WebSocket routes.

A proxied route is an ordinary FastAPI route with the path ``/{path:path}``. FastAPI matches
it, runs its dependencies and calls its endpoint (``endpoints``), which forwards. Only its
compiled pattern is wider, and its set of methods where every method is forwarded.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, get_args

from fastapi import APIRouter, FastAPI, params
from fastapi.routing import APIRoute
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response

from fastapi_proxy_di.forwarding.overrides import Overrides
from fastapi_proxy_di.integration.compat import UnknownFastAPI, effective_route, routes_of
from fastapi_proxy_di.integration.dependency import Upstream
from fastapi_proxy_di.integration.endpoints import (
    BareMount,
    EveryMethod,
    MountOptions,
    http_endpoint,
    websocket_endpoint,
)
from fastapi_proxy_di.integration.lifespan import proxy_lifespan, warn_of_unreachable_websockets
from fastapi_proxy_di.integration.openapi import describe_path_parameters
from fastapi_proxy_di.integration.proxied import proxied_by
from fastapi_proxy_di.settings import Mention
from fastapi_proxy_di.transforms.pipeline import Transform, pipeline_of

_TAIL: Final = "/{path:path}"
_TAIL_PATTERN: Final = "/(?P<path>.*)$"
_WIDE_TAIL_PATTERN: Final = r"(?:/|\Z)(?P<path>[\s\S]*)\Z"
"""Also the mount itself, without a slash, and line ends in the path."""

_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
"""What the OpenAPI schema of a route for all methods names, and ``Allow`` of a 405."""

_REST: Final = "fastapi_proxy_di_rest"


class _RestConvertor(Convertor[str]):
    """All behind a mount: nothing, or a slash and anything, line ends included.

    FastAPI makes a new WebSocket route for each include, whose pattern cannot be widened. So
    a second route with this convertor takes what Starlette's ``path`` does not match.
    """

    regex = r"(?:/[\s\S]*)?"

    def convert(self, value: str) -> str:
        return value.removeprefix("/")

    def to_string(self, value: str) -> str:
        return "/" + value


register_url_convertor(_REST, _RestConvertor())


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
    bare_mount: BareMount = "auto",
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
        transforms: Changes to requests and responses: models of
            `fastapi_proxy_di.transforms`, or functions that take an ``OutboundRequest`` or
            ``OutboundResponse``. They run after those of the upstream's settings.
        include_in_schema: Whether the routes are in the app's OpenAPI schema.
        bare_mount: What a GET or HEAD of the mount without a slash (``/billing``) gets after
            the dependencies: ``redirect`` a 307 to ``/billing/``, which relative links of web
            apps need; ``forward`` the response of the upstream's root; ``auto`` redirects
            unless a destination has a base path or the app's ``redirect_slashes`` is off.
            Other methods and WebSockets are forwarded.

    Returns:
        A router to include.

    Raises:
        ValueError: The arguments do not fit together.
        SettingsError: A name is not one.
    """
    mentions = [one if isinstance(one, Upstream) else Upstream(one) for one in upstreams]
    _check(mentions, path, bare_mount, http=http, websocket=websocket)
    router = APIRouter(route_class=ProxyRoute, lifespan=_lifespan, dependencies=list(dependencies))
    pipeline = pipeline_of(transforms)
    overrides = None if pipeline is None else Overrides(transforms=pipeline)
    options_of_mount = MountOptions(options, overrides, bare_mount)
    for upstream in mentions:
        mount = path.replace("{upstream}", upstream.name)
        name = f"proxy_{upstream.name}"
        if http:
            endpoint = http_endpoint(upstream, options_of_mount, any_method=methods is None)
            served = list(methods or _METHODS)
            router.add_api_route(
                mount, endpoint, methods=served, name=name, include_in_schema=False
            )
            # One route has one operation id, so each method is documented by one of its own.
            # No request comes so far: the one above takes them all.
            for method in served if include_in_schema else ():
                router.add_api_route(mount, endpoint, methods=[method], name=name)
        if websocket:
            tunnel = websocket_endpoint(upstream, options_of_mount)
            for tail in (_TAIL, f"{{path:{_REST}}}"):
                router.add_api_websocket_route(mount.removesuffix(_TAIL) + tail, tunnel, name=name)
    return router


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Start the upstreams of the app, and look at its proxied routes."""
    for route in routes_of(app.routes):
        pattern = getattr(route, "path_regex", None)
        original = route.original_route
        proxied = isinstance(original, ProxyRoute) and proxied_by(original.endpoint) is not None
        if proxied and not _is_wide(pattern):
            raise UnknownFastAPI("fastapi.routing._effective_route_context_var")
    async with proxy_lifespan(app):
        # Each proxy router comes by here; the first one looks for all.
        warn_of_unreachable_websockets(app)
        yield


class ProxyRoute(APIRoute):
    """A FastAPI route whose pattern also matches the bare mount and line ends in the path."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Widen the route, or the include of it that a handler is made for."""
        proxied = proxied_by(self.endpoint)
        if proxied is None:  # a route of the app's own in our router
            return super().get_route_handler()
        route = effective_route(self)
        if not _is_wide(route.path_regex):
            route.path_regex = _wide(route.path_regex)
        if proxied.any_method:
            route.methods = EveryMethod(route.methods)
        if self.include_in_schema:
            describe_path_parameters(route)
        return super().get_route_handler()


def _wide(pattern: re.Pattern[str]) -> re.Pattern[str]:
    if not pattern.pattern.endswith(_TAIL_PATTERN):
        raise UnknownFastAPI(f"pattern {_TAIL_PATTERN} at the end of a path's")
    return re.compile(pattern.pattern.removesuffix(_TAIL_PATTERN) + _WIDE_TAIL_PATTERN)


def _is_wide(pattern: re.Pattern[str] | None) -> bool:
    return pattern is not None and pattern.pattern.endswith(_WIDE_TAIL_PATTERN)


def _check(
    mentions: list[Upstream], path: str, bare_mount: str, *, http: bool, websocket: bool
) -> None:
    if not mentions:
        raise ValueError('proxy_router needs an upstream, e.g. proxy_router("billing")')
    if not path.startswith("/") or not path.endswith(_TAIL):
        raise ValueError(f"path: {path!r} must start with '/' and end in '{_TAIL}'")
    if bare_mount not in get_args(BareMount):
        raise ValueError(f"bare_mount: {bare_mount!r} is none of {', '.join(get_args(BareMount))}")
    if not http and not websocket:
        raise ValueError("proxy_router with http=False and websocket=False mounts nothing")
    names = [upstream.name for upstream in mentions]
    if len(set(names)) != len(names):
        raise ValueError(f"proxy_router was given an upstream twice: {', '.join(names)}")
    if len(names) > 1 and "{upstream}" not in path:
        raise ValueError(
            "several upstreams need '{upstream}' in path, e.g. path='/{upstream}/{path:path}'"
        )
