"""The balancer's ``httpx`` client: the API of httpx over our pool, policy and transports.

The requests are calls of the app itself, so the client adds no forwarding headers and no
``Via``. The requests take the same journey as all exchanges.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from http.cookiejar import Cookie, CookieJar, DefaultCookiePolicy
from typing import Any, NoReturn, Self, TypeVar

import httpx
from starlette.types import Message, Scope

from fastapi_proxy_di.balancing.policy import PickRequest
from fastapi_proxy_di.client.httpx_errors import httpx_error
from fastapi_proxy_di.errors import (
    Failure,
    LimitExceeded,
    ProxyError,
    UpstreamTimeout,
)
from fastapi_proxy_di.forwarding.body import RequestBody
from fastapi_proxy_di.forwarding.deadlines import Deadlines
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.journey import Journey
from fastapi_proxy_di.forwarding.request import RequestBuilder
from fastapi_proxy_di.forwarding.response import EndExchange
from fastapi_proxy_di.forwarding.watcher import Watcher
from fastapi_proxy_di.settings import UpstreamSettings
from fastapi_proxy_di.wire.forwarded import Forwarding

T = TypeVar("T")


class AsGiven(Forwarding):
    """Keeps the forwarding headers of a call as the app has set them."""

    def headers(
        self,
        peer: str | None,
        scheme: str,
        host: bytes | None,
        prefix: bytes,
        received: Sequence[tuple[bytes, bytes]],
    ) -> Sequence[tuple[bytes, bytes]]:
        """Give ``received`` unchanged, because the call has no client to describe."""
        return received


class UpstreamClient(httpx.AsyncClient):
    """The ``httpx.AsyncClient`` of one upstream, shared by the whole app.

    The client is closed with the upstream. ``aclose`` and the end of ``async with`` do not close
    it, because SDKs do both. It keeps no cookies, follows no redirects and reads no proxy
    variables.

    Args:
        transport: Sends the requests.
        settings: The settings of the upstream.
    """

    def __init__(self, transport: UpstreamTransport, settings: UpstreamSettings) -> None:
        timeouts = settings.timeouts
        super().__init__(
            transport=transport,
            base_url=f"http://{settings.name}/",
            cookies=NoCookies(),
            timeout=httpx.Timeout(
                connect=timeouts.connect,
                read=timeouts.activity,
                write=timeouts.activity,
                pool=None,
            ),
            follow_redirects=False,
            trust_env=False,
        )

    async def aclose(self) -> None:
        """Do nothing, because the whole app shares the client."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Do nothing: others use the client too."""

    async def shut_down(self) -> None:
        """Close the client, because the upstream is closed."""
        await super().aclose()


class NoCookies(CookieJar):
    """A cookie jar that stores nothing: a cookie of one user must not be sent for another."""

    def __init__(self) -> None:
        super().__init__(DefaultCookiePolicy(allowed_domains=[]))

    def set_cookie(self, cookie: Cookie) -> NoReturn:
        """Refuse a cookie that code tries to set.

        Raises:
            RuntimeError: Always; the text says how to send a cookie.
        """
        raise RuntimeError(
            "the client of an upstream keeps no cookies, because all requests of the app share "
            "it; send a 'cookie' header with the request"
        )


