"""Protocol of observers, which follow exchanges for access records, spans and metrics.

The journey calls an observer where there is one. Where
there is none ``Exchange.observer`` is ``None``, and nothing of this runs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Protocol

from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.transport.protocol import Headers

if TYPE_CHECKING:
    from fastapi_proxy_di.forwarding.exchange import Exchange

__all__ = ["Observer", "Observers"]


class Observer(Protocol):
    """Listens to one exchange. Every method is called in the event loop and must not raise."""

    def picked(
        self, exchange: Exchange, tried: Collection[Destination], destination: Destination | None
    ) -> None:
        """A destination was picked for the next attempt, ``None`` if none is available.

        Args:
            exchange: Under way; a hedged request calls this for each of its branches.
            tried: Destinations that this request was sent to before.
            destination: Not yet counted as busier for it.
        """

    def responded(self, exchange: Exchange, status: int, headers: Headers) -> None:
        """The response's head is there; ``headers`` go to the client and may be added to."""

    def sent(self, size: int) -> None:
        """So many bytes of the response's body go to the client."""

    def ended(self, exchange: Exchange, failure: BaseException | None) -> None:
        """Handle the end of the exchange; ``failure`` is the error that ended it early."""


class Observers(Protocol):
    """Gives the observers of the exchanges of one upstream.

    Attributes:
        wanted: Says whether an exchange that begins now gets one.
    """

    wanted: Callable[[], bool]

    def observe(self, exchange: Exchange) -> Observer | None:
        """Give the observer of an exchange that begins, ``None`` for none."""
