"""The endpoints of proxied routes, HTTP and WebSocket.

Owns: finding the balancer and the raw path of a request, the redirect of a bare mount, and
stand-ins in ``app.dependency_overrides``. Must not know: how routes are made.

Annotations here are looked at by FastAPI when the app runs, so they are not postponed.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import quote

from fastapi import Depends, HTTPException
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope
from starlette.websockets import WebSocket

from fastapi_proxy_di.errors import ProxyError
from fastapi_proxy_di.forwarding.overrides import Overrides
from fastapi_proxy_di.integration.dependency import Upstream
from fastapi_proxy_di.integration.lifespan import RUNTIME, balancer_of, is_overridden
from fastapi_proxy_di.integration.options import ForwardOptions, options_overrides
from fastapi_proxy_di.integration.problems import install_handler
from fastapi_proxy_di.integration.proxied import Proxied, mark_proxied
from fastapi_proxy_di.integration.runtime import Runtime
from fastapi_proxy_di.upstream.balancer import Balancer
from fastapi_proxy_di.upstream.client_request import exit_stack
from fastapi_proxy_di.wire.targets import PathOutsideMount, target_below

BareMount = Literal["auto", "redirect", "forward"]

_REDIRECTED: Final = frozenset({"GET", "HEAD"})
_LOCATION_SAFE: Final = "!$%&'()*+,-./:;<=>?@[]^_`{|}~\""
"""Printable ASCII but ``#``, ``\\`` and space: what a raw path or query may hold already."""


class EveryMethod(set[str]):
    """The methods of a route that forwards all: names the usual ones, contains any but CONNECT."""

    def __contains__(self, method: object) -> bool:
        return method != "CONNECT"


class MountOptions(NamedTuple):
    """What ``proxy_router`` was given for all of its routes.

    Attributes:
        options: A dependency that gives a `ForwardOptions` per request, ``None`` for none.
        overrides: The transforms of the mount, ``None`` for none.
        bare_mount: What a GET of the mount without a slash gets.
    """

    options: Callable[..., Any] | None = None
    overrides: Overrides | None = None
    bare_mount: BareMount = "auto"


def http_endpoint(
    upstream: Upstream, mount: MountOptions, *, any_method: bool
) -> Callable[..., Awaitable[Response]]:
    """Give the endpoint of a proxied HTTP route.

    It looks the balancer up by itself: solving a dependency for that would cost more than all
    else it does. Only a stand-in in ``app.dependency_overrides`` is solved, by FastAPI.

    Args:
        upstream: Where it forwards to.
        mount: What the router was given.
        any_method: Whether its route takes every method.
    """
    name, transforms, bare_mount = upstream.name, mount.overrides, mount.bare_mount

    async def forward(request: Request) -> Response:
        scope = request.scope
        app = scope["app"]
        path, prefix = _target(scope)
        if app.dependency_overrides and is_overridden(app, name):
            return await _forward_to_stand_in(request, path, prefix, None)
        balancer = _balancer(app, name)
        if not path and _redirects(scope, bare_mount, balancer):
            return _redirect(scope, prefix)
        try:
            return await balancer.forwarder.request(request, path, prefix, transforms)
        except ProxyError:
            install_handler(scope)
            raise

    async def forward_as_chosen(
        request: Request, chosen: ForwardOptions = Depends(mount.options)
    ) -> Response:
        scope = request.scope
        app = scope["app"]
        path, prefix = _target(scope)
        if app.dependency_overrides and is_overridden(app, name):
            return await _forward_to_stand_in(request, path, prefix, chosen)
        balancer = _balancer(app, name)
        if not path and _redirects(scope, bare_mount, balancer):
            return _redirect(scope, prefix)
        overrides = options_overrides(chosen, transforms)
        key = chosen.affinity_key
        try:
            return await balancer.forwarder.request(request, path, prefix, overrides, key)
        except ProxyError:
            install_handler(scope)
            raise

    async def _forward_to_stand_in(
        request: Request, path: bytes, prefix: bytes, chosen: ForwardOptions | None
    ) -> Response:
        async def forward_to(balancer: Balancer = Depends(upstream)) -> Response:
            if not path and _redirects(request.scope, bare_mount, balancer):
                return _redirect(request.scope, prefix)
            if _is_real(balancer):
                overrides = transforms if chosen is None else options_overrides(chosen, transforms)
                key = None if chosen is None else chosen.affinity_key
                return await balancer.forwarder.request(request, path, prefix, overrides, key)
            if chosen is None:
                return await balancer.forward(request, _given(path))
            return await balancer.forward(
                request,
                _given(path),
                additional_headers=chosen.headers,
                override_host=chosen.override_host,
                timeout=chosen.timeout,
            )

        return await _solved(forward_to, request)

    endpoint = forward if mount.options is None else forward_as_chosen
    _name(endpoint, upstream)
    mark_proxied(endpoint, Proxied(upstream, any_method))
    return endpoint


