"""Sends the upstream's response to the client, streamed and byte for byte.

If the response fails after its first byte was sent, the transfer to the client is broken off.
So a response that ends without an error is complete.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeAlias

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from fastapi_proxy_di.errors import ClientDisconnected, ClientStalled, ProxyError
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.kept_body import KeptBody
from fastapi_proxy_di.forwarding.response_headers import end_to_end_trailers
from fastapi_proxy_di.transport.protocol import Headers

CLIENT_LEFT: Final = 499

EndExchange: TypeAlias = Callable[[Exchange, BaseException | None], Awaitable[None] | None]
"""A function that ends an exchange, given its failure or ``None``; may return an awaitable."""


TRANSFER: Final = "fastapi_proxy_di.transfer"
"""Key of the scope for the object whose ``broken_by`` is set by ``break_off``."""


class BodySource(Protocol):
    """Where the body of a response is read; a `TransportExchange` is one."""

    @property
    def complete(self) -> bool:
        """Whether the whole body was read, after ``read``."""
        ...

    async def read(self) -> bytes:
        """Give the next piece of the body; ``b""`` at its end.

        Raises:
            ProxyError: The response broke off.
        """

    @property
    def trailers(self) -> Headers:
        """The trailers, after the end of the body."""
        ...


class TransferBroken(Exception):
    """Raised to the server, so that it closes the connection in the middle of a response."""

    def __init__(self) -> None:
        super().__init__("the response of the upstream broke off")


class UpstreamResponse:
    """An ASGI application that sends one upstream response, once.

    Attributes:
        status: The status to send; may be changed before the response is sent.
        headers: The headers to send.

    Args:
        exchange: The exchange, with its response.
        headers: The headers to send.
        trailers: Whether trailers are forwarded.
        end: Called once at the end, with the failure or ``None``; its result is awaited
            unless it is ``None``.
    """

    __slots__ = ("_end", "_exchange", "_kept", "_response", "_trailers", "headers", "status")

    def __init__(
        self, exchange: Exchange, headers: Headers, *, trailers: bool, end: EndExchange
    ) -> None:
        self._exchange = exchange
        response = exchange.response
        self._response: BodySource = response
        self._kept: KeptBody | None = None
        self.status: int = response.status
        self.headers: Headers = headers
        self._trailers = trailers
        self._end: EndExchange | None = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._refuse_if_ended()
        exchange, response = self._exchange, self._response
        observer = exchange.observer
        failure: BaseException | None = None
        try:
            start = {
                "type": "http.response.start",
                "status": self.status,
                "headers": self.headers,
            }
            if self._trailers:
                start["trailers"] = True
            await send(start)
            while True:
                body = await response.read()
                if observer is not None:
                    observer.sent(len(body))
                complete = response.complete
                if complete and observer is not None:
                    observer.received(exchange)
                await send({"type": "http.response.body", "body": body, "more_body": not complete})
                if complete:
                    break
            if self._trailers:
                trailers = end_to_end_trailers(response.trailers)
                await send({"type": "http.response.trailers", "headers": trailers})
        except ProxyError as error:
            failure = error
        except asyncio.CancelledError as error:
            failure = error
            if (transfer := scope.get(TRANSFER)) is not None:
                transfer.cancelled = True
            raise
        except BaseException as error:
            failure = error
            raise
        finally:
            rest = self._finish(failure)
            if rest is not None:
                await rest
        if failure is not None:
            break_off(scope, failure)

    def kept(self) -> KeptBody:
        """Give the body for the app to read, which is kept to be sent as well.

        Raises:
            RuntimeError: The response has been sent or closed.
        """
        self._refuse_if_ended()
        if self._kept is None:
            self._response = self._kept = KeptBody(self._response, self._exchange.response.headers)
        return self._kept

    async def aclose(self) -> None:
        """Drop the response and end the exchange at once."""
        rest = None if self._end is None else self._finish(self._unused())
        if rest is not None:
            await rest

    def __del__(self) -> None:
        # A response that is neither sent nor closed must release its connection and its place
        # in the in-flight counts.
        if self._end is not None:
            rest = self._finish(self._unused())
            if inspect.iscoroutine(rest):
                rest.close()

    def _refuse_if_ended(self) -> None:
        if self._end is None:
            raise RuntimeError("this response has been sent or closed already")

    def _unused(self) -> ProxyError | None:
        """Give the failure of a response that is not sent, ``None`` if the app has read it."""
        if self._exchange.response.complete:
            return None
        failure = None if self._kept is None else self._kept.failure
        return failure or ClientDisconnected("the response was not used")

    def _finish(self, failure: BaseException | None) -> Awaitable[None] | None:
        end, self._end = self._end, None
        return None if end is None else end(self._exchange, failure)


class LocalResponse:
    """A response made by the proxy itself.

    Attributes:
        status: The status to send.
        headers: The headers to send.
        body: The body to send.

    Args:
        status: The status to send.
        headers: The headers to send.
        body: The body to send.
    """

    def __init__(self, status: int, headers: Headers, body: bytes = b"") -> None:
        self.status = status
        self.headers = headers
        self.body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status, "headers": self.headers}
        await send(start)
        await send({"type": "http.response.body", "body": self.body})

    async def aclose(self) -> None:
        """Do nothing: a local response has no connection to close."""


class OwnResponse(LocalResponse):
    """A response that code of the user has made.

    Args:
        response: The response.
    """

    def __init__(self, response: Response) -> None:
        content = getattr(response, "body", b"")  # a stream has none
        super().__init__(response.status_code, response.raw_headers, bytes(content))
        self._own = response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._own.status_code = self.status
        self._own.raw_headers = self.headers
        await self._own(scope, receive, send)


def client_closed_request() -> LocalResponse:
    """Return the response for a client that has disconnected: an empty 499, as in nginx.

    No client receives it, but servers and middlewares expect a response from an app.
    """
    return LocalResponse(CLIENT_LEFT, [])


def break_off(scope: Scope, failure: BaseException) -> None:
    """Break off the client's response, so that it does not end as if it were complete.

    A server breaks off a response if the app returns before the last body message. Some
    middlewares would then send this message themselves. So the failure is stored in the
    scope, where ``BrokenResponses`` around the app finds it and withholds the message.

    Args:
        scope: The ASGI scope of the client's request.
        failure: The exception that ended the response.

    Raises:
        TransferBroken: There is no ``BrokenResponses``, and the client is still connected.
    """
    transfer = scope.get(TRANSFER)
    if transfer is not None:
        transfer.broken_by = failure
    elif not isinstance(failure, ClientDisconnected) or isinstance(failure, ClientStalled):
        raise TransferBroken
