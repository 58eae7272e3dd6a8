"""Forwards to what an app's ``dependency_overrides`` give in place of an upstream.

FastAPI evaluates the annotations when the app runs, so they are not postponed.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from fastapi_proxy_di.errors import ProxyError
from fastapi_proxy_di.forwarding.overrides import Overrides
from fastapi_proxy_di.integration.options import ForwardOptions
from fastapi_proxy_di.integration.problems import install_handler
from fastapi_proxy_di.upstream.balancer import Balancer
from fastapi_proxy_di.upstream.client_request import exit_stack

__all__ = [
    "destination_argument",
    "forward_by_public_name",
    "given_path",
    "is_real",
    "solved",
]


async def solved(endpoint: Callable[..., Awaitable[Response]], request: Request) -> Response:
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


async def forward_by_public_name(
    balancer: Balancer,
    request: Request,
    path: bytes,
    chosen: ForwardOptions | None,
    mount: Overrides | None,
) -> Response:
    """Forward to a test's object, which has the public methods alone."""
    tap = tap_argument(mount)
    if chosen is None:
        return await balancer.forward(request, given_path(path), **tap)
    return await balancer.forward(
        request,
        given_path(path),
        additional_headers=chosen.headers,
        override_host=chosen.override_host,
        timeout=chosen.timeout,
        **destination_argument(chosen),
        **tap,
    )


def destination_argument(chosen: ForwardOptions) -> dict[str, Any]:
    """Return the argument for an address, if one is given: a test's object may not know it."""
    return {} if chosen.destination is None else {"destination": chosen.destination}


def tap_argument(mount: Overrides | None) -> dict[str, Any]:
    """Return the argument for a tap, if there is one: a test's object may not know it."""
    return {} if mount is None or mount.tap is None else {"tap": mount.tap.given}


def is_real(balancer: Balancer) -> bool:
    """Whether ``balancer`` is a `Balancer` and not a test's object with its public methods.

    ``type`` is used instead of ``isinstance``, because a mock with a ``spec`` passes that.
    """
    return issubclass(type(balancer), Balancer)


def given_path(path: bytes) -> str:
    """Return a raw path as the text that `Balancer.forward` takes."""
    return path.decode("latin-1") or "/"
