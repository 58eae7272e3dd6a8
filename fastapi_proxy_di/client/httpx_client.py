"""The balancer's ``httpx`` client: httpx above, our pool, policy and transports below.

Calls of the app itself, so nothing of a proxied request is added: no forwarding fields and
no ``Via``. The file knows no HTTP and makes no decision of balancing: all that is
`Dispatcher`'s.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
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
from fastapi_proxy_di.forwarding.deadlines import Deadlines, Grace, Watch
from fastapi_proxy_di.forwarding.dispatch import Dispatcher
from fastapi_proxy_di.forwarding.outbound import Outbound, OutboundBuilder
from fastapi_proxy_di.transport.protocol import TransportExchange
from fastapi_proxy_di.wire.forwarded import Forwarding

T = TypeVar("T")


class AsGiven(Forwarding):
    """Forwarding fields of a request that the app itself makes: those that it names."""

    def fields(
        self,
        peer: str | None,
        scheme: str,
        host: bytes | None,
        prefix: bytes,
        received: Sequence[tuple[bytes, bytes]],
    ) -> Sequence[tuple[bytes, bytes]]:
        """Give ``received``: there is no client to speak of."""
        return received


@dataclass(frozen=True, slots=True)
class ClientRules:
    """The settings as the client reads them.

    Attributes:
        connect: Seconds for a connection.
        deadlines: The upstream's timeouts.
        max_body_bytes: Largest request body, ``None`` for any.
        replay_bytes: Bytes of a body kept for another attempt.
    """

    connect: float
    deadlines: Deadlines
    max_body_bytes: int | None
    replay_bytes: int


class UpstreamClient(httpx.AsyncClient):
    """The ``httpx.AsyncClient`` of one upstream, shared by everybody in the app.

    It ends with the upstream: ``aclose`` and ``async with``, which SDKs do as well, leave it
    open. It keeps no cookies, follows no redirects and reads no proxy variables.

    Args:
        transport: The way to the upstream.
        name: The upstream's.
        rules: The settings.
    """

    def __init__(self, transport: UpstreamTransport, name: str, rules: ClientRules) -> None:
        super().__init__(
            transport=transport,
            base_url=f"http://{name}/",
            cookies=NoCookies(),
            timeout=httpx.Timeout(
                connect=rules.connect,
                read=rules.deadlines.activity,
                write=rules.deadlines.activity,
                pool=None,
            ),
            follow_redirects=False,
            trust_env=False,
        )

    async def aclose(self) -> None:
        """Do nothing: others use the client too."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Do nothing: others use the client too."""

    async def shut_down(self) -> None:
        """Close it; the upstream is going away."""
        await super().aclose()


class NoCookies(CookieJar):
    """A cookie jar that stores nothing: one user's cookie must not travel for another."""

    def __init__(self) -> None:
        super().__init__(DefaultCookiePolicy(allowed_domains=[]))

    def set_cookie(self, cookie: Cookie) -> NoReturn:
        """Refuse a cookie that was set by hand.

        Raises:
            RuntimeError: Always; the text says what to do instead.
        """
        raise RuntimeError(
            "the client of an upstream keeps no cookies, because all requests of the app share "
            "it; send a 'cookie' header with the request"
        )


