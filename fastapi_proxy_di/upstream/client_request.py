"""The undocumented names of Starlette's ``Request`` and ``WebSocket`` that a balancer uses.

Each accessor says what happens where a name is missing. Those of FastAPI and of the app are in
``integration.compat``.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from fastapi_proxy_di.errors import RequestBodyConsumed


class UnknownStarlette(RuntimeError):
    """Raised when the app starts: this version of Starlette lacks a name that we need."""


async def check_request() -> None:
    """See that a ``Request`` tells whether its body was read.

    Without that a body that a dependency has read would be waited for, until the client leaves.

    Raises:
        UnknownStarlette: It does not.
    """

    async def receive() -> Message:
        return {"type": "http.request", "body": b"x", "more_body": False}

    request = Request({"type": "http"}, receive)
    unread = getattr(request, "_stream_consumed", None)
    await request.body()
    if unread is not False or getattr(request, "_body", None) != b"x":
        raise UnknownStarlette(
            "Starlette's Request has no _stream_consumed and _body, which fastapi_proxy_di needs. "
            "Install a version that the installed fastapi_proxy_di supports"
        )


def send_of(request: Request) -> Send | None:
    """Give what sends to the client of ``request``; ``None`` passes no early hints on."""
    return getattr(request, "_send", None)


def channel_of(websocket: WebSocket) -> tuple[Receive, Send]:
    """Give what receives and sends below Starlette's state machine.

    That machine costs as much per message as the copying; where the names are missing, the
    messages go through it.
    """
    receive: Receive = getattr(websocket, "_receive", websocket.receive)
    send: Send = getattr(websocket, "_send", websocket.send)
    return receive, send


def exit_stack(scope: Scope) -> AsyncExitStack | None:
    """Give what FastAPI closes once the response is sent.

    Where it is missing, a response that was not returned is closed when it is forgotten.
    """
    stack = scope.get("fastapi_inner_astack")
    return stack if isinstance(stack, AsyncExitStack) else None


def take_body(request: Request) -> bytes | None:
    """Give the body if it was read; else mark it as taken, so that nobody waits for it.

    Starlette keeps both facts in private attributes of the ``Request`` that dependencies
    and endpoint share; its own ``BaseHTTPMiddleware`` reads them as well. ``check_request``
    has seen that they are there.

    Raises:
        RequestBodyConsumed: It was read as a stream or form, and is gone.
    """
    cached: bytes | None = getattr(request, "_body", None)
    if cached is not None:
        return cached
    bears_body = any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in request.scope["headers"]
    )
    if getattr(request, "_stream_consumed", False):
        if bears_body:
            raise RequestBodyConsumed(
                "the request body was read as a stream or form before it was forwarded; read "
                "it with `await request.body()` instead, or give override_body"
            )
        return b""
    if bears_body:
        request._stream_consumed = True  # noqa: SLF001
    elif request.scope.get("http_version", "1.1") in ("1.0", "1.1"):
        request._body = b""  # noqa: SLF001
    return None
