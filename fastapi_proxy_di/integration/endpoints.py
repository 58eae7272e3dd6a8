"""The endpoints of proxied routes, HTTP and WebSocket.

An endpoint finds the balancer and the raw path of its request and forwards the request. It
also redirects the bare mount, and uses overrides in ``app.dependency_overrides``.

FastAPI evaluates the annotations when the app runs, so they are not postponed.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import quote

from fastapi import Depends, HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope
from starlette.websockets import WebSocket

from fastapi_proxy_di.errors import ProxyError
from fastapi_proxy_di.forwarding.overrides import Overrides
from fastapi_proxy_di.integration.dependency import Upstream
from fastapi_proxy_di.integration.fallback import MountFallback
from fastapi_proxy_di.integration.lifespan import RUNTIME, balancer_of
from fastapi_proxy_di.integration.mentions import is_overridden
from fastapi_proxy_di.integration.options import ForwardOptions, options_overrides
from fastapi_proxy_di.integration.problems import install_handler
from fastapi_proxy_di.integration.proxied import Proxied, mark_proxied
from fastapi_proxy_di.integration.runtime import Runtime
from fastapi_proxy_di.integration.stand_ins import (
    destination_argument,
    forward_by_public_name,
    given_path,
    is_real,
    solved,
)
from fastapi_proxy_di.upstream.balancer import Balancer
from fastapi_proxy_di.wire.targets import PathOutsideMount, target_below

BareMount = Literal["auto", "redirect", "forward"]

_REDIRECTED: Final = frozenset({"GET", "HEAD"})
_LOCATION_SAFE: Final = "!$%&'()*+,-./:;<=>?@[]^_`{|}~\""
"""The characters of a raw path or query that stay as they are in a ``Location`` header."""


class EveryMethod(set[str]):
    """The methods of a route that forwards all: contains every method except CONNECT.

    Iteration gives the usual methods, for the ``Allow`` header and for tools.
    """

    def __contains__(self, method: object) -> bool:
        return method != "CONNECT"


class MountOptions(NamedTuple):
    """The arguments of ``proxy_router`` that apply to all of its routes.

    Attributes:
        options: A dependency that gives a `ForwardOptions` per request, ``None`` for none.
        overrides: The transforms and the tap of the mount, ``None`` for none.
        bare_mount: Whether a GET or HEAD of the mount without a slash is redirected.
        fallback: The second upstream, ``None`` for none.
    """

    options: Callable[..., Any] | None = None
    overrides: Overrides | None = None
    bare_mount: BareMount = "auto"
    fallback: MountFallback | None = None


def http_endpoint(
    upstream: Upstream, mount: MountOptions, *, any_method: bool
) -> Callable[..., Awaitable[Response]]:
    """Give the endpoint of a proxied HTTP route.

    The endpoint looks up its balancer without a dependency, because solving one costs more
    than all its other work. FastAPI solves the upstream only if the app overrides it.

    Args:
        upstream: The upstream to forward to.
        mount: The arguments of the router.
        any_method: Whether the route takes every method.
    """
    name, transforms, bare_mount = upstream.name, mount.overrides, mount.bare_mount
    fallback = None if mount.fallback is None else mount.fallback.of()

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
            return await balancer.forwarder.request(
                request, path, prefix, transforms, None, fallback
            )
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
        try:
            return await _forward_as(balancer, request, path, prefix, chosen)
        except ProxyError:
            install_handler(scope)
            raise

    async def _forward_as(
        balancer: Balancer, request: Request, path: bytes, prefix: bytes, chosen: ForwardOptions
    ) -> Response:
        overrides = options_overrides(chosen, transforms)
        return await balancer.forwarder_for(overrides).request(
            request,
            path,
            prefix,
            overrides,
            chosen.affinity_key,
            # What is sent to one destination alone goes to no other.
            fallback if chosen.destination is None else None,
        )

    async def _forward_to_stand_in(
        request: Request, path: bytes, prefix: bytes, chosen: ForwardOptions | None
    ) -> Response:
        async def forward_to(balancer: Balancer = Depends(upstream)) -> Response:
            if not path and _redirects(request.scope, bare_mount, balancer):
                return _redirect(request.scope, prefix)
            if not is_real(balancer):
                return await forward_by_public_name(balancer, request, path, chosen, transforms)
            if chosen is not None:
                return await _forward_as(balancer, request, path, prefix, chosen)
            return await balancer.forwarder.request(
                request, path, prefix, transforms, None, fallback
            )

        return await solved(forward_to, request)

    endpoint = forward if mount.options is None else forward_as_chosen
    _name(endpoint, upstream)
    second = None if mount.fallback is None else mount.fallback.upstream
    mark_proxied(endpoint, Proxied(upstream, any_method, second))
    return endpoint


def websocket_endpoint(upstream: Upstream, mount: MountOptions) -> Callable[..., Awaitable[None]]:
    """Give the endpoint of a proxied WebSocket route.

    Args:
        upstream: The upstream to forward to.
        mount: The arguments of the router.
    """
    transforms = mount.overrides

    # A default instead of ``Annotated``: ``typing`` caches ``Annotated`` types, and may give one
    # that was made with another upstream that is equal.
    async def tunnel(websocket: WebSocket, balancer: Balancer = Depends(upstream)) -> None:
        # ``Upstream`` does this while it is solved; an override takes its place.
        install_handler(websocket.scope)
        path, prefix = _target(websocket.scope)
        if not is_real(balancer):
            await balancer.forward_websocket(websocket, given_path(path))
            return
        await balancer.forwarder.websocket(websocket, path, prefix, transforms)

    async def tunnel_as_chosen(
        websocket: WebSocket,
        balancer: Balancer = Depends(upstream),
        chosen: ForwardOptions = Depends(mount.options),
    ) -> None:
        # ``Upstream`` does this while it is solved; an override takes its place.
        install_handler(websocket.scope)
        path, prefix = _target(websocket.scope)
        if not is_real(balancer):
            await balancer.forward_websocket(
                websocket,
                given_path(path),
                additional_headers=chosen.headers,
                open_timeout=chosen.timeout,
                **destination_argument(chosen),
            )
            return
        overrides = options_overrides(chosen, transforms)
        await balancer.forwarder_for(overrides).websocket(
            websocket,
            path,
            prefix,
            overrides,
            open_timeout=chosen.timeout,
            affinity_key=chosen.affinity_key,
        )

    endpoint = tunnel if mount.options is None else tunnel_as_chosen
    _name(endpoint, upstream)
    mark_proxied(endpoint, Proxied(upstream, any_method=False))
    return endpoint


def _name(endpoint: Callable[..., Any], upstream: Upstream) -> None:
    """Give an endpoint the name of its route, for tools that identify endpoints by name."""
    endpoint.__name__ = endpoint.__qualname__ = f"proxy_{upstream.name}"


def _balancer(app: Any, name: str) -> Balancer:
    runtime: Runtime | None = getattr(app, RUNTIME, None)
    balancer = None if runtime is None else runtime.balancers.get(name)
    return balancer_of(app, name) if balancer is None else balancer  # raises ProxyNotStarted


def _target(scope: Scope) -> tuple[bytes, bytes]:
    try:
        return target_below(scope, scope["path_params"]["path"], routed=True)
    except PathOutsideMount:
        raise HTTPException(404) from None


def _redirects(scope: Scope, bare_mount: BareMount, balancer: Balancer) -> bool:
    """Whether a request for the mount without a slash is redirected to the mount with one.

    Without the slash, relative links of a web app lead to other paths. If a destination has a
    base path, the upstream decides, because the base path need not be a folder.
    """
    if scope["method"] not in _REDIRECTED or bare_mount == "forward":
        return False
    if bare_mount == "redirect":
        return True
    router = getattr(scope["app"], "router", None)
    if not getattr(router, "redirect_slashes", True):
        return False
    return not is_real(balancer) or not any(
        destination.address.base_path for destination in balancer.destinations
    )


def _redirect(scope: Scope, prefix: bytes) -> Response:
    """Build the redirect to the mount with a slash; its ``Location`` never names a host."""
    path = "/" + quote(prefix, safe=_LOCATION_SAFE).lstrip("/")
    query = quote(scope.get("query_string", b""), safe=_LOCATION_SAFE)
    location = path if path.endswith("/") else path + "/"
    return Response(
        status_code=307, headers={"location": f"{location}?{query}" if query else location}
    )
