"""The endpoints of proxied routes, HTTP and WebSocket.

An endpoint finds the balancer and the raw path of its request and forwards the request. It
also redirects the bare mount, and uses overrides in ``app.dependency_overrides``.

FastAPI evaluates the annotations when the app runs, so they are not postponed.
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
from fastapi_proxy_di.upstream.client_request import Forwarder, exit_stack
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
        overrides: The transforms of the mount, ``None`` for none.
        bare_mount: Whether a GET or HEAD of the mount without a slash is redirected.
    """

    options: Callable[..., Any] | None = None
    overrides: Overrides | None = None
    bare_mount: BareMount = "auto"


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
            forwarder = _forwarder(balancer, chosen)
            return await forwarder.request(request, path, prefix, overrides, key)
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
                if chosen is None:
                    return await balancer.forwarder.request(request, path, prefix, transforms)
                overrides, key = options_overrides(chosen, transforms), chosen.affinity_key
                forwarder = _forwarder(balancer, chosen)
                return await forwarder.request(request, path, prefix, overrides, key)
            if chosen is None:
                return await balancer.forward(request, _given(path))
            return await balancer.forward(
                request,
                _given(path),
                additional_headers=chosen.headers,
                override_host=chosen.override_host,
                timeout=chosen.timeout,
                **_destination(chosen),
            )

        return await _solved(forward_to, request)

    endpoint = forward if mount.options is None else forward_as_chosen
    _name(endpoint, upstream)
    mark_proxied(endpoint, Proxied(upstream, any_method))
    return endpoint


async def _solved(endpoint: Callable[..., Awaitable[Response]], request: Request) -> Response:
    """Let FastAPI solve the dependencies of ``endpoint`` for this request, and run it.

    A new route is made for each request, which is affordable because only tests override
    upstreams. Its path has the path parameters of the request, which an override may take.
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
        # FastAPI gives a response the background tasks of the mount's dependencies only if it
        # has none yet, so the tasks of the override run when the exit stack is closed.
        stack.push_async_callback(response.background)
        response.background = None
    return response


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
        if not _is_real(balancer):
            await balancer.forward_websocket(websocket, _given(path))
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
        if not _is_real(balancer):
            await balancer.forward_websocket(
                websocket,
                _given(path),
                additional_headers=chosen.headers,
                open_timeout=chosen.timeout,
                **_destination(chosen),
            )
            return
        await _forwarder(balancer, chosen).websocket(
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


def _forwarder(balancer: Balancer, chosen: ForwardOptions) -> Forwarder:
    """Return what forwards a request to the pool, or to the address that its options give."""
    return balancer.forwarder if chosen.destination is None else balancer.forwarder_to_addresses


def _destination(chosen: ForwardOptions) -> dict[str, Any]:
    """Return the argument for an address, if one is given: a test's object may not know it."""
    return {} if chosen.destination is None else {"destination": chosen.destination}


def _is_real(balancer: Balancer) -> bool:
    """Whether ``balancer`` is a `Balancer` and not a test's object with its public methods.

    ``type`` is used instead of ``isinstance``, because a mock with a ``spec`` passes that.
    """
    return issubclass(type(balancer), Balancer)


def _given(path: bytes) -> str:
    """Return a raw path as the text that `Balancer.forward` takes."""
    return path.decode("latin-1") or "/"


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
    return not _is_real(balancer) or not any(
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
