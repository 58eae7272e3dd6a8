"""Hedging: a request without a response after a while is also sent to a second destination.

Hedging is a layer around the retry loop: it runs the loop for the request, and after a while
once more for a branch of the request, and takes the response that comes first. The other run is
cancelled, and no failure is counted. Only repeatable requests without a body are hedged, and
only while the retry budget has one left, so that a slow upstream does not get twice the requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from time import monotonic
from typing import Any, Final

from fastapi_proxy_di.errors import ClientDisconnected, ProxyError
from fastapi_proxy_di.forwarding.deadlines import Deadlines
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.retries import MAX_CONNECT_RETRIES, RetryBudget
from fastapi_proxy_di.forwarding.retry_loop import RetryLoop
from fastapi_proxy_di.forwarding.watcher import Watcher
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.settings import UpstreamSettings

__all__ = ["Hedging"]


class Hedging:
    """Sends repeatable requests twice if the first response is slow.

    Args:
        settings: The settings of the upstream. All its timeouts apply to each branch, except
            the total one, which applies to the request.
        hedge_after: Seconds without a response until the second branch starts.
        retry_loop: Makes the attempts of each branch.
        budget: The retry budget.
    """

    def __init__(
        self,
        settings: UpstreamSettings,
        hedge_after: float,
        retry_loop: RetryLoop,
        budget: RetryBudget,
    ) -> None:
        self._name: Final = settings.name
        self._hedge_after: Final = hedge_after
        self._retry_loop: Final = retry_loop
        self._budget: Final = budget
        deadlines = Deadlines.of(settings.timeouts)._replace(total=None)
        self._watcher: Final = Watcher(settings.name, deadlines)

    def send(self, exchange: Exchange) -> Coroutine[Any, Any, None]:
        """Send the exchange through the retry loop, hedged if it may be sent twice."""
        if exchange.body is not None or exchange.upgrade or not exchange.repeatable:
            return self._retry_loop.send(exchange)
        self._budget.requests += 1
        return self._hedged(exchange)

    async def _hedged(self, exchange: Exchange) -> None:
        try:
            winner = await exchange.watcher.run(exchange, self._race(exchange), "hedged")
        except ProxyError as error:
            exchange.attempts = tuple(error.attempts)  # for the access record
            error.request_sent = exchange.request_sent
            raise
        exchange.adopt(winner.exchange)

    async def _race(self, exchange: Exchange) -> _Branch:
        branches = [self._start(exchange.branch(avoid=()))]
        winner: _Branch | None = None
        try:
            await asyncio.wait((branches[0].task,), timeout=self._hedge_after)
            if not branches[0].task.done():
                other = self._other(branches[0].exchange)
                if other is not None:
                    first = branches[0].exchange.destination
                    branches.append(self._start(exchange.branch(avoid=(first,)), other))
            running = {branch.task for branch in branches}
            while running:
                _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                winner = next((branch for branch in branches if branch.won), None)
                if winner is not None:
                    return winner
            # Both failed: raise the error that the request would have got without hedging.
            branches[0].task.result()
            raise AssertionError  # pragma: no cover - result raises
        finally:
            exchange.request_sent = any(branch.has_sent for branch in branches)
            for branch in branches:
                if branch is winner:
                    self._watcher.end(branch.exchange)
                else:
                    branch.task.cancel()
                    branch.task.add_done_callback(branch.lost)

    def _start(self, exchange: Exchange, other: Destination | None = None) -> _Branch:
        exchange.watcher = self._watcher
        self._watcher.start(exchange)
        task = asyncio.get_running_loop().create_task(
            self._retry_loop.run(exchange, other), name=f"hedged {self._name}"
        )
        return _Branch(exchange, task)

    def _other(self, first: Exchange) -> Destination | None:
        """Pick the destination of the second branch, ``None`` if there may be no such branch."""
        dials = first.dials
        assert dials is not None
        if dials.further >= MAX_CONNECT_RETRIES or not first.in_flight:
            return None  # no further dial is allowed, or the first waits in an outage
        if self._budget.left(monotonic()) < 1:
            return None
        other = self._retry_loop.pick(first.key, (first.destination,))
        if other is not None:
            self._budget.withdraw(monotonic())
            dials.further += 1
        return other


class _Branch:
    """One of the two runs of the retry loop."""

    __slots__ = ("exchange", "task")

    def __init__(self, exchange: Exchange, task: asyncio.Task[None]) -> None:
        self.exchange: Final = exchange
        self.task: Final = task

    @property
    def won(self) -> bool:
        """Whether the branch has a response."""
        return self.task.done() and not self.task.cancelled() and self.task.exception() is None

    @property
    def has_sent(self) -> bool:
        """Whether the branch has sent any byte of the request."""
        return self.exchange.request_sent or self.exchange.transport_exchange is not None

    def lost(self, task: object) -> None:
        """End the branch that did not win, and drop its response if one came too late."""
        _ = self.exchange.watcher.end(self.exchange)
        if self.won:
            self.exchange.response.fail(ClientDisconnected("another response came first"))
            self.exchange.end_attempt(asyncio.CancelledError())
