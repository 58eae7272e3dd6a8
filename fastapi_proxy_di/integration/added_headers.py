"""Adds headers to the response of a request before the response exists.

The headers that a dependency sets on FastAPI's ``Response`` do not reach a response that an
endpoint returns, nor one that is made of an exception. So they are put on the messages to the
server:

- HTTP: by the `BrokenResponses` around the app, which exists while the app's lifespan runs;
- WebSocket: by the ``send`` that the ``WebSocket`` was made with;
- else they are left in the scope, where a `ProxyApp` takes them after its guards.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Final

from starlette.requests import HTTPConnection
from starlette.types import Message, Scope, Send
from starlette.websockets import WebSocket

from fastapi_proxy_di.forwarding.response import TRANSFER
from fastapi_proxy_di.upstream.client_request import replace_send

__all__ = ["add_headers", "take_headers", "with_headers"]

Pairs = Sequence[tuple[bytes, bytes]]

_ADDED: Final = "fastapi_proxy_di.added_headers"
_HEADS: Final = frozenset(
    {"http.response.start", "websocket.accept", "websocket.http.response.start"}
)


def add_headers(connection: HTTPConnection, pairs: Pairs) -> None:
    """Add headers to the response of ``connection``, whatever makes it."""
    scope = connection.scope
    transfer = scope.get(TRANSFER)
    if transfer is not None:
        transfer.add_headers(pairs)
    elif isinstance(connection, WebSocket):
        replace_send(connection, lambda send: with_headers(send, pairs))
    else:
        scope[_ADDED] = [*scope.get(_ADDED, ()), *pairs]


def take_headers(scope: Scope) -> Pairs:
    """Give the headers that were left in the scope, once."""
    pairs: Pairs = scope.pop(_ADDED, ())
    return pairs


def with_headers(send: Send, pairs: Pairs) -> Send:
    """Give a ``send`` that adds headers to the head of the response."""

    def send_with_headers(message: Message) -> Awaitable[None]:
        if message["type"] in _HEADS:
            message = {**message, "headers": [*(message.get("headers") or ()), *pairs]}
        return send(message)

    return send_with_headers
