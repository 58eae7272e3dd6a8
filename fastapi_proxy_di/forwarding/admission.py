"""The upstream's own limits: requests in flight, with a bounded queue, and per window.

Admission is a layer around the retry loop. A free place goes to the request that has waited
longest; a request whose client disconnects is removed from the queue at once. The limits of
single destinations are checked at the pick.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi_proxy_di.errors import LimitExceeded
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.settings import LimitSettings
from fastapi_proxy_di.supervision.supervisor import Supervisor


class Admission:
    """Admits requests of one upstream, queues them, or refuses them.

    Args:
        supervisor: Counts the requests of the window, and receives a report of each refusal.
        limits: Requests in flight, and how many may wait how long for a place.
        max_requests: Requests per window, ``None`` for any number.
    """

    def __init__(
        self, supervisor: Supervisor, limits: LimitSettings, max_requests: int | None
    ) -> None:
        self.in_flight: int = 0
        self._supervisor = supervisor
        self._limits = limits
        self._max_requests = max_requests
        self._loop = asyncio.get_running_loop()
        # A dict keeps the order of arrival and removes a waiter in O(1).
        self._waiting: dict[asyncio.Future[None], None] = {}

    @property
    def waiting(self) -> int:
        """Number of requests in the queue."""
        return len(self._waiting)

    def around(
        self, send: Callable[[Exchange], Coroutine[Any, Any, None]]
    ) -> Callable[[Exchange], Coroutine[Any, Any, None]]:
        """Wrap ``send`` in these limits; after a success the caller must call ``leave``."""

        async def admitted(exchange: Exchange) -> None:
            await self.enter(exchange)
            try:
                await send(exchange)
            except BaseException:
                self.leave()
                raise

        return admitted

    async def enter(self, exchange: Exchange) -> None:
        """Take a place, waiting for one if the queue has room.

        Raises:
            LimitExceeded: There is no place, or none became free in time.
            ProxyError: The exchange was interrupted while it was in the queue.
        """
        supervisor, limits = self._supervisor, self._limits
        if self._window_is_full():
            raise self._refused("max_requests", supervisor.window_left)
        if limits.max_in_flight is None or self.in_flight < limits.max_in_flight:
            self.in_flight += 1
        elif len(self._waiting) < limits.queue:
            # In the queue before anything is awaited, so that its length is right at once.
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiting[waiter] = None
            try:
                await exchange.watcher.run(exchange, self._wait(waiter), "queue")
            except BaseException:
                if waiter in self._waiting:
                    del self._waiting[waiter]
                else:
                    self.leave()  # the request got a place at the moment at which it gave up
                raise
            if self._window_is_full():  # requests before it in the queue used the window up
                self.leave()
                raise self._refused("max_requests", supervisor.window_left)
        else:
            raise self._refused("limits.max_in_flight", limits.queue_timeout)
        supervisor.requests_in_window += 1

    def leave(self) -> None:
        """Give the place to the next waiting request, or free it."""
        for waiter in self._waiting:
            if not waiter.done():  # done: the waiting request was cancelled
                waiter.set_result(None)
                del self._waiting[waiter]
                return
        self.in_flight -= 1

    async def _wait(self, waiter: asyncio.Future[None]) -> None:
        try:
            async with asyncio.timeout(self._limits.queue_timeout):
                await waiter
        except TimeoutError:
            raise self._refused("limits.max_in_flight", self._limits.queue_timeout) from None

    def _window_is_full(self) -> bool:
        limit = self._max_requests
        return limit is not None and self._supervisor.requests_in_window >= limit

    def _refused(self, limit: str, retry_after: float) -> LimitExceeded:
        name = self._supervisor.pool.name
        self._supervisor.limit_hit(limit)
        error = LimitExceeded(f"{limit} of {name} is reached", upstream=name)
        error.retry_after = max(1.0, retry_after)
        return error