class UpstreamTransport(httpx.AsyncBaseTransport):
    """Sends httpx's requests through a dispatcher.

    Args:
        name: The upstream's, the only authority that there is.
        builder: Makes the requests that leave.
        dispatcher: Sends them.
        rules: The settings.
        key: Gives what the policy may see of a request.
    """

    def __init__(
        self,
        *,
        name: str,
        builder: OutboundBuilder,
        dispatcher: Dispatcher,
        rules: ClientRules,
        key: Callable[[Scope], PickRequest | None],
    ) -> None:
        self._name = name
        self._authority = name.encode("ascii")
        self._builder = builder
        self._dispatcher = dispatcher
        self._rules = rules
        self._key = key
        self._loop = asyncio.get_running_loop()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send ``request`` and give its answer once the head is there.

        Raises:
            httpx.UnsupportedProtocol: The URL leads elsewhere than to the upstream.
            httpx.TransportError: There is no answer; the ``ProxyError`` is its cause.
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
        outbound = self._builder.build(scope, scope["raw_path"], b"")
        host = request.headers.get("host", self._name).encode("latin-1")
        if host != self._authority:
            outbound.host = host
        upload = _Upload(request)
        body = self._body(request, outbound, upload)
        watch = self._watch(request, upload)
        watch.body = body
        try:
            exchange, destination = await self._dispatcher.dispatch(
                outbound, body, watch, self._key(scope)
            )
        except BaseException:
            rest = watch.close()
            if rest is not None:
                await rest
            raise
        if body is not None and not body.ended and exchange.status >= 300:
            body.stop()

        def finish(failure: ProxyError | None) -> Awaitable[None] | None:
            self._dispatcher.release(destination)
            if failure is not None:
                self._dispatcher.failed_late(destination, failure)
            return watch.close()

        return httpx.Response(
            exchange.status,
            headers=exchange.headers,
            stream=_AnswerStream(exchange, request, finish),
            extensions={"http_version": b"HTTP/1.1"},
        )

    def _body(
        self, request: httpx.Request, outbound: Outbound, upload: _Upload
    ) -> RequestBody | None:
        limit = self._rules.max_body_bytes
        try:
            content = request.content
        except httpx.RequestNotRead:
            if not outbound.has_body and outbound.length is None:
                # Neither length nor coding was given: the end of the stream will tell.
                self._builder.frame(outbound, None)
        else:
            if (content or outbound.has_body) and outbound.length != len(content):
                self._builder.frame(outbound, len(content))
            if not content:
                return None
            if not outbound.expects_continue:
                return RequestBody.whole(upload.receive, content, limit, self._rules.replay_bytes)
        return RequestBody(
            upload.receive,
            length=outbound.length,
            limit=limit,
            retain=self._rules.replay_bytes,
            expects_continue=outbound.expects_continue,
        )

    def _watch(self, request: httpx.Request, upload: _Upload) -> CallerWatch:
        timeouts = request.extensions.get("timeout") or {}
        rules = self._rules
        settings = rules.deadlines
        read, connect = timeouts.get("read", settings.activity), timeouts.get("connect")
        return CallerWatch(
            self._loop,
            Deadlines(read, settings.first_byte, settings.total),
            upload,
            self._name,
            # Nobody blames a destination for a caller in a hurry.
            hurried=read is not None and (settings.activity is None or read < settings.activity),
            connect=None if connect is None or connect >= rules.connect else connect,
            pool=timeouts.get("pool"),
            request=request,
        )


class CallerWatch(Watch):
    """A `Watch` over a call of the app's own, with the caller's timeouts.

    A caller's timeout that is shorter than the settings' ends the request and counts
    against no destination.
    """

    __slots__ = ("_hurried", "_patience", "_request")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        deadlines: Deadlines,
        upload: _Upload,
        label: str,
        *,
        hurried: bool,
        connect: float | None,
        pool: float | None,
        request: httpx.Request,
    ) -> None:
        super().__init__(loop, deadlines, Grace(loop, deadlines.grace), upload.receive, label)
        self._hurried = hurried
        self._patience = {"dial": connect, "queue": pool}
        self._request = request

    async def run(self, coroutine: Coroutine[Any, Any, T], what: str) -> T:
        """As `Watch.run`, for as long as the caller waits for ``what``."""
        try:
            async with asyncio.timeout(self._patience.get(what)) as scope:
                return await super().run(coroutine, what)
        except TimeoutError:
            if not scope.expired():
                raise
            error: ProxyError
            if what == "queue":
                error = LimitExceeded("no place in the queue became free in time")
                error.upstream = self._label
                raise httpx_error(error, self._request) from error
            error = _hurry("no connection before the caller's timeout")
            raise httpx_error(error, self._request, httpx.ConnectTimeout) from error

    def _timed_out(self, failure: Failure) -> ProxyError:
        error = super()._timed_out(failure)
        if self._hurried and error.failure is Failure.ACTIVITY_TIMEOUT:
            return _hurry("the caller's timeout ran out")
        return error


def _hurry(text: str) -> UpstreamTimeout:
    """A timeout that neither counts against a destination nor is tried again."""
    return UpstreamTimeout(text, failure=Failure.TOTAL_TIMEOUT)


class _Upload:
    """An httpx request's body as an ASGI ``receive``, by a client that never leaves."""

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


class _AnswerStream(httpx.AsyncByteStream):
    """An exchange's answer as httpx reads it: raw, once; ends with ``aclose``."""

    def __init__(
        self,
        exchange: TransportExchange,
        request: httpx.Request,
        finish: Callable[[ProxyError | None], Awaitable[None] | None],
    ) -> None:
        self._exchange = exchange
        self._request = request
        self._finish: Callable[[ProxyError | None], Awaitable[None] | None] | None = finish

    async def __aiter__(self) -> AsyncIterator[bytes]:
        exchange = self._exchange
        try:
            while piece := await exchange.read():
                yield piece
        except ProxyError as error:
            rest = self._end(error)
            if rest is not None:
                await rest
            raise httpx_error(error, self._request) from error

    async def aclose(self) -> None:
        rest = self._end(None)
        if rest is not None:
            await rest

    def __del__(self) -> None:
        # A response that nobody closed must not hold its connection and its count.
        rest = self._end(None)
        if inspect.iscoroutine(rest):
            rest.close()

    def _end(self, failure: ProxyError | None) -> Awaitable[None] | None:
        finish, self._finish = self._finish, None
        if finish is None:
            return None
        self._exchange.close()
        return finish(failure)


def _scope(request: httpx.Request) -> Scope:
    """A request as the builder of outbound requests and the hash keys read it."""
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
