"""The balancer's httpx clients: the API of httpx over our pool, policy and transports.

The requests are calls of the app itself, so the clients add no forwarding headers and no
``Via``. The requests take the same journey as all exchanges.

httpx and httpx2 are two packages with the same names and meanings, so this file serves both:
whatever is made of a library is made of the module that is given. Types are written as httpx's.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from http.cookiejar import Cookie, CookieJar, DefaultCookiePolicy
from types import ModuleType
from typing import NoReturn, Self, cast

import httpx
from starlette.types import Message, Scope

from fastapi_proxy_di.balancing.issued_affinity import IssuedBinding
from fastapi_proxy_di.balancing.policy import PickRequest
from fastapi_proxy_di.client.caller_watcher import CallerWatcher
from fastapi_proxy_di.client.httpx_errors import HttpxErrors
from fastapi_proxy_di.errors import ProxyError
from fastapi_proxy_di.forwarding.body import RequestBody
from fastapi_proxy_di.forwarding.body_keys import BodyKeys
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.journey import Journey
from fastapi_proxy_di.forwarding.pace import Pace
from fastapi_proxy_di.forwarding.request import RequestBuilder
from fastapi_proxy_di.forwarding.response import EndExchange
from fastapi_proxy_di.settings import UpstreamSettings
from fastapi_proxy_di.wire.forwarded import Forwarding
from fastapi_proxy_di.wire.request_id import HEADER, current_request_id

__all__ = ["AsGiven", "CallRules", "UpstreamTransport", "make_client", "timeouts_of"]


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


def make_client(
    library: ModuleType, transport: UpstreamTransport, settings: UpstreamSettings
) -> httpx.AsyncClient:
    """Make the client of one upstream, which the whole app shares.

    It keeps no cookies, follows no redirects and reads no proxy variables. It is closed with the
    upstream, by the library's own ``AsyncClient.aclose``.

    Args:
        library: The module httpx or httpx2.
        transport: Sends the requests; made for the same library.
        settings: The settings of the upstream.
    """
    client: type[httpx.AsyncClient] = type("UpstreamClient", (_Shared, library.AsyncClient), {})
    return client(
        transport=cast("httpx.AsyncBaseTransport", transport),
        base_url=f"http://{settings.name}/",
        cookies=NoCookies(),
        timeout=timeouts_of(library, settings),
        follow_redirects=False,
        trust_env=False,
    )


def timeouts_of(library: ModuleType, settings: UpstreamSettings) -> httpx.Timeout:
    """Give the timeouts of a client."""
    timeouts = settings.timeouts
    made: httpx.Timeout = library.Timeout(
        connect=timeouts.connect, read=timeouts.activity, write=timeouts.activity, pool=None
    )
    return made


class _Shared:
    """Keeps a client open when one of its users closes it, as SDKs do."""

    async def aclose(self) -> None:
        """Do nothing, because the whole app shares the client."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Do nothing: others use the client too."""


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


@dataclass(frozen=True, slots=True, eq=False)
class CallRules:
    """What decides about the calls of the app itself.

    Attributes:
        settings: The settings of the upstream; URLs may have no host other than its name.
        journey: The journey of its exchanges.
        builder: Builds the requests to send.
        key: Gives the part of a request that the policy may see.
        issued: Marks the ids that destinations issue, ``None`` for no such affinity.
        body_keys: Reads keys from the bodies of requests, ``None`` if none are used.
        pace: Watches event streams, ``None`` if the settings do not ask for it.
    """

    settings: UpstreamSettings
    journey: Journey
    builder: RequestBuilder
    key: Callable[[Scope], PickRequest | None]
    issued: IssuedBinding | None
    body_keys: BodyKeys | None
    pace: Pace | None


