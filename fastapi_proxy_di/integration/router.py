"""``proxy_router("billing")``: an upstream mounted as HTTP and WebSocket routes.

A proxied route is an ordinary FastAPI route with the path ``/{path:path}``. FastAPI matches
the route, runs its dependencies and calls its endpoint (``endpoints``), which forwards. Only
two things differ: the compiled pattern matches more paths, and where every method is
forwarded the set of methods contains all of them.
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

from fastapi_proxy_di.forwarding.fallback import FallbackRule
from fastapi_proxy_di.forwarding.overrides import Overrides
from fastapi_proxy_di.forwarding.taps import TapFunction, tapping_of
from fastapi_proxy_di.integration.compat import (
    UnknownFastAPI,
    effective_route,
    pattern_of,
    routes_of,
)
from fastapi_proxy_di.integration.dependency import Upstream
from fastapi_proxy_di.integration.endpoints import (
    BareMount,
    EveryMethod,
    MountOptions,
    http_endpoint,
    websocket_endpoint,
)
from fastapi_proxy_di.integration.fallback import MountFallback
from fastapi_proxy_di.integration.lifespan import proxy_lifespan, warn_of_unreachable_websockets
from fastapi_proxy_di.integration.openapi import describe_path_parameters
from fastapi_proxy_di.integration.proxied import proxied_by
from fastapi_proxy_di.settings import Mention
from fastapi_proxy_di.transforms.pipeline import Transform, pipeline_of

_TAIL: Final = "/{path:path}"
_TAIL_PATTERN: Final = "/(?P<path>.*)$"
_WIDE_TAIL_PATTERN: Final = r"(?:/|\Z)(?P<path>[\s\S]*)\Z"
"""A pattern that also matches the mount without a slash, and paths with line ends."""

_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
"""The methods that a route for all methods has in the OpenAPI schema and in ``Allow``."""

_REST: Final = "fastapi_proxy_di_rest"


class _RestConvertor(Convertor[str]):
    """Matches everything below a mount: nothing, or a slash and any text with line ends.

    FastAPI makes a new WebSocket route for each include, whose pattern cannot be replaced. So
    a second route with this convertor matches the paths that Starlette's ``path`` does not.
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
    fallback: Mention | Upstream | None = None,
    fallback_on: str = "unavailable,502,503,504",
    tap: TapFunction | None = None,
) -> APIRouter:
    """Give a router that forwards all requests below its path to an upstream.

    ```python
    app.include_router(proxy_router("billing"), prefix="/billing")
    ```

    The router forwards HTTP and WebSockets, and starts and stops the upstream with the app.

    Args:
        *upstreams: Names, settings classes or instances. Several need ``{upstream}`` in
            ``path``.
        path: A path that ends in ``/{path:path}``, the part that is forwarded. The part
            before is the mount and may have path parameters.
        methods: Methods to forward; by default every method that the server accepts.
        http: Whether HTTP is forwarded.
        websocket: Whether WebSockets are forwarded.
        dependencies: Run before every proxied request, as with ``APIRouter``.
        options: A dependency that gives a `ForwardOptions` per request.
        transforms: Changes to requests and responses: models of
            `fastapi_proxy_di.transforms`, or functions that take an ``OutboundRequest`` or
            ``OutboundResponse``. They run after the transforms of the upstream's settings.
        include_in_schema: Whether the routes are in the app's OpenAPI schema.
        bare_mount: The response to a GET or HEAD of the mount without a slash
            (``/billing``), after the dependencies: ``redirect`` gives a 307 to ``/billing/``,
            which relative links of web apps need; ``forward`` the response of the upstream's
            root; ``auto`` redirects unless a destination has a base path or the app's
            ``redirect_slashes`` is off. Other methods and WebSockets are forwarded.
        fallback: A second upstream for the HTTP requests that the first one fails. It gets a
            request as the client sent it, if its body is kept (``retries.replay_bytes``) and no
            byte of it has left, or if it may be sent twice (``retries.methods`` or an
            ``Idempotency-Key``). What the second upstream responds is the response. A request
            that a limit refuses, or that options send to one destination, does not go there.
        fallback_on: What counts as failed: ``unavailable`` if no destination is available, and
            statuses of responses and of failures, such as 502 for a refused connection.
        tap: Reads HTTP responses while they pass, and changes no byte: a function that gets a
            `TapExchange` at the head of each response and returns a `Tap`, ``None`` for none; or a
            function that gets each `SseEvent` of event streams, and the `TapExchange`. It is not
            async. WebSockets have no taps.

    Returns:
        A router to include.

    Raises:
        ValueError: The arguments do not fit together.
        SettingsError: A name is not valid.
    """
    mentions = [one if isinstance(one, Upstream) else Upstream(one) for one in upstreams]
    _check(mentions, path, bare_mount, http=http, websocket=websocket)
    second = None if fallback is None else _fallback(fallback, fallback_on, mentions, http=http)
    router = APIRouter(route_class=ProxyRoute, lifespan=_lifespan, dependencies=list(dependencies))
    pipeline = pipeline_of(transforms)
    tapping = tapping_of(tap)
    if tapping is not None and not http:
        raise ValueError("tap: only HTTP responses have one; http=False leaves none")
    overrides = None
    if pipeline is not None or tapping is not None:
        overrides = Overrides(transforms=pipeline, tap=tapping)
    options_of_mount = MountOptions(options, overrides, bare_mount, second)
    for upstream in mentions:
        mount = path.replace("{upstream}", upstream.name)
        name = f"proxy_{upstream.name}"
        if http:
            endpoint = http_endpoint(upstream, options_of_mount, any_method=methods is None)
            served = list(methods or _METHODS)
            router.add_api_route(
                mount, endpoint, methods=served, name=name, include_in_schema=False
            )
            # A route has one operation id, so each method is documented by a route of its own.
            # These routes never get a request, because the route above matches all of them.
            for method in served if include_in_schema else ():
                router.add_api_route(mount, endpoint, methods=[method], name=name)
        if websocket:
            tunnel = websocket_endpoint(upstream, options_of_mount)
            for tail in (_TAIL, f"{{path:{_REST}}}"):
                router.add_api_websocket_route(mount.removesuffix(_TAIL) + tail, tunnel, name=name)
    return router


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Check the proxied routes of the app, and run its upstreams."""
    for route in routes_of(app.routes):
        pattern = getattr(route, "path_regex", None)
        original = route.original_route
        proxied = isinstance(original, ProxyRoute) and proxied_by(original.endpoint) is not None
        if proxied and not _is_wide(pattern):
            raise UnknownFastAPI("fastapi.routing._effective_route_context_var")
    async with proxy_lifespan(app):
        # Each proxy router runs this lifespan; the first one warns for all.
        warn_of_unreachable_websockets(app)
        yield


class ProxyRoute(APIRoute):
    """A FastAPI route whose pattern also matches the bare mount and line ends in the path."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Make the pattern and the methods of a proxied route, or of its include, wider."""
        proxied = proxied_by(self.endpoint)
        if proxied is None:  # a route that the app added to our router
            return super().get_route_handler()
        route = effective_route(self)
        pattern = pattern_of(route)
        if not _is_wide(pattern):
            route.path_regex = _wide(pattern)
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


def _fallback(
    fallback: Mention | Upstream, on: str, mentions: list[Upstream], *, http: bool
) -> MountFallback:
    upstream = fallback if isinstance(fallback, Upstream) else Upstream(fallback)
    if upstream.name in [one.name for one in mentions]:
        raise ValueError(f"fallback: {upstream.name} cannot be the fallback of itself")
    if not http:
        raise ValueError("fallback: only HTTP requests have one; http=False leaves none")
    try:
        return MountFallback(upstream, FallbackRule.read(on))
    except ValueError as error:
        raise ValueError(
            f"fallback_on: {error}; list 'unavailable' and statuses, e.g. 'unavailable,502-504'"
        ) from None
