"""Turns a `ProxyError` into a response, unless the app has a handler of its own for it.

The response is an RFC 9457 problem document with the kind of failure and without addresses.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from math import ceil
from typing import Final

from fastapi.exception_handlers import http_exception_handler
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from fastapi_proxy_di.errors import (
    NoAvailableDestination,
    ProxyError,
    UpstreamClosed,
    UpstreamsNotReady,
)
from fastapi_proxy_di.integration.compat import exception_handlers, exception_middleware
from fastapi_proxy_di.wire.quoting import quoted

_DENIAL: Final = "websocket.http.response"

_DETAILS: Final = {
    400: "The request cannot be forwarded.",
    404: "Nothing is served at this path.",
    405: "The method is not forwarded.",
    408: "The request body did not arrive in time.",
    413: "The request body is too large.",
    500: "The request could not be forwarded.",
    502: "The upstream could not be reached or gave no valid response.",
    503: "The upstream has no capacity at the moment.",
    504: "The upstream did not respond in time.",
}


async def problem_response(connection: HTTPConnection, error: Exception) -> Response:
    """Turn a `ProxyError` into a response, which also denies a WebSocket handshake.

    Args:
        connection: The client's request or WebSocket.
        error: The failure.
    """
    assert isinstance(error, ProxyError)
    if _cannot_deny(connection.scope):
        return _Refusal()
    headers = {}
    if isinstance(error, NoAvailableDestination):
        headers["retry-after"] = str(ceil(error.retry_after))
    failure = error.failure.value
    if isinstance(error, UpstreamsNotReady):
        names = error.upstreams
        return problem(error.status, "Not ready.", headers, failure=failure, upstreams=names)
    detail = "The upstream has been removed." if isinstance(error, UpstreamClosed) else None
    return problem(error.status, detail, headers, failure=failure)


def problem(
    status: int,
    detail: str | None = None,
    headers: Mapping[str, str] | None = None,
    **further: object,
) -> Response:
    """Build a problem document.

    Args:
        status: The status of the response.
        detail: What is wrong, which may quote what a client sent; by default a sentence about
            the status.
        headers: Headers of the response.
        **further: Further members of the document.
    """
    document = {
        "type": "about:blank",
        "title": _title(status),
        "status": status,
        "detail": quoted(detail or _DETAILS.get(status, "The request failed.")),
    }
    return JSONResponse(
        document | further,
        status_code=status,
        headers=headers,
        media_type="application/problem+json",
    )


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:  # 499 has no name of its own
        return "Request failed"


async def http_exception_response(error: HTTPException) -> Response:
    """Turn an ``HTTPException`` into the response that FastAPI gives by default."""
    return await http_exception_handler(Request({"type": "http"}), error)


async def send_response(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Send a response, or the server's own 403 for a WebSocket it cannot deny otherwise."""
    if _cannot_deny(scope):
        response = _Refusal()
    await response(scope, receive, send)


def denied(scope: Scope, response: Response) -> Response:
    """Give a response to return, or the server's own 403 for a WebSocket it cannot deny so."""
    return _Refusal() if _cannot_deny(scope) else response


def _cannot_deny(scope: Scope) -> bool:
    return scope["type"] == "websocket" and _DENIAL not in (scope.get("extensions") or ())


class _Refusal(Response):
    """Refuses a WebSocket with the server's own 403, for servers without denial responses."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.close", "code": 1000})


def install_at_start(app: Starlette) -> None:
    """Install `problem_response` for `ProxyError`, unless the app has a handler of its own.

    A lifespan runs too late for ``app.add_exception_handler``: the middlewares are built by then.
    """
    middleware = exception_middleware(app)
    if middleware is not None and not _has_own_handler(app):
        middleware.add_exception_handler(ProxyError, problem_response)


def install_handler(scope: Scope) -> None:
    """Do the same as `install_at_start` in a request.

    This is for apps whose lifespan does not run, as in tests with a stand-in, or whose
    middlewares hide the table of handlers at start: all requests have it in their scope.
    """
    handlers = exception_handlers(scope)
    if handlers is None or ProxyError in handlers or _has_own_handler(scope.get("app")):
        return
    handlers[ProxyError] = problem_response


def _has_own_handler(app: object) -> bool:
    own = getattr(app, "exception_handlers", {})
    # The last two both name the handler of all exceptions in Starlette.
    return ProxyError in own or Exception in own or 500 in own
