"""Gives each exchange its observers: the metrics, and an access record if one is wanted."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.observer import Observer
from fastapi_proxy_di.observability.access_record import AccessRecords
from fastapi_proxy_di.observability.metrics import Metrics
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.transport.protocol import Headers

__all__ = ["UpstreamObservers"]


class UpstreamObservers:
    """Gives the observers of the exchanges of one upstream.

    Args:
        metrics: Counts every exchange; ``None`` if metrics are off.
        records: Makes the access records.
    """

    def __init__(self, metrics: Metrics | None, records: AccessRecords) -> None:
        self._metrics: Final = metrics
        self._records: Final = records

    def observe(self, exchange: Exchange) -> Observer | None:
        """Give the observer of an exchange that begins."""
        record = self._records.observe(exchange)
        if record is None:
            return self._metrics
        if self._metrics is None:
            return record
        return _Both(self._metrics, record)


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
