"""The upstream's own limits: requests in flight, with a bounded fair queue, and per window.

A place that becomes free goes to whoever has waited longest; a waiter whose client leaves
is gone from the queue at once. Limits of single destinations are the pick's affair.
"""

from __future__ import annotations

import asyncio

from fastapi_proxy_di.errors import LimitExceeded
from fastapi_proxy_di.forwarding.deadlines import Watch
from fastapi_proxy_di.supervision.supervisor import Supervisor


class Admission:
    """Lets requests of one upstream through.

    Args:
        supervisor: Has the count of the window, and is told when a limit refuses.
        max_in_flight: Requests at once, ``None`` for any number.
        queue: Requests that may wait for a place.
        queue_timeout: Seconds they wait at most.
        max_requests: Requests per window, ``None`` for any number.
    """

    def __init__(
        self,
        *,
        supervisor: Supervisor,
        max_in_flight: int | None,
        queue: int,
        queue_timeout: float,
        max_requests: int | None,
    ) -> None:
        self.max_in_flight = max_in_flight
        self.max_requests = max_requests
        self.in_flight: int = 0
        self._supervisor = supervisor
        self._queue_limit = queue
        self._queue_timeout = queue_timeout
        self._loop = asyncio.get_running_loop()
        # A dict keeps the order of arrival and forgets a waiter in O(1).
        self._waiting: dict[asyncio.Future[None], None] = {}

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    async def enter(self, watch: Watch) -> None:
        """Take a place, waiting for one if the queue has room.

        Raises:
            LimitExceeded: There is none, or not in time.
            ProxyError: The exchange was interrupted while it waited.
        """
        supervisor = self._supervisor
        if self._window_is_full():
            raise self._refused("max_requests", supervisor.window_left)
        if self.max_in_flight is None or self.in_flight < self.max_in_flight:
            self.in_flight += 1
        elif len(self._waiting) < self._queue_limit:
            # In the queue before anything is awaited, so that its length is always true.
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiting[waiter] = None
            try:
                await watch.run(self._wait(waiter), "queue")
            except BaseException:
                if waiter in self._waiting:
                    del self._waiting[waiter]
                else:
                    self.leave()  # it was handed a place at the very moment it gave up
                raise
            if self._window_is_full():  # those before it in the queue took what was left
                self.leave()
                raise self._refused("max_requests", supervisor.window_left)
        else:
            raise self._refused("limits.max_in_flight", self._queue_timeout)
        supervisor.requests_in_window += 1

    def leave(self) -> None:
        """Give the place to the next in the queue, or back."""
        for waiter in self._waiting:
            if not waiter.done():  # or it is on its way out
                waiter.set_result(None)
                del self._waiting[waiter]
                return
        self.in_flight -= 1

    async def _wait(self, waiter: asyncio.Future[None]) -> None:
        try:
            async with asyncio.timeout(self._queue_timeout):
                await waiter
        except TimeoutError:
            raise self._refused("limits.max_in_flight", self._queue_timeout) from None

    def _window_is_full(self) -> bool:
        limit = self.max_requests
        return limit is not None and self._supervisor.requests_in_window >= limit

    def _refused(self, limit: str, retry_after: float) -> LimitExceeded:
        name = self._supervisor.pool.name
        self._supervisor.limit_hit(limit)
        error = LimitExceeded(f"{limit} of {name} is reached", upstream=name)
        error.retry_after = max(1.0, retry_after)
        return error
