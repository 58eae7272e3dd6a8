"""Turns the client's ``Request`` or ``WebSocket`` into an exchange, and forwards it.

The file also has the undocumented names of Starlette's ``Request`` and ``WebSocket``, one
accessor each, which says what happens if the name is missing, and FastAPI's exit stack of a
request. The other undocumented names of FastAPI are in ``integration.compat``.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final, NamedTuple, overload

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from fastapi_proxy_di.balancing.hash_key import KeyReader, RequestKey
from fastapi_proxy_di.balancing.only_destination import OnlyDestination
from fastapi_proxy_di.errors import ClientDisconnected, ProxyError, RequestBodyConsumed, Side
from fastapi_proxy_di.forwarding.body import RequestBody
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.fallback import FALLBACK_FROM, FallbackRule
from fastapi_proxy_di.forwarding.overrides import Overrides
from fastapi_proxy_di.forwarding.response import UpstreamResponse, client_closed_request
from fastapi_proxy_di.upstream.proxied_response import ProxiedResponse
from fastapi_proxy_di.upstream.shared_receive import SharedReceive

if TYPE_CHECKING:
    from fastapi_proxy_di.upstream.rules import Rules


_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})

_BODY_LOST: Final = "fastapi_proxy_di.body_lost"
"""Key of the scope of a request whose body was read and is not kept."""


class Fallback(NamedTuple):
    """What forwards a request to a second upstream.

    Attributes:
        rule: Which requests it gets.
        forward: Forwards one, with the arguments of `Forwarder.request`.
    """

    rule: FallbackRule
    forward: Callable[
        [Request, bytes, bytes, Overrides | None, str | None], Coroutine[Any, Any, Response]
    ]


class Forwarder:
    """Forwards requests and WebSockets of Starlette, and those of plain ASGI.

    Attributes:
        rules: The rules of the upstream, which each request reads once.
    """

    __slots__ = ("rules",)

    rules: Rules

    @overload
    async def request(
        self,
        request: Request,
        path: bytes,
        prefix: bytes,
        overrides: Overrides | None,
        affinity_key: str | None = None,
    ) -> ProxiedResponse: ...

    @overload
    async def request(
        self,
        request: Request,
        path: bytes,
        prefix: bytes,
        overrides: Overrides | None,
        affinity_key: str | None,
        fallback: Fallback | None,
    ) -> Response: ...

    async def request(
        self,
        request: Request,
        path: bytes,
        prefix: bytes,
        overrides: Overrides | None,
        affinity_key: str | None = None,
        fallback: Fallback | None = None,
    ) -> Response:
        """Forward a request and return the response once its head has arrived.

        Args:
            request: The client's request.
            path: Raw path below the mount; may have a query.
            prefix: Raw path of the mount.
            overrides: Values to send instead of the client's.
            affinity_key: The key that the policy ``hash`` hashes, instead of ``hash_key``.
            fallback: What forwards the request to a second upstream; ``None`` for none.

        Raises:
            ProxyError: There is no response.
        """
        if overrides is None or overrides.body is None:
            receive, cached = request.receive, take_body(request)
        else:
            receive, cached = share_receive(request), None
        scope, rules = request.scope, self.rules
        read_key = rules.read_key
        exchange = Exchange(
            scope,
            receive,
            send_of(request),  # for early hints, which come before the response
            path,
            prefix,
            overrides,
            None if read_key is None else _key(read_key, scope, affinity_key),
        )
        if overrides is not None and overrides.only is not None:
            exchange.key = OnlyDestination(scope, overrides.only)
        try:
            response = await rules.http.forward(exchange, cached)
        except ClientDisconnected:
            return ProxiedResponse(client_closed_request())
        except ProxyError as error:
            if cached is None and error.failure.side is not Side.CLIENT:
                give_body_back(request, exchange.body)
            if fallback is None or not fallback.rule.takes_failure(error, exchange):
                raise
            if is_body_lost(request):
                raise
        else:
            refused = rules.settings.retries.refused_statuses
            if (
                fallback is None
                or not isinstance(response, UpstreamResponse)
                or not fallback.rule.takes_response(exchange, refused)
            ):
                return ProxiedResponse(response)
            await response.aclose()
            if cached is None:
                give_body_back(request, exchange.body)
        scope[FALLBACK_FROM] = rules.settings.name
        return await fallback.forward(request, path, prefix, overrides, affinity_key)

    async def asgi(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        path: bytes,
        prefix: bytes,
        overrides: Overrides | None = None,
    ) -> None:
        """Forward without a ``Request`` or ``Response``, and send the response."""
        rules = self.rules
        key = None if rules.read_key is None else _key(rules.read_key, scope, None)
        exchange = Exchange(scope, receive, send, path, prefix, overrides, key)
        try:
            response = await rules.http.forward(exchange)
        except ClientDisconnected:
            response = client_closed_request()
        await response(scope, receive, send)

    async def websocket(
        self,
        websocket: WebSocket,
        path: bytes,
        prefix: bytes,
        overrides: Overrides | None,
        *,
        subprotocols: Sequence[str] | None = None,
        open_timeout: float | None = None,
        affinity_key: str | None = None,
    ) -> None:
        """Tunnel a WebSocket that is not yet accepted.

        Args:
            websocket: The client's WebSocket.
            path: As for ``request``.
            prefix: As for ``request``.
            overrides: As for ``request``.
            subprotocols: The subprotocols to offer instead of the client's.
            open_timeout: Seconds for the handshake instead of ``websocket.open_timeout``.
            affinity_key: As for ``request``.

        Raises:
            ProxyError: No destination responded; nothing was sent to the client.
        """
        message = await websocket.receive()
        if message["type"] != "websocket.connect":
            return
        receive, send = channel_of(websocket)
        scope, rules = websocket.scope, self.rules
        key = None if rules.read_key is None else _key(rules.read_key, scope, affinity_key)
        exchange = Exchange(scope, receive, send, path, prefix, overrides, key)
        if overrides is not None and overrides.only is not None:
            exchange.key = OnlyDestination(scope, overrides.only)
        await rules.websocket.forward(
            exchange, subprotocols=subprotocols, open_timeout=open_timeout
        )


def _key(read_key: KeyReader, scope: Scope, affinity_key: str | None) -> RequestKey:
    given = None if affinity_key is None else affinity_key.encode("utf-8")
    return RequestKey(scope, read_key, given)


class UnknownStarlette(RuntimeError):
    """Raised at start if the version of Starlette lacks a name that we need."""


async def check_request() -> None:
    """Check that a ``Request`` has the attributes that tell and change how its body is read.

    Without them the proxy would wait for a body that a dependency has read already, until the
    client disconnects, or a body that the proxy has read would be lost.

    Raises:
        UnknownStarlette: An attribute is missing.
    """

    async def receive() -> Message:
        return {"type": "http.request", "body": b"x", "more_body": False}

    request = Request({"type": "http"}, receive)
    known = hasattr(request, "_receive") and getattr(request, "_stream_consumed", None) is False
    if known:
        await request.body()
    if not known or getattr(request, "_body", None) != b"x":
        raise UnknownStarlette(
            "Starlette's Request has no _receive, _stream_consumed and _body, which "
            "fastapi_proxy_di needs. Install a version that the installed fastapi_proxy_di supports"
        )


def send_of(request: Request) -> Send | None:
    """Return the server's ``send`` of ``request``, for early hints; ``None`` if it is missing."""
    return getattr(request, "_send", None)


