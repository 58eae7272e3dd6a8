"""The upstream's own limits: requests in flight, with a bounded fair queue, and per window.

A place that becomes free goes to whoever has waited longest; a waiter whose client leaves
is gone from the queue at once. Limits of single destinations are the pick's affair.
"""

from __future__ import annotations

import asyncio

from fastapi_proxy_di.errors import LimitExceeded
from fastapi_proxy_di.events import Events, LimitHit
from fastapi_proxy_di.forwarding.watch import Watch
from fastapi_proxy_di.keeper import PoolKeeper


class Admission:
    """Lets requests of one upstream through.

    Args:
        keeper: Has the count of the window, and the pool's name.
        events: Told when a limit begins to refuse.
        max_in_flight: Requests at once, ``None`` for any number.
        queue: Requests that may wait for a place.
        queue_timeout: Seconds they wait at most.
        max_requests: Requests per window, ``None`` for any number.
        window: Seconds of the window.
    """

    def __init__(
        self,
        *,
        keeper: PoolKeeper,
        events: Events,
        max_in_flight: int | None,
        queue: int,
        queue_timeout: float,
        max_requests: int | None,
        window: float,
    ) -> None:
        self.max_in_flight = max_in_flight
        self.max_requests = max_requests
        self.in_flight = 0
        self._keeper = keeper
        self._events = events
        self._queue_limit = queue
        self._queue_timeout = queue_timeout
        self._window = window
        # A dict keeps the order of arrival and forgets a waiter in O(1).
        self._waiting: dict[asyncio.Future[None], None] = {}
        self._refusing: set[str] = set()

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
        if self.max_requests is not None:
            if self._keeper.requests_in_window >= self.max_requests:
                raise self._refused("max_requests", self._window)
            self._refusing.discard("max_requests")
        if self.max_in_flight is None or self.in_flight < self.max_in_flight:
            self.in_flight += 1
            self._refusing.discard("limits.max_in_flight")
        elif len(self._waiting) < self._queue_limit:
            await watch.run(self._wait(), "queue")
        else:
            raise self._refused("limits.max_in_flight", self._queue_timeout)
        self._keeper.requests_in_window += 1

    def leave(self) -> None:
        """Give the place to the next in the queue, or back."""
        if self.max_in_flight is None or self.in_flight <= self.max_in_flight:
            for waiter in self._waiting:
                if not waiter.done():
                    waiter.set_result(None)
                    del self._waiting[waiter]
                    return
        self.in_flight -= 1

    async def _wait(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = None
        try:
            async with asyncio.timeout(self._queue_timeout):
                await waiter
        except BaseException as error:
            if waiter in self._waiting:
                del self._waiting[waiter]
            else:
                self.leave()  # it was handed a place at the very moment it gave up
            if isinstance(error, TimeoutError):
                raise self._refused("limits.max_in_flight", self._queue_timeout) from None
            raise

    def _refused(self, limit: str, retry_after: float) -> LimitExceeded:
        name = self._keeper.pool.name
        if limit not in self._refusing:
            self._refusing.add(limit)
            self._events.emit(LimitHit(name, None, limit))
        error = LimitExceeded(f"{limit} of {name} is reached", upstream=name)
        error.retry_after = max(1.0, retry_after)
        return error
