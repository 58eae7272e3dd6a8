"""Protocols of what follows exchanges: the metrics, always, and an observer, if one is wanted.

Metrics are called at four steps of each exchange. An observer, which makes spans or an access
record, is called at further ones. An exchange without an observer has ``Exchange.observer`` set to
``None``, which costs nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Protocol

from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.transport.protocol import Headers

if TYPE_CHECKING:
    from fastapi_proxy_di.forwarding.exchange import Exchange

__all__ = ["ExchangeMetrics", "Observer", "Observers"]


class ExchangeMetrics(Protocol):
    """Counts the exchanges of one upstream. Methods are called in the event loop, must not raise.

    They are called before those of the observer.
    """

    def attempt_began(self, exchange: Exchange) -> None:
        """Count the start of an attempt at ``exchange.destination``; a lease is one too."""

    def head(self, exchange: Exchange) -> None:
        """Count the head of the attempt's final response, which may still be retried."""

    def attempt_ended(self, exchange: Exchange, failure: BaseException | None) -> None:
        """Count the end of the attempt; ``failure`` is the error that ended the attempt early."""

    def ended(self, exchange: Exchange, failure: BaseException | None) -> None:
        """Count the end of the exchange; ``failure`` is the error that ended it early."""

    def unread(self, reason: str) -> None:
        """Count a response whose tap could not read it, by a name for why."""


class Observer(Protocol):
    """Observes one exchange. Every method is called in the event loop and must not raise."""

    def picked(
        self, exchange: Exchange, tried: Collection[Destination], destination: Destination | None
    ) -> None:
        """Handle the pick of a destination for the next attempt.

        Args:
            exchange: The exchange; called for each branch of a hedged request.
            tried: Destinations that this request was sent to before.
            destination: The picked destination, ``None`` if none is available. The attempt is
                not yet counted as in flight there.
        """

    def attempt_began(self, exchange: Exchange) -> None:
        """Handle the start of an attempt at ``exchange.destination``; a lease is one too."""

    def head(self, exchange: Exchange) -> None:
        """Handle the head of the attempt's final response, which may still be retried."""

    def received(self, exchange: Exchange) -> None:
        """Handle the end of the response's body, before the client gets the last piece."""

    def attempt_ended(self, exchange: Exchange, failure: BaseException | None) -> None:
        """Handle the end of the attempt; ``failure`` is the error that ended the attempt early."""

    def responded(self, exchange: Exchange, status: int, headers: Headers) -> None:
        """Handle the head of the response; ``headers`` for the client may be added to."""

    def sent(self, size: int) -> None:
        """Count bytes of the response's body that are sent to the client."""

    def ended(self, exchange: Exchange, failure: BaseException | None) -> None:
        """Handle the end of the exchange; ``failure`` is the error that ended it early."""


class Observers(Protocol):
    """Gives the observers of the exchanges of one upstream."""

    @property
    def metrics(self) -> ExchangeMetrics:
        """The metrics, which are the same for all exchanges."""
        ...

    def observe(self, exchange: Exchange) -> Observer | None:
        """Give the observer of an exchange that begins, ``None`` for none."""
