"""The journey of one HTTP request: ASGI in, one or more attempts, the raw answer out.

1. Build the request that leaves (``outbound``): path, headers, framing.
2. Take what is at hand of the body (``body``).
3. Watch for the client's leaving and the deadlines (``watch``).
4. Dispatch: pick, connect, send, wait for the head; again where allowed (``dispatch``).
5. Give the answer, which streams when it is sent (``answer``).

Everything that does not depend on the request was decided when the forwarder was made.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Final

from starlette.types import Receive, Scope, Send

from fastapi_proxy_di.balancing.affinity import Binding
from fastapi_proxy_di.balancing.policy import PickRequest
from fastapi_proxy_di.errors import ClientDisconnected, ProxyError
from fastapi_proxy_di.forwarding.body import RequestBody
from fastapi_proxy_di.forwarding.deadlines import Deadlines, Grace, Watch
from fastapi_proxy_di.forwarding.dispatch import Dispatcher
from fastapi_proxy_di.forwarding.early_hints import HintingWatch, may_hint
from fastapi_proxy_di.forwarding.max_forwards import LastHop, final_answer
from fastapi_proxy_di.forwarding.outbound import Outbound, OutboundBuilder, Overrides
from fastapi_proxy_di.forwarding.response import Answer, NoAnswer, OwnAnswer, answer_fields
from fastapi_proxy_di.forwarding.transforming import joined, transform_answer
from fastapi_proxy_di.observability.access_record import Finish, Records, Trace
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.transforms.pipeline import Pipeline
from fastapi_proxy_di.transport.protocol import Headers, TransportExchange
from fastapi_proxy_di.wire.headers import FieldTable

_logger = logging.getLogger("fastapi_proxy_di.forwarding")

_BODYLESS_VERSIONS: Final = frozenset({"1.0", "1.1"})

Failing = Callable[
    [Exception, Answer | OwnAnswer | None, Scope, Receive, Send], Coroutine[Any, Any, None]
]
"""What becomes of a request that failed, and of the answer that it had begun to get."""


@dataclass(frozen=True, slots=True)
class HttpRules:
    """The settings as forwarding reads them.

    Attributes:
        deadlines: The upstream's timeouts.
        max_body_bytes: Largest request body, ``None`` for any.
        replay_bytes: Bytes of a body kept for another attempt.
        response_headers: Fields set on every answer.
    """

    deadlines: Deadlines
    max_body_bytes: int | None
    replay_bytes: int
    response_headers: Headers


class HttpForwarder:
    """Forwards HTTP requests to one upstream.

    Args:
        name: The upstream's.
        builder: Makes the requests that leave.
        dispatcher: Sends them.
        fields: Which response fields cross.
        rules: The settings.
        binding: Keeps clients on their destination, ``None`` for no affinity.
        transforms: The upstream's.
        records: What is told about exchanges.
    """

    def __init__(
        self,
        *,
        name: str,
        builder: OutboundBuilder,
        dispatcher: Dispatcher,
        fields: FieldTable,
        rules: HttpRules,
        binding: Binding | None = None,
        transforms: Pipeline | None = None,
        records: Records | None = None,
    ) -> None:
        self._name = name
        self._builder = builder
        self._dispatcher = dispatcher
        self._fields = fields
        self._rules = rules
        self._binding = binding
        self._transforms = transforms
        self._records = records
        self._deadlines = rules.deadlines
        self._loop = asyncio.get_running_loop()
        self._grace = Grace(self._loop, rules.deadlines.grace)

    def forward(
        self,
        scope: Scope,
        receive: Receive,
        path: bytes,
        prefix: bytes,
        overrides: Overrides | None = None,
        cached_body: bytes | None = None,
        key: PickRequest | None = None,
        send: Send | None = None,
    ) -> Coroutine[Any, Any, Answer | OwnAnswer]:
        """Send a client's request on and give the answer once its head is there.

        Args:
            scope: Of the client's request.
            receive: Of the client's request.
            path: Raw path below the mount.
            prefix: Raw path of the mount.
            overrides: What the caller wants otherwise.
            cached_body: The body, if somebody has read it already.
            key: What the policy may see of the request.
            send: Of the client's request, for early hints; ``None`` passes none on.

        Raises:
            ClientDisconnected: The client left before there was an answer.
            ProxyError: There is no answer.
        """
        # Not a coroutine itself: without a listener there is no further frame.
        trace = None if self._records is None else self._records.begin(scope)
        exchange = self._forward(
            scope, receive, path, prefix, overrides, cached_body, key, send, trace
        )
        return exchange if trace is None else trace.follow(exchange)

    async def _forward(
        self,
        scope: Scope,
        receive: Receive,
        path: bytes,
        prefix: bytes,
        overrides: Overrides | None,
        cached_body: bytes | None,
        key: PickRequest | None,
        send: Send | None,
        trace: Trace | None,
    ) -> Answer | OwnAnswer:
        try:
            outbound = self._builder.build(scope, path, prefix, overrides)
        except LastHop:
            return final_answer(scope)
        if self._binding is not None:
            outbound.headers = self._binding.strip(outbound.headers)
        body: RequestBody | None = None
        if (
            outbound.has_body
            or overrides is not None
            or cached_body
            or scope.get("http_version") not in _BODYLESS_VERSIONS
        ):
            body = await self._body(scope, receive, outbound, overrides, cached_body)
        deadlines, grace = self._deadlines, self._grace
        if overrides is not None and overrides.timeout is not None:
            deadlines = replace(deadlines, total=overrides.timeout)
            grace = Grace(self._loop, deadlines.grace)
        if send is not None and may_hint(scope, receive):
            watch: Watch = HintingWatch(
                self._loop, deadlines, grace, receive, self._name, send=send
            )
        else:
            watch = Watch(self._loop, deadlines, grace, receive, self._name)
        watch.body = body
        if trace is not None:
            outbound.trace = trace
            trace.body = body
        try:
            exchange, destination = await self._dispatcher.dispatch(outbound, body, watch, key)
        except BaseException:
            rest = watch.close()
            if rest is not None:
                await rest
            raise
        if body is not None and not body.ended and exchange.status >= 300:
            body.stop()
        answer = self._answer(scope, outbound, exchange, destination, watch)
        transforms = self._transforms
        if overrides is not None:
            transforms = joined(transforms, overrides.transforms)
        try:
            if transforms is not None:
                answer.headers = transform_answer(
                    transforms,
                    answer.headers,
                    answer.status,
                    scope=scope,
                    path=path,
                    prefix=prefix,
                    destination=destination,
                    host=outbound.host,
                    own=self._rules.response_headers,
                )
            if type(watch) is HintingWatch:
                await watch.told()
        except BaseException:
            await answer.aclose()
            raise
        if self._binding is not None:
            answer.headers += self._binding.remember(scope, prefix, destination)
        return answer

    async def pass_on(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        path: bytes,
        prefix: bytes,
        key: PickRequest | None,
        overrides: Overrides | None = None,
        failed: Failing | None = None,
    ) -> None:
        """Forward a client's request and send the answer, all in one.

        Args:
            scope: As for ``forward``.
            receive: As for ``forward``.
            send: As for ``forward``.
            path: As for ``forward``.
            prefix: As for ``forward``.
            key: As for ``forward``.
            overrides: As for ``forward``.
            failed: Takes what is raised, and the answer if it had been begun; ``None`` lets
                it rise.
        """
        answer: Answer | OwnAnswer | None = None
        try:
            try:
                answer = await self.forward(
                    scope, receive, path, prefix, overrides, None, key, send
                )
            except ClientDisconnected:
                answer = NoAnswer()
            await answer(scope, receive, send)
        except Exception as error:
            if failed is None:
                raise
            await failed(error, answer, scope, receive, send)

    def _answer(
        self,
        scope: Scope,
        outbound: Outbound,
        exchange: TransportExchange,
        destination: Destination,
        watch: Watch,
    ) -> Answer:
        trailers = "http.response.trailers" in (scope.get("extensions") or ())
        headers = answer_fields(
            exchange.headers, exchange.status, self._fields, pass_trailers=trailers
        )
        if outbound.method == b"HEAD" and scope["method"] != "HEAD":
            # Its length is that of a body which does not come.
            headers = [pair for pair in headers if pair[0] != b"content-length"]
        if self._rules.response_headers:
            headers += self._rules.response_headers

        def ended(failure: BaseException | None) -> Awaitable[None] | None:
            self._dispatcher.release(destination)
            if isinstance(failure, ProxyError):
                self._broke_off(destination, failure)
            return watch.close()

        finish: Finish = ended
        trace = outbound.trace
        if trace is not None:
            trace.answered(exchange.status, destination, headers)
            exchange, finish = trace.follow_answer(exchange, finish)
        return Answer(
            exchange,
            exchange.status,
            headers,
            trailers=trailers and any(name == b"trailer" for name, _ in headers),
            finish=finish,
        )

    def _broke_off(self, destination: Destination, failure: ProxyError) -> None:
        self._dispatcher.failed_late(destination, failure)
        level = logging.DEBUG if isinstance(failure, ClientDisconnected) else logging.WARNING
        _logger.log(
            level,
            "answer of %s broke off: %s",
            destination.url,
            failure,
            extra={
                "upstream": self._name,
                "destination": destination.url,
                "failure": failure.failure.value,
            },
        )

    async def _body(
        self,
        scope: Scope,
        receive: Receive,
        outbound: Outbound,
        overrides: Overrides | None,
        cached: bytes | None,
    ) -> RequestBody | None:
        rules = self._rules
        if overrides is not None and overrides.body is not None:
            return _whole(receive, overrides.body, None, rules)
        if cached is not None:
            if outbound.has_body or cached:
                self._builder.frame(outbound, len(cached))
            outbound.expects_continue = False
            return _whole(receive, cached, rules.max_body_bytes, rules)
        version = scope.get("http_version", "1.1")
        if not outbound.has_body:
            if version in _BODYLESS_VERSIONS or outbound.length == 0:
                return None
            # HTTP/2 and 3 frame by streams: only reading tells whether there is a body.
        body = RequestBody(
            receive,
            length=outbound.length,
            limit=rules.max_body_bytes,
            retain=rules.replay_bytes,
            expects_continue=outbound.expects_continue,
        )
        if not outbound.expects_continue and not outbound.chunked:
            await body.prefetch(rules.deadlines.activity)
            if not outbound.has_body:
                if body.ended and not body.first:
                    return None
                self._builder.frame(outbound, len(body.first) if body.ended else None)
        return body


def _whole(
    receive: Receive, content: bytes, limit: int | None, rules: HttpRules
) -> RequestBody | None:
    if not content:
        return None
    return RequestBody.whole(receive, content, limit, rules.replay_bytes)
