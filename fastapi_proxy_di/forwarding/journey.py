"""The journey of every exchange: it begins, is sent through the layers, and ends.

HTTP, WebSockets, the httpx client and leases share these steps:

1. ``Exchange.begin`` sets the metrics and the observer.
2. ``Watcher.start`` begins to watch the client and the deadlines.
3. ``send`` goes through admission, hedging, the retry loop and its attempts; ``hold`` only
   picks a destination and counts it as in use.
4. ``end`` closes the exchange, counts it as done, reports a failure and stops watching.
   It is called once for every exchange that has begun. The branches of a hedged request do not
   begin and end: the request that they belong to does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeAlias

from fastapi_proxy_di.errors import ProxyError
from fastapi_proxy_di.forwarding.admission import Admission
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.failure_log import FailureLog
from fastapi_proxy_di.forwarding.observer import Observers
from fastapi_proxy_di.forwarding.outcomes import Outcomes
from fastapi_proxy_di.forwarding.unavailable import closed

__all__ = ["Journey", "Send"]

Send: TypeAlias = Callable[[Exchange], Coroutine[Any, Any, None]]
"""A layer: a function that gets a response for an exchange, or raises."""


class Journey:
    """Sends the exchanges of one upstream through admission, hedging and retries.

    Args:
        name: Name of the upstream.
        send: The retry loop, or hedging around it.
        hold: Picks a destination and counts the exchange there, without sending anything.
        outcomes: Receives late failures.
        admission: The upstream's own limits, ``None`` if it has none.
        observers: Makes the observers of exchanges.
        failures: Logs the exchanges that fail.

    Attributes:
        name: Name of the upstream.
        observers: Makes the observers of exchanges.
        failures: Logs the exchanges that fail before there is a valid response.
        outcomes: Receives the results of exchanges.
        send: Gets a response for an exchange that has begun, ``Exchange.response``.
        hold: Picks a destination for an exchange and counts it as in use, without sending
            anything.
    """

    def __init__(
        self,
        name: str,
        send: Send,
        hold: Send,
        outcomes: Outcomes,
        admission: Admission | None,
        observers: Observers,
        failures: FailureLog,
    ) -> None:
        self.name: Final = name
        self.outcomes: Final = outcomes
        self.failures: Final = failures
        self._admission: Final = admission
        self.observers: Final = observers
        self.send: Send = send if admission is None else admission.around(send)
        self.hold: Send = hold if admission is None else admission.around(hold)

    def close(self) -> None:
        """Refuse exchanges from now on; those under way continue."""
        self.send = self.hold = self._refuse

    async def _refuse(self, exchange: Exchange) -> None:
        raise closed(self.name)

    def end(self, exchange: Exchange, failure: BaseException | None) -> Awaitable[None] | None:
        """End the exchange.

        Args:
            exchange: An exchange that has begun; it may have failed before it was sent.
            failure: The exception that ended the exchange early, ``None`` for none.

        Returns:
            An awaitable for the rest of the work, ``None`` if there is none.
        """
        exchange.metrics.ended(exchange, failure)
        if exchange.observer is not None:
            exchange.observer.ended(exchange, failure)
        if exchange.in_flight:
            response = exchange.transport_exchange  # None for a lease
            exchange.end_attempt(failure)
            if self._admission is not None:
                self._admission.leave()
            if response is not None:
                if isinstance(failure, ProxyError):
                    self.outcomes.failed_late(exchange.destination, response.status, failure)
                    if response.status == 101 and exchange.tunnel_end is None:
                        self.failures.failed(failure)  # the 101 was not valid
                elif exchange.tunnel_end is None:  # else the tunnel counts it
                    exchange.destination.completed += 1
        elif isinstance(failure, ProxyError):
            self.failures.failed(failure)
        return exchange.watcher.end(exchange)
