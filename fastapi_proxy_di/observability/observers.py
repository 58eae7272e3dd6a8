"""Gives each exchange its metrics, and an observer if spans or an access record are wanted."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.observer import ExchangeMetrics, Observer
from fastapi_proxy_di.observability.access_record import AccessRecords
from fastapi_proxy_di.observability.tracing import Tracing
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.transport.protocol import Headers

__all__ = ["UpstreamObservers"]


class UpstreamObservers:
    """Gives the observers of the exchanges of one upstream.

    Args:
        metrics: Counts all exchanges.
        tracing: Makes the spans of an exchange, if they are wanted.
        records: Makes the access record of an exchange, if one is wanted.

    Attributes:
        metrics: Counts all exchanges.
    """

    def __init__(self, metrics: ExchangeMetrics, tracing: Tracing, records: AccessRecords) -> None:
        self.metrics: Final = metrics
        self._tracing: Final = tracing
        self._records: Final = records

    def observe(self, exchange: Exchange) -> Observer | None:
        """Give the observer of an exchange that begins, ``None`` if none is wanted."""
        spans = self._tracing.observe(exchange)
        record = self._records.observe(exchange)
        if spans is None:
            return record
        return spans if record is None else _Both(spans, record)


class _Both:
    """Two observers of one exchange."""

    __slots__ = ("_first", "_second")

    def __init__(self, first: Observer, second: Observer) -> None:
        self._first = first
        self._second = second

    def picked(
        self, exchange: Exchange, tried: Collection[Destination], destination: Destination | None
    ) -> None:
        self._first.picked(exchange, tried, destination)
        self._second.picked(exchange, tried, destination)

    def attempt_began(self, exchange: Exchange) -> None:
        self._first.attempt_began(exchange)
        self._second.attempt_began(exchange)

    def head(self, exchange: Exchange) -> None:
        self._first.head(exchange)
        self._second.head(exchange)

    def received(self, exchange: Exchange) -> None:
        self._first.received(exchange)
        self._second.received(exchange)

    def attempt_ended(self, exchange: Exchange, failure: BaseException | None) -> None:
        self._first.attempt_ended(exchange, failure)
        self._second.attempt_ended(exchange, failure)

    def responded(self, exchange: Exchange, status: int, headers: Headers) -> None:
        self._first.responded(exchange, status, headers)
        self._second.responded(exchange, status, headers)

    def sent(self, size: int) -> None:
        self._first.sent(size)
        self._second.sent(size)

    def ended(self, exchange: Exchange, failure: BaseException | None) -> None:
        self._first.ended(exchange, failure)
        self._second.ended(exchange, failure)
