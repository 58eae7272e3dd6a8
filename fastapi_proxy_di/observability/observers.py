"""Gives each exchange its observers: metrics, spans, and an access record if one is wanted."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.observer import Observer, Observers
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.transport.protocol import Headers

__all__ = ["UpstreamObservers"]


class UpstreamObservers:
    """Gives the observers of the exchanges of one upstream.

    Args:
        sources: Give an observer for an exchange each, or ``None``: metrics, tracing, access
            records.
    """

    def __init__(self, *sources: Observers) -> None:
        self._sources: Final = sources

    def observe(self, exchange: Exchange) -> Observer | None:
        """Give the observer of an exchange that begins."""
        found: Observer | None = None
        for source in self._sources:
            observer = source.observe(exchange)
            if observer is not None:
                found = observer if found is None else _Both(found, observer)
        return found


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