async def _solved(endpoint: Callable[..., Awaitable[Response]], request: Request) -> Response:
    """Have FastAPI solve the dependencies of ``endpoint`` for this request, and run it.

    Overrides belong to tests, so the route is made for the request: its path has the
    parameters of this request, which an override may take.
    """
    path = "".join(f"/{{{name}}}" for name in request.path_params)
    route = APIRoute(path or "/", endpoint, dependency_overrides_provider=request.scope["app"])
    try:
        response = await route.get_route_handler()(request)
    except ProxyError:
        install_handler(request.scope)
        raise
    stack = exit_stack(request.scope)
    if response.background is not None and stack is not None:
        # The response has one place for tasks, which those of the mount's dependencies take.
        stack.push_async_callback(response.background)
        response.background = None
    return response


def websocket_endpoint(upstream: Upstream, mount: MountOptions) -> Callable[..., Awaitable[None]]:
    """Give the endpoint of a proxied WebSocket route.

    Args:
        upstream: Where it forwards to.
        mount: What the router was given.
    """
    transforms = mount.overrides

    # Not Annotated: typing may give an equal ``Annotated`` that was made before.
    async def tunnel(websocket: WebSocket, balancer: Balancer = Depends(upstream)) -> None:
        install_handler(websocket.scope)  # an overridden upstream did not
        path, prefix = _target(websocket.scope)
        if not _is_real(balancer):
            await balancer.forward_websocket(websocket, _given(path))
            return
        await balancer.forwarder.websocket(websocket, path, prefix, transforms)

    async def tunnel_as_chosen(
        websocket: WebSocket,
        balancer: Balancer = Depends(upstream),
        chosen: ForwardOptions = Depends(mount.options),
    ) -> None:
        install_handler(websocket.scope)  # an overridden upstream did not
        path, prefix = _target(websocket.scope)
        if not _is_real(balancer):
            await balancer.forward_websocket(
                websocket,
                _given(path),
                additional_headers=chosen.headers,
                open_timeout=chosen.timeout,
            )
            return
        await balancer.forwarder.websocket(
            websocket,
            path,
            prefix,
            options_overrides(chosen, transforms),
            open_timeout=chosen.timeout,
            affinity_key=chosen.affinity_key,
        )

    endpoint = tunnel if mount.options is None else tunnel_as_chosen
    _name(endpoint, upstream)
    mark_proxied(endpoint, Proxied(upstream, any_method=False))
    return endpoint


def _name(endpoint: Callable[..., Any], upstream: Upstream) -> None:
    """Name an endpoint as its route, for tools that tell endpoints apart by name."""
    endpoint.__name__ = endpoint.__qualname__ = f"proxy_{upstream.name}"


def _balancer(app: Any, name: str) -> Balancer:
    runtime: Runtime | None = getattr(app, RUNTIME, None)
    balancer = None if runtime is None else runtime.balancers.get(name)
    return balancer_of(app, name) if balancer is None else balancer  # it raises what is missing


def _target(scope: Scope) -> tuple[bytes, bytes]:
    try:
        return target_below(scope, scope["path_params"]["path"], routed=True)
    except PathOutsideMount:
        raise HTTPException(404) from None


def _is_real(balancer: Balancer) -> bool:
    """Whether it has more than the public methods, which are all that a test's stand-in has.

    By its type, because mocks answer ``isinstance`` as they are told.
    """
    return issubclass(type(balancer), Balancer)


def _given(path: bytes) -> str:
    """The path as the public methods take it."""
    return path.decode("latin-1") or "/"


def _redirects(scope: Scope, bare_mount: BareMount, balancer: Balancer) -> bool:
    """Whether a request for the mount itself is sent to the mount with a slash.

    Relative links of a web app lead elsewhere without it. A destination's base path need not
    be a folder, so there the upstream decides.
    """
    if scope["method"] not in _REDIRECTED or bare_mount == "forward":
        return False
    if bare_mount == "redirect":
        return True
    router = getattr(scope["app"], "router", None)
    if not getattr(router, "redirect_slashes", True):
        return False
    return not _is_real(balancer) or not any(
        destination.address.base_path for destination in balancer.destinations
    )


def _redirect(scope: Scope, prefix: bytes) -> Response:
    """Send the client to the mount with a slash: a path, never a host."""
    path = "/" + quote(prefix, safe=_LOCATION_SAFE).lstrip("/")
    query = quote(scope.get("query_string", b""), safe=_LOCATION_SAFE)
    location = path if path.endswith("/") else path + "/"
    return Response(
        status_code=307, headers={"location": f"{location}?{query}" if query else location}
    )
