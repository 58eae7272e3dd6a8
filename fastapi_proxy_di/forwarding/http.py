"""Forwards HTTP requests: takes an ASGI request, gives the raw response.

1. Begin the exchange (``exchange``).
2. Build the request to send (``request``): path, headers, framing.
3. Read the part of the body that has already arrived (``body``).
4. Send the exchange (``journey``): pick, connect, send, wait for the head.
5. Give the response (``response``), which streams when it is sent and ends the exchange.

Everything that does not depend on the request was decided when the forwarder was made. Only a
request with a timeout of its own gets a watcher of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from fastapi_proxy_di.balancing.affinity import Binding
from fastapi_proxy_di.errors import ProxyError
from fastapi_proxy_di.forwarding.body import RequestBody
from fastapi_proxy_di.forwarding.body_keys import BodyKeys
from fastapi_proxy_di.forwarding.changed_body import change_body
from fastapi_proxy_di.forwarding.deadlines import Deadlines
from fastapi_proxy_di.forwarding.early_hints import EARLY_HINT, EarlyHints, may_hint
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.journey import Journey
from fastapi_proxy_di.forwarding.max_forwards import LastHop, final_response
from fastapi_proxy_di.forwarding.pace import PacedResponse, pace_of
from fastapi_proxy_di.forwarding.request import RequestBuilder
from fastapi_proxy_di.forwarding.response import LocalResponse, OwnResponse, UpstreamResponse
from fastapi_proxy_di.forwarding.response_headers import ResponseHeaders
from fastapi_proxy_di.forwarding.tapped_response import TappedResponse
from fastapi_proxy_di.forwarding.taps import ChangesRequest
from fastapi_proxy_di.forwarding.transforming import Answered
from fastapi_proxy_di.forwarding.watcher import Watcher
from fastapi_proxy_di.settings import UpstreamSettings

_BODYLESS_VERSIONS: Final = frozenset({"1.0", "1.1"})
_WITH_BODY: Final = frozenset({b"POST", b"PUT", b"PATCH"})
"""Methods that are sent with ``Content-Length: 0`` if there is no body (RFC 9110 section 8.6): an
HTTP/2 client sends no length then, and many servers respond 411 to an HTTP/1.1 request without."""


class HttpForwarder:
    """Forwards HTTP requests to one upstream.

    Args:
        settings: The settings of the upstream.
        journey: The journey of its exchanges.
        builder: Builds the requests to send.
        response_headers: Builds the response headers that clients get.
        binding: Keeps clients on their destination, ``None`` for no affinity.
        body_keys: Reads keys from the bodies of requests, ``None`` if none are used.
    """

    def __init__(
        self,
        settings: UpstreamSettings,
        journey: Journey,
        builder: RequestBuilder,
        response_headers: ResponseHeaders,
        binding: Binding | None = None,
        body_keys: BodyKeys | None = None,
    ) -> None:
        self._name: Final = settings.name
        self._settings: Final = settings
        self._journey: Final = journey
        self._builder: Final = builder
        self._response_headers: Final = response_headers
        self._binding: Final = binding
        self._body_keys: Final = body_keys
        self._holds: Final = settings.streams.first_event is not None
        pace = pace_of(settings.streams)
        self._pace: Final = pace
        self._response: Final[Callable[..., UpstreamResponse]] = (
            UpstreamResponse if pace is None else partial(PacedResponse, pace)
        )
        self._watcher: Final = Watcher(settings.name, Deadlines.of(settings.timeouts))

    async def forward(
        self, exchange: Exchange, cached_body: bytes | None = None
    ) -> UpstreamResponse | LocalResponse:
        """Forward a client's request, and return the response once its head has arrived.

        Args:
            exchange: The exchange of the client's request.
            cached_body: The body of the request, if it has been read already.

        Raises:
            ClientDisconnected: The client disconnected before there was a response.
            ProxyError: There is no response.
        """
        scope, overrides = exchange.scope, exchange.overrides
        watcher = self._watcher
        if overrides is not None and overrides.timeout is not None:
            watcher = Watcher(self._name, watcher.deadlines._replace(total=overrides.timeout))
        journey = self._journey
        began = 0.0
        exchange.begin(watcher, journey.observers)
        try:
            try:
                self._builder.build(exchange)
            except LastHop:
                return self._respond(exchange, final_response(exchange.scope))
            except Answered as answered:
                return self._respond(exchange, OwnResponse(answered.response))
            if self._binding is not None:
                exchange.headers = self._binding.strip(exchange.headers)
            if (
                exchange.has_body
                or overrides is not None
                or cached_body
                or scope.get("http_version") not in _BODYLESS_VERSIONS
            ):
                body = exchange.body = await self._body(exchange, cached_body)
                if self._body_keys is not None and body is not None:
                    began = await self._body_keys.read(exchange, body, watcher.deadlines)
                tap = None if overrides is None else overrides.tap
                if body is not None and tap is not None and tap.changes is not None:
                    began = began or asyncio.get_running_loop().time()
                    await self._change(exchange, body, tap.changes, watcher.deadlines)
            if exchange.body is None and exchange.length is None and exchange.method in _WITH_BODY:
                self._builder.frame(exchange, 0)
            extensions = scope.get("extensions") or ()
            if EARLY_HINT in extensions and exchange.send is not None and may_hint(exchange):
                exchange.early_hints = EarlyHints(self._name, exchange.send, held=self._holds)
            watcher.start(exchange)
            if began:
                exchange.started = began
            await journey.send(exchange)
            body, response = exchange.body, exchange.response
            if body is not None and not body.ended and response.status >= 300:
                body.stop()
            trailers = "http.response.trailers" in extensions
            headers = self._response_headers.build(
                exchange, response.status, response.headers, pass_trailers=trailers
            )
            if exchange.early_hints is not None:
                await exchange.early_hints.sent()
        except BaseException as error:
            rest = journey.end(exchange, error)
            if rest is not None:
                await rest
            raise
        trailers = trailers and any(name == b"trailer" for name, _ in headers)
        if overrides is not None and overrides.tap is not None:
            return TappedResponse(
                overrides.tap,
                self._name,
                self._pace,
                exchange,
                headers,
                trailers=trailers,
                end=self._end,
            )
        return self._response(exchange, headers, trailers=trailers, end=self._end)

    def _respond(self, exchange: Exchange, response: LocalResponse) -> LocalResponse:
        """End an exchange that is not sent, because there is a response already."""
        if exchange.observer is not None:
            exchange.observer.responded(exchange, response.status, response.headers)
        _ = self._journey.end(exchange, None)
        return response

    def _end(self, exchange: Exchange, failure: BaseException | None) -> Awaitable[None] | None:
        """End the exchange of a response that was sent or broke off, and log a failure."""
        rest = self._journey.end(exchange, failure)
        if isinstance(failure, ProxyError):
            self._journey.failures.broke_off(exchange.destination.url, failure, exchange.attempts)
        return rest

    async def _change(
        self, exchange: Exchange, body: RequestBody, tap: ChangesRequest, deadlines: Deadlines
    ) -> None:
        limit = self._settings.streams.replay_bytes
        if await change_body(exchange, body, tap, deadlines, limit):
            self._builder.frame(exchange, body.length)

    async def _body(self, exchange: Exchange, cached: bytes | None) -> RequestBody | None:
        limit = self._settings.limits.max_body_bytes
        overrides, receive = exchange.overrides, exchange.receive
        assert receive is not None
        if overrides is not None and overrides.body is not None:
            return self._whole(exchange, overrides.body, None)
        if cached is not None:
            if exchange.has_body or cached:
                self._builder.frame(exchange, len(cached))
            exchange.expects_continue = False
            return self._whole(exchange, cached, limit)
        version = exchange.scope.get("http_version", "1.1")
        if not exchange.has_body:
            if version in _BODYLESS_VERSIONS or exchange.length == 0:
                return None
            # In HTTP/2 and 3 no header says whether there is a body, so it has to be read.
        body = RequestBody(
            receive,
            length=exchange.length,
            limit=limit,
            retain=self._retain(exchange),
            expects_continue=exchange.expects_continue,
        )
        if not exchange.expects_continue and not exchange.chunked:
            await body.prefetch(self._settings.timeouts.activity)
            if not exchange.has_body:
                if body.ended and not body.first:
                    return None
                self._builder.frame(exchange, len(body.first) if body.ended else None)
        return body

    def _whole(self, exchange: Exchange, content: bytes, limit: int | None) -> RequestBody | None:
        if not content:
            return None
        assert exchange.receive is not None
        return RequestBody.whole(exchange.receive, content, limit, self._retain(exchange))

    def _retain(self, exchange: Exchange) -> int:
        retain = self._settings.retries.replay_bytes
        return retain if self._body_keys is None else max(retain, self._body_keys.kept(exchange))
