"""The journey of every exchange: it begins, is sent through the layers, and ends.

HTTP, WebSocket, the httpx client and leases share it:

1. ``Exchange.begin``: an observer may listen.
2. ``Watcher.start``: its client and its deadlines are watched.
3. ``send``: admission, hedging, the retry loop and its attempts; or ``hold``, which only
   picks a destination and counts it as in use.
4. ``end``: close, count as done, report a late failure, stop watching. Once, whatever happened.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeAlias

from fastapi_proxy_di.errors import ProxyError
from fastapi_proxy_di.forwarding.admission import Admission
from fastapi_proxy_di.forwarding.attempt import Picker
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.observer import Observers
from fastapi_proxy_di.forwarding.outcomes import Outcomes

__all__ = ["Journey", "Send"]

Send: TypeAlias = Callable[[Exchange], Coroutine[Any, Any, None]]
"""What a layer is: it makes an exchange have a response, or raises."""


class Journey:
    """Sends the exchanges of one upstream through admission, hedging and retries.

    Args:
        name: The upstream's.
        send: The retry loop, or hedging around it.
        picker: Picks destinations.
        outcomes: Where late failures are reported.
        admission: The upstream's own limits, ``None`` if it has none.
        observers: Gives the observer of an exchange; ``None`` for none.

    Attributes:
        name: The upstream's.
        observers: Gives the observer of an exchange, ``None`` for none.
        outcomes: What exchanges came to.
        send: Gets a response for an exchange that has begun, ``Exchange.response``.
        hold: Picks a destination for it and counts it as in use, without sending anything.
    """

    def __init__(
        self,
        name: str,
        send: Send,
        picker: Picker,
        outcomes: Outcomes,
        admission: Admission | None,
        observers: Observers | None,
    ) -> None:
        self.name: Final = name
        self.outcomes: Final = outcomes
        self._picker: Final = picker
        self._admission: Final = admission
        self.observers: Final = observers
        self.send: Send = send if admission is None else admission.around(send)
        self.hold: Send = self._hold if admission is None else admission.around(self._hold)

    def end(self, exchange: Exchange, failure: BaseException | None) -> Awaitable[None] | None:
        """End the exchange.

        Args:
            exchange: Has begun; it may have failed before it was sent.
            failure: What ended it before its time.

        Returns:
            What remains to be awaited.
        """
        if exchange.observer is not None:
            exchange.observer.ended(exchange, failure)
        if exchange.in_flight:
            exchange.end_attempt()
            if self._admission is not None:
                self._admission.leave()
            if isinstance(failure, ProxyError):
                self.outcomes.failed_late(exchange.destination, failure)
        return exchange.watcher.end(exchange)

    async def _hold(self, exchange: Exchange) -> None:
        destination = self._picker.pick(exchange.key)
        if destination is None:
            raise self._picker.unavailable(())
        exchange.begin_attempt(destination)
