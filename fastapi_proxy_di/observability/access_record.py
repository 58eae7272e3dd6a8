"""Logs one access record for each exchange, and why destinations were picked if asked.

Where ``explain`` and the logger are off, an exchange has no record, and nothing is
recorded. A record goes to the logger ``fastapi_proxy_di.access`` at INFO, with these extra
attributes:

``upstream``, ``destination`` (the last one, ``None`` if none), ``attempts`` (of `Attempt`),
``protocol`` (``http`` or ``websocket``), ``method``, ``path`` (as it travelled, percent-encoded,
without the query), ``status``
(a tunnel's is 101), ``failure`` and ``ended_by`` (``complete``, ``client``, ``destination``
or ``proxy``), ``received_bytes`` and ``sent_bytes`` (bodies and messages, from and to the
client), ``head_ms`` and ``total_ms``; ``trace_id`` and ``span_id`` (hexadecimal, of the
span of the request, the current one), ``route`` (the path
template of the mounted route), ``request_id`` and ``fallback_from`` (the upstream that failed
the request before), each ``None`` where there is none; where a tap has read them,
``input_tokens``, ``output_tokens`` and ``usage`` (``exact`` or ``estimated``); for tunnels
also ``end`` and ``code``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from time import monotonic
from typing import Final, Literal

from opentelemetry import trace
from opentelemetry.trace import SpanContext

from fastapi_proxy_di.balancing.hash_key import RequestKey
from fastapi_proxy_di.errors import Attempt, ProxyError
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.fallback import FALLBACK_FROM
from fastapi_proxy_di.forwarding.taps import ended_by
from fastapi_proxy_di.forwarding.tunnel import TunnelEnd, WebSocketEnd
from fastapi_proxy_di.observability.explain import explanation
from fastapi_proxy_di.observability.telemetry import Telemetry
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.pools.pool import Pool
from fastapi_proxy_di.transport.protocol import Headers
from fastapi_proxy_di.wire.quoting import quoted, shown_path
from fastapi_proxy_di.wire.request_id import REQUEST_ID

__all__ = ["AccessRecord", "AccessRecords"]

EXPLAIN_HEADER: Final = b"x-proxy-explain"

_access = logging.getLogger("fastapi_proxy_di.access")
_explain = logging.getLogger("fastapi_proxy_di.explain")

_PROXY_ENDS: Final = frozenset({WebSocketEnd.DRAINED, WebSocketEnd.SHUTDOWN})
_CLIENT_ENDS: Final = frozenset({WebSocketEnd.CLIENT_CLOSED, WebSocketEnd.CLIENT_VANISHED})


class AccessRecords:
    """Makes the access records of one upstream.

    Args:
        name: Name of the upstream.
        pool: The destinations of the upstream.
        how: Gives the name of what picks for a request: policy, affinity or address.
        explain: Where the reason of a pick is shown: nowhere, in a header or in the log.
        telemetry: Gives the span and the route of a request.
    """

    def __init__(
        self,
        name: str,
        pool: Pool,
        how: Callable[[Exchange, Destination | None], str],
        explain: Literal["off", "header", "log"],
        telemetry: Telemetry,
    ) -> None:
        self.name = name
        self.pool = pool
        self.how = how
        self.explain = explain
        self.telemetry = telemetry

    def observe(self, exchange: Exchange) -> AccessRecord | None:
        """Give the record of a proxied exchange that begins, ``None`` if it is not wanted."""
        if self.explain == "off" and not _access.isEnabledFor(logging.INFO):
            return None
        if exchange.send is None:
            return None  # a call or a lease of the app itself
        try:
            span = self.telemetry.request_span(exchange.scope, trace.get_current_span())
            context = span.get_span_context()
        except Exception:  # noqa: BLE001  # telemetry fails no request; tracing has logged it
            context = trace.INVALID_SPAN_CONTEXT
        return AccessRecord(self, context)


class AccessRecord:
    """The record of one exchange; an ``Observer``.

    Args:
        records: The access records of the upstream.
        span: The span that the exchange belongs to.
    """

    def __init__(self, records: AccessRecords, span: SpanContext) -> None:
        self._records = records
        self._started = monotonic()
        self._head: float | None = None
        self._status = 0
        self._sent = 0
        self._reasons: list[str] = []
        self._span = span

    def picked(
        self, exchange: Exchange, tried: Collection[Destination], destination: Destination | None
    ) -> None:
        records = self._records
        if records.explain == "off":
            return
        how = records.how(exchange, destination)
        key = exchange.key
        cooled = key.cooled if isinstance(key, RequestKey) else ()
        text = explanation(records.pool, how, tried, destination, cooled)
        self._reasons.append(text)
        if records.explain == "log" and _explain.isEnabledFor(logging.INFO):
            url = None if destination is None else destination.url
            _explain.info("%s", text, extra={"upstream": records.name, "destination": url})

    def attempt_began(self, exchange: Exchange) -> None:
        """Do nothing; the exchange keeps its failed attempts."""

    def head(self, exchange: Exchange) -> None:
        """Do nothing; ``responded`` takes the time of the client's response."""

    def received(self, exchange: Exchange) -> None:
        """Do nothing; the attempt ends when the client has the response."""

    def attempt_ended(self, exchange: Exchange, failure: BaseException | None) -> None:
        """Do nothing; the exchange keeps its failed attempts."""

    def responded(self, exchange: Exchange, status: int, headers: Headers) -> None:
        self._head = monotonic()
        self._status = status
        if self._records.explain == "header" and self._reasons:
            # In the order of the attempts.
            text = " | ".join(self._reasons)
            headers.append((EXPLAIN_HEADER, text.encode("latin-1", "replace")))

    def sent(self, size: int) -> None:
        self._sent += size

    def ended(self, exchange: Exchange, failure: BaseException | None) -> None:
        if not _access.isEnabledFor(logging.INFO):
            return
        now = monotonic()
        end = exchange.tunnel_end
        attempts = exchange.attempts
        status = self._status
        if self._head is None:
            if isinstance(failure, ProxyError):
                status = failure.status
        elif exchange.in_flight:
            attempts += (Attempt(exchange.destination.url, status=status),)
        scope, span = exchange.scope, self._span
        fields: dict[str, object] = {
            "upstream": self._records.name,
            "destination": attempts[-1].destination if attempts else None,
            "attempts": attempts,
            "protocol": scope["type"],
            "method": quoted(scope.get("method", "GET")),
            "path": shown_path(scope),
            "status": status,
            "failure": failure.failure.value if isinstance(failure, ProxyError) else None,
            "ended_by": _ended_by(failure, end),
            "received_bytes": 0 if exchange.body is None else exchange.body.size,
            "sent_bytes": self._sent,
            "head_ms": None if self._head is None else (self._head - self._started) * 1000,
            "total_ms": (now - self._started) * 1000,
            "trace_id": trace.format_trace_id(span.trace_id) if span.is_valid else None,
            "span_id": trace.format_span_id(span.span_id) if span.is_valid else None,
            "route": self._records.telemetry.route_of(scope),
            "request_id": scope.get(REQUEST_ID),
            "fallback_from": scope.get(FALLBACK_FROM),
        }
        if (usage := exchange.usage) is not None:
            fields["input_tokens"] = usage.input_tokens
            fields["output_tokens"] = usage.output_tokens
            fields["usage"] = "exact" if usage.exact else "estimated"
        if end is not None:
            fields["received_bytes"] = end.upward_bytes
            fields["sent_bytes"] = end.downward_bytes
            fields["end"] = end.reason.value
            fields["code"] = end.code
        _access.info(
            "%(upstream)s %(method)s %(path)s %(status)d %(ended_by)s %(destination)s"
            " %(total_ms).1f ms",
            fields,
            extra=fields,
        )


def _ended_by(failure: BaseException | None, end: TunnelEnd | None) -> str:
    if end is not None:
        if end.reason in _PROXY_ENDS:
            return "proxy"
        # A message over the size limit counts as ended by the side that sent it.
        client = end.reason in _CLIENT_ENDS or (
            end.reason is WebSocketEnd.MESSAGE_TOO_BIG and end.error is None
        )
        return "client" if client else "destination"
    return ended_by(failure)