class UpstreamTransport(httpx.AsyncBaseTransport):
    """Sends the requests of httpx as exchanges of the upstream.

    Args:
        settings: The settings of the upstream; URLs may have no host other than its name.
        journey: The journey of its exchanges.
        builder: Builds the requests to send.
        key: Gives the part of a request that the policy may see.
    """

    def __init__(
        self,
        settings: UpstreamSettings,
        journey: Journey,
        builder: RequestBuilder,
        key: Callable[[Scope], PickRequest | None],
    ) -> None:
        self._name = settings.name
        self._authority = settings.name.encode("ascii")
        self._settings = settings
        self._journey = journey
        self._builder = builder
        self._key = key

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send ``request``, and return its response once the head has arrived.

        Raises:
            httpx.UnsupportedProtocol: The URL has another scheme, host or port.
            httpx.TransportError: There is no response; the ``ProxyError`` is its cause.
        """
        url = request.url
        if url.scheme != "http" or url.host != self._name or url.port is not None:
            raise httpx.UnsupportedProtocol(
                f"the client of {self._name!r} reaches nothing but that upstream, not {url}; give "
                f"a path such as '/invoices/7', or http://{self._name}/...",
                request=request,
            )
        try:
            return await self._send(request)
        except ProxyError as error:
            if isinstance(error, httpx.TransportError):
                raise
            raise httpx_error(error, request) from error

    async def _send(self, request: httpx.Request) -> httpx.Response:
        scope = _scope(request)
        upload = _Upload(request)
        exchange = Exchange(
            scope, upload.receive, None, scope["raw_path"], b"", key=self._key(scope)
        )
        watcher = CallerWatcher(self._settings, request)
        exchange.begin(watcher, self._journey.observers)
        try:
            self._builder.build(exchange)
            host = request.headers.get("host", self._name).encode("latin-1")
            if host != self._authority:
                exchange.host = host
            exchange.body = self._body(request, exchange, upload)
            watcher.start(exchange)
            await self._journey.send(exchange)
        except BaseException as error:
            rest = self._journey.end(exchange, error)
            if rest is not None:
                await rest
            raise
        body, response = exchange.body, exchange.response
        if body is not None and not body.ended and response.status >= 300:
            body.stop()
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_ResponseStream(exchange, request, self._journey.end),
            extensions={"http_version": b"HTTP/1.1"},
        )

    def _body(
        self, request: httpx.Request, exchange: Exchange, upload: _Upload
    ) -> RequestBody | None:
        limit = self._settings.limits.max_body_bytes
        retain = self._settings.retries.replay_bytes
        try:
            content = request.content
        except httpx.RequestNotRead:
            if not exchange.has_body and exchange.length is None:
                # The response has neither length nor coding, so it ends with the stream.
                self._builder.frame(exchange, None)
        else:
            if (content or exchange.has_body) and exchange.length != len(content):
                self._builder.frame(exchange, len(content))
            if not content:
                return None
            if not exchange.expects_continue:
                return RequestBody.whole(upload.receive, content, limit, retain)
        return RequestBody(
            upload.receive,
            length=exchange.length,
            limit=limit,
            retain=retain,
            expects_continue=exchange.expects_continue,
        )


class CallerWatcher(Watcher):
    """Watches one call of the app with the caller's timeouts.

    A caller's timeout that is shorter than that of the settings ends the request and counts
    against no destination.

    Args:
        settings: The settings of the upstream.
        request: The request of httpx, with the caller's timeouts.
    """

    __slots__ = ("_caller_is_shorter", "_limits", "_request")

    def __init__(self, settings: UpstreamSettings, request: httpx.Request) -> None:
        timeouts = request.extensions.get("timeout") or {}
        own = settings.timeouts
        read, connect = timeouts.get("read", own.activity), timeouts.get("connect")
        super().__init__(settings.name, Deadlines.of(own)._replace(activity=read))
        self._caller_is_shorter = read is not None and read < own.activity
        self._limits = {
            "dial": None if connect is None or connect >= own.connect else connect,
            "queue": timeouts.get("pool"),
        }
        self._request = request

    async def run(self, exchange: Exchange, coroutine: Coroutine[Any, Any, T], what: str) -> T:
        """Await ``coroutine`` as `Watcher.run` does, within the caller's timeout for ``what``."""
        try:
            async with asyncio.timeout(self._limits.get(what)) as scope:
                return await super().run(exchange, coroutine, what)
        except TimeoutError:
            if not scope.expired():
                raise
            error: ProxyError
            if what == "queue":
                error = LimitExceeded("no place in the queue became free in time")
                error.upstream = self._name
                raise httpx_error(error, self._request) from error
            error = _caller_timeout("no connection before the caller's timeout")
            raise httpx_error(error, self._request, httpx.ConnectTimeout) from error

    def _timed_out(self, exchange: Exchange, failure: Failure) -> ProxyError:
        error = super()._timed_out(exchange, failure)
        if self._caller_is_shorter and error.failure is Failure.ACTIVITY_TIMEOUT:
            return _caller_timeout("the caller's timeout ran out")
        return error


def _caller_timeout(text: str) -> UpstreamTimeout:
    """Make a timeout error that is no failure of a destination and is not retried."""
    return UpstreamTimeout(text, failure=Failure.TOTAL_TIMEOUT)


class _Upload:
    """Gives the body of an httpx request as an ASGI ``receive`` that never disconnects."""

    __slots__ = ("_ended", "_pieces", "_request")

    def __init__(self, request: httpx.Request) -> None:
        self._request = request
        self._pieces: AsyncIterator[bytes] | None = None
        self._ended = False

    async def receive(self) -> Message:
        if self._ended:
            never: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
            return await never
        if self._pieces is None:
            stream = self._request.stream
            assert isinstance(stream, httpx.AsyncByteStream)
            self._pieces = aiter(stream)
        piece = await anext(self._pieces, None)
        self._ended = piece is None
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}


class _ResponseStream(httpx.AsyncByteStream):
    """The body of a response for httpx: not decoded, read once, ended by ``aclose``."""

    def __init__(self, exchange: Exchange, request: httpx.Request, end: EndExchange) -> None:
        self._exchange = exchange
        self._request = request
        self._end: EndExchange | None = end

    async def __aiter__(self) -> AsyncIterator[bytes]:
        response = self._exchange.response
        try:
            while piece := await response.read():
                yield piece
        except ProxyError as error:
            rest = self._finish(error)
            if rest is not None:
                await rest
            raise httpx_error(error, self._request) from error

    async def aclose(self) -> None:
        rest = self._finish(None)
        if rest is not None:
            await rest

    def __del__(self) -> None:
        # A response that was never closed must release its connection and its place in the
        # in-flight counts.
        rest = self._finish(None)
        if inspect.iscoroutine(rest):
            rest.close()

    def _finish(self, failure: ProxyError | None) -> Awaitable[None] | None:
        end, self._end = self._end, None
        return None if end is None else end(self._exchange, failure)


def _scope(request: httpx.Request) -> Scope:
    """Give the ASGI scope that the request builder and the hash keys read."""
    path, _, query = request.url.raw_path.partition(b"?")
    return {
        "type": "http",
        "http_version": "1.1",
        "scheme": "http",
        "method": request.method,
        "path": request.url.path,
        "raw_path": path,
        "query_string": query,
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "client": None,
    }