class UpstreamTransport:
    """Sends the requests of httpx as exchanges of the upstream.

    Args:
        library: The module httpx or httpx2.
        rules: Gives the current rules, which each call reads once.
    """

    def __init__(self, library: ModuleType, rules: Callable[[], CallRules]) -> None:
        self._errors = HttpxErrors(library)
        self._response: type[httpx.Response] = library.Response
        self._body_stream: type[_ResponseStream] = type(
            "ResponseStream", (_ResponseStream, library.AsyncByteStream), {}
        )
        self._not_read: type[Exception] = library.RequestNotRead
        self._name = rules().settings.name
        self._authority = self._name.encode("ascii")
        self._rules = rules

    async def aclose(self) -> None:
        """Do nothing: the upstream closes its transports."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send ``request``, and return its response once the head has arrived.

        Raises:
            httpx.UnsupportedProtocol: The URL has another scheme, host or port.
            httpx.TransportError: There is no response; the ``ProxyError`` is its cause.
        """
        url = request.url
        if url.scheme != "http" or url.host != self._name or url.port is not None:
            # Without user, path and query, which may be secrets.
            other = f"{url.scheme}://{url.netloc.decode('ascii')}"
            raise self._errors.unsupported(
                f"the client of {self._name!r} reaches nothing but that upstream, not {other}; "
                f"give a path such as '/invoices/7', or http://{self._name}/...",
                request=request,
            )
        try:
            return await self._send(request)
        except ProxyError as error:
            if isinstance(error, self._errors.base):
                raise
            raise self._errors.make(error, request) from error

    async def _send(self, request: httpx.Request) -> httpx.Response:
        scope, rules = _scope(request), self._rules()
        upload, journey = _Upload(request), rules.journey
        exchange = Exchange(
            scope, upload.receive, None, scope["raw_path"], b"", key=rules.key(scope)
        )
        watcher = CallerWatcher(rules.settings, request, self._errors)
        exchange.begin(watcher, journey.observers)
        try:
            rules.builder.build(exchange)
            if rules.issued is not None:
                exchange.headers = rules.issued.strip(exchange.headers)
            host = request.headers.get("host", self._name).encode("latin-1")
            if host != self._authority:
                exchange.host = host
            body = exchange.body = self._body(request, exchange, upload, rules)
            began = 0.0
            if rules.body_keys is not None and body is not None:
                began = await rules.body_keys.read(exchange, body, watcher.deadlines)
            watcher.start(exchange)
            if began:
                exchange.started = began
            await journey.send(exchange)
        except BaseException as error:
            rest = journey.end(exchange, error)
            if rest is not None:
                await rest
            raise
        body, response = exchange.body, exchange.response
        if body is not None and not body.ended and response.status >= 300:
            body.stop()
        headers = response.headers
        if rules.issued is not None:
            headers = rules.issued.remember(headers, scope, b"", exchange.destination)
        return self._response(
            response.status,
            headers=headers,
            stream=self._stream(exchange, request, journey.end, rules.pace),
            extensions={"http_version": b"HTTP/1.1"},
        )

    def _stream(
        self, exchange: Exchange, request: httpx.Request, end: EndExchange, pace: Pace | None
    ) -> httpx.AsyncByteStream:
        stream = self._body_stream(exchange, request, end, self._errors, pace)
        return cast("httpx.AsyncByteStream", stream)

    def _body(
        self, request: httpx.Request, exchange: Exchange, upload: _Upload, rules: CallRules
    ) -> RequestBody | None:
        limit = rules.settings.limits.max_body_bytes
        try:
            content = request.content
        except self._not_read:
            if not exchange.has_body and exchange.length is None:
                # The response has neither length nor coding, so it ends with the stream.
                rules.builder.frame(exchange, None)
        else:
            if (content or exchange.has_body) and exchange.length != len(content):
                rules.builder.frame(exchange, len(content))
            if not content:
                return None
            if not exchange.expects_continue:
                retain, streams = _retain(exchange, rules), rules.settings.streams
                if streams.first_event is not None:
                    # The request of the caller has the content anyway.
                    retain = max(retain, streams.replay_bytes)
                return RequestBody.whole(upload.receive, content, limit, retain)
        return RequestBody(
            upload.receive,
            length=exchange.length,
            limit=limit,
            retain=_retain(exchange, rules),
            expects_continue=exchange.expects_continue,
        )


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
            # The client has checked that the stream is asynchronous.
            self._pieces = aiter(cast("AsyncIterable[bytes]", self._request.stream))
        piece = await anext(self._pieces, None)
        self._ended = piece is None
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}


class _ResponseStream:
    """The body of a response for httpx: not decoded, read once, ended by ``aclose``."""

    def __init__(
        self,
        exchange: Exchange,
        request: httpx.Request,
        end: EndExchange,
        errors: HttpxErrors,
        pace: Pace | None,
    ) -> None:
        self._pace = pace
        self._exchange = exchange
        self._request = request
        self._end: EndExchange | None = end
        self._errors = errors

    async def __aiter__(self) -> AsyncIterator[bytes]:
        exchange, pace = self._exchange, self._pace
        observer = exchange.observer
        response = exchange.response if pace is None else pace.of(exchange, ())
        try:
            while True:
                piece = await response.read()
                if response.complete and observer is not None:
                    observer.received(self._exchange)
                if not piece:
                    return
                yield piece
        except ProxyError as error:
            rest = self._finish(error)
            if rest is not None:
                await rest
            raise self._errors.make(error, self._request) from error

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


def _retain(exchange: Exchange, rules: CallRules) -> int:
    retain, body_keys = rules.settings.retries.replay_bytes, rules.body_keys
    return retain if body_keys is None else max(retain, body_keys.kept(exchange))


def _scope(request: httpx.Request) -> Scope:
    """Give the ASGI scope that the request builder and the hash keys read.

    A call within a request that has an id sends the same one, unless it has one of its own.
    """
    path, _, query = request.url.raw_path.partition(b"?")
    headers = [(name.lower(), value) for name, value in request.headers.raw]
    request_id = current_request_id.get()
    if request_id is not None and all(name != HEADER for name, _ in headers):
        headers.append((HEADER, request_id.encode("ascii")))
    return {
        "type": "http",
        "http_version": "1.1",
        "scheme": "http",
        "method": request.method,
        "path": request.url.path,
        "raw_path": path,
        "query_string": query,
        "headers": headers,
        "client": None,
    }