def channel_of(websocket: WebSocket) -> tuple[Receive, Send]:
    """Return the server's ``receive`` and ``send``, without Starlette's state machine.

    The state machine costs as much per message as the copying. If the names are missing, the
    messages go through it.
    """
    receive: Receive = getattr(websocket, "_receive", websocket.receive)
    send: Send = getattr(websocket, "_send", websocket.send)
    return receive, send


def replace_send(websocket: WebSocket, wrapper: Callable[[Send], Send]) -> None:
    """Put a function around the server's ``send``; nothing happens if the name is missing."""
    send: Send | None = getattr(websocket, "_send", None)
    if send is not None:
        websocket._send = wrapper(send)  # noqa: SLF001


def exit_stack(scope: Scope) -> AsyncExitStack | None:
    """Return the exit stack that FastAPI closes once the response is sent.

    If it is missing, a response that was not returned is closed when it is garbage collected.
    """
    stack = scope.get("fastapi_inner_astack")
    return stack if isinstance(stack, AsyncExitStack) else None


def take_body(request: Request) -> bytes | None:
    """Return the body if it was read; else mark the body as read, so that nothing waits for it.

    Starlette keeps both facts in private attributes of the ``Request`` that dependencies
    and endpoint share; its own ``BaseHTTPMiddleware`` reads them as well. ``check_request``
    has checked that they exist.

    Raises:
        RequestBodyConsumed: The body was read as a stream or form, so its bytes are gone.
    """
    cached: bytes | None = getattr(request, "_body", None)
    if cached is not None:
        return cached
    scope = request.scope
    is_http1 = scope.get("http_version", "1.1") in ("1.0", "1.1")
    bears_body, length = False, None
    for name, value in scope["headers"]:
        if name == b"transfer-encoding":
            bears_body = True
        elif name == b"content-length":
            length = value
            bears_body = bears_body or value != b"0"
    if getattr(request, "_stream_consumed", False):
        # In HTTP/2 and 3 no header has to say that there is a body.
        unknown = not is_http1 and length is None and scope["method"] in _WITH_BODY
        if bears_body or unknown or is_body_lost(request):
            raise RequestBodyConsumed(
                "the request body was read as a stream or form before it was forwarded; read "
                "it with `await request.body()` instead, or give override_body"
            )
        return b""
    if bears_body:
        request._stream_consumed = True  # noqa: SLF001
    elif is_http1:
        request._body = b""  # noqa: SLF001
    return None


def give_body_back(request: Request, body: RequestBody | None) -> None:
    """Let the body be read once more, for another upstream or for the endpoint itself.

    Args:
        request: The request whose body ``take_body`` has marked as read.
        body: What was read of the body; ``None`` if nothing was. If not all of it is kept, the
            request stays as it is, and the next reader gets `RequestBodyConsumed`.
    """
    if body is not None:
        receive = body.given_back()
        if receive is None:
            request.scope[_BODY_LOST] = request._stream_consumed = True  # noqa: SLF001
            return
        request._receive = receive  # noqa: SLF001
    request._stream_consumed = False  # noqa: SLF001


def is_body_lost(request: Request) -> bool:
    """Whether the proxy has read the body, and has not kept all of it."""
    return _BODY_LOST in request.scope


def share_receive(request: Request) -> Receive:
    """Return a ``receive`` that sees the disconnect and keeps the body for its next reader."""
    shared = SharedReceive(request.receive)
    request._receive = shared.read  # noqa: SLF001
    return shared.watch
