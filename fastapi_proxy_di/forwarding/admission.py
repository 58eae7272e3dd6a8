"""The queue of an upstream, and its own limits: requests in flight, requests per window.

Admission is a layer around the retry loop. A request is admitted while the upstream has a place
and, with a queue, a destination has room. Otherwise it waits: a free place goes to the request
that has waited longest, and a request whose client disconnects is removed at once. Which
destination has room is checked again at the pick; a request that finds none there, because
another attempt took the room meanwhile, waits again and keeps its turn.

With a store, the requests per window of all processes together are limited by a `SharedWindow`.

A waiting request stays in the queue until it has been admitted, so that no later one overtakes
it. Only the first is woken; it checks the limits itself, so that it may be woken in vain.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, Protocol
from weakref import WeakSet

from fastapi_proxy_di.balancing.only_destination import OnlyDestination
from fastapi_proxy_di.errors import LimitExceeded, ProxyError
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.key_cooling import KEY_LIMIT
from fastapi_proxy_di.forwarding.unavailable import closed, unavailable
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.settings import LimitSettings
from fastapi_proxy_di.supervision.supervisor import Supervisor

__all__ = ["Admission", "SharedWindow"]


class SharedWindow(Protocol):
    """The requests per window of all processes together."""

    @property
    def seconds_left(self) -> float:
        """Seconds until there may be room again."""
        ...

    def full(self, limit: int) -> bool:
        """Whether no request may be admitted now."""
        ...

    def take(self, limit: int) -> bool:
        """Take one request if this process has any left; else begin to fetch more."""
        ...

    async def fetched(self) -> None:
        """Wait until the requests that are being fetched have arrived."""
        ...


class Admission:
    """Admits requests of one upstream, queues them, or refuses them.

    Args:
        supervisor: Counts the requests of the window, and receives a report of each refusal.
        limits: Requests in flight, and how many may wait how long for a place.
        max_requests: Requests per window, ``None`` for any number.
        destinations: Gives the destinations that the requests go to; ``None`` for those of the
            supervisor's pool.

    Attributes:
        in_flight: Number of requests that were admitted and have not ended.
        unlimited: The journeys, as long as they are in use, whose requests are not admitted here.
        shared: Counts the requests of the window in all processes together; ``None`` without a
            store.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        limits: LimitSettings,
        max_requests: int | None,
        destinations: Callable[[], Iterable[Destination]] | None = None,
    ) -> None:
        self.in_flight: int = 0
        self.shared: SharedWindow | None = None
        self._supervisor: Final = supervisor
        pool = self._pool = supervisor.pool
        self._destinations: Final = destinations or (lambda: pool.destinations)
        self._limits = limits
        self._max_requests = max_requests
        self.unlimited: Final[WeakSet[object]] = WeakSet()
        self._loop: Final = asyncio.get_running_loop()
        # In the order of arrival; removes a waiter in O(1).
        self._waiting: Final[OrderedDict[_Waiter, None]] = OrderedDict()
        self._closed = False
        if limits.queue:
            self._pool.report_room(self._wake)

    def configure(self, limits: LimitSettings, max_requests: int | None) -> None:
        """Go by other limits from now on.

        Requests in flight stay counted. Those in the queue keep their turns and their time, also
        where the new settings have no queue.
        """
        if not self._limited:
            window = sum([one.requests_in_window for one in self._pool.destinations])
            # Requests to dynamic destinations, which the pool has none of, are counted already.
            counted = self._supervisor.requests_in_window
            self._supervisor.requests_in_window = max(counted, window)
        self._limits = limits
        self._max_requests = max_requests
        if limits.queue:
            self._pool.report_room(self._wake)
        self._end_reports()
        self._wake()

    @property
    def _limited(self) -> bool:
        limits = self._limits
        return bool(
            limits.queue or limits.max_in_flight is not None or self._max_requests is not None
        )

    def _end_reports(self) -> None:
        """End the reports of room once no queue is left."""
        if not self._limits.queue and not self._waiting:
            self._pool.report_room(None)

    @property
    def waiting(self) -> int:
        """Number of requests in the queue."""
        return len(self._waiting)

    def around(
        self, send: Callable[[Exchange], Coroutine[Any, Any, None]]
    ) -> Callable[[Exchange], Coroutine[Any, Any, None]]:
        """Wrap ``send`` in these limits; after a success the caller must call ``leave``."""

        async def admitted(exchange: Exchange) -> None:
            waiter = await self.enter(exchange)
            while True:
                try:
                    await send(exchange)
                except LimitExceeded as error:
                    self.leave()
                    # A key that cools must not wait: those behind it may have other keys. The
                    # same holds for one destination that is full.
                    if (
                        not self._limits.queue
                        or exchange.attempts
                        or error.limit == KEY_LIMIT
                        or isinstance(exchange.key, OnlyDestination)
                    ):
                        raise
                    waiter = await self._wait_for_turn(exchange, waiter)
                except BaseException:
                    self.leave()
                    raise
                else:
                    return

        return admitted

    async def enter(self, exchange: Exchange) -> _Waiter | None:
        """Take a place, waiting for one if the queue has room.

        Returns:
            The turn of a request that has waited, ``None`` for one that has not.

        Raises:
            LimitExceeded: There is no place, or none became free in time.
            ProxyError: The exchange was interrupted while it was in the queue.
        """
        if self._window_is_full():
            raise self._refused("max_requests", self._window_left())
        waiter: _Waiter | None = None
        if not self._waiting and self._has_place(exchange):
            self.in_flight += 1
        else:
            waiter = await self._wait_for_turn(exchange, None)
            if self._window_is_full():  # requests before it in the queue used the window up
                self.leave()
                raise self._refused("max_requests", self._window_left())
        if self.shared is not None and self._max_requests is not None:
            await self._take_shared(self.shared, self._max_requests)
        self._supervisor.requests_in_window += 1
        return waiter

    def leave(self) -> None:
        """Free the place, which the next waiting request may take."""
        self.in_flight -= 1
        self._wake()

    def close(self) -> None:
        """Refuse the requests in the queue, and later ones, because the upstream is closed."""
        self._closed = True
        for waiter in self._waiting:
            if not waiter.woken.done():
                waiter.woken.set_result(None)

    async def _wait_for_turn(self, exchange: Exchange, waiter: _Waiter | None) -> _Waiter:
        """Wait in the queue and take a place.

        Args:
            exchange: The exchange that waits.
            waiter: Its turn if it has waited before, which is then the first one.
        """
        if len(self._waiting) >= self._limits.queue and waiter is None:
            raise self._no_place()
        if waiter is None:
            waiter = _Waiter(self._loop.time() + self._limits.queue_timeout)
        # In the queue before anything is awaited, so that its length is right at once.
        waiter.woken = self._loop.create_future()
        first = waiter.waited
        self._waiting[waiter] = None
        if first:
            self._waiting.move_to_end(waiter, last=False)
        waiter.waited = True
        began = self._loop.time()
        try:
            await exchange.watcher.run(exchange, self._place(exchange, waiter), "queue")
            self.in_flight += 1
        finally:
            exchange.queued = (exchange.queued or 0.0) + self._loop.time() - began
            del self._waiting[waiter]
            if not self._limits.queue:
                self._end_reports()
            if self._has_place():
                self._wake()
        return waiter

    async def _place(self, exchange: Exchange, waiter: _Waiter) -> None:
        """Wait until it is the waiter's turn and there is a place."""
        try:
            async with asyncio.timeout_at(waiter.deadline):
                while not self._closed:
                    await waiter.woken
                    if self._has_place(exchange) and not self._closed:
                        return
                    waiter.woken = self._loop.create_future()
        except TimeoutError:
            raise self._no_place() from None
        raise closed(self._pool.name)

    def _wake(self) -> None:
        """Wake the request that has waited longest."""
        for waiter in self._waiting:
            if not waiter.woken.done():
                waiter.woken.set_result(None)
            return

    def _has_place(self, exchange: Exchange | None = None) -> bool:
        """Whether a request may be sent now, or fails at once because there is no destination."""
        limits = self._limits
        if self._all_in_flight():
            return False
        if exchange is not None and isinstance(exchange.key, OnlyDestination):
            return True  # the pick refuses it if its destination is full
        if not limits.queue and not self._waiting:
            return True  # the pick refuses what is full
        for tier in self._pool.tiers:
            for destination in tier:
                if not destination.full:
                    return True
        return not self._pool.tiers

    def _all_in_flight(self) -> bool:
        """Whether ``max_in_flight`` is reached.

        Requests that began while the upstream had no limits were not counted, because counting
        costs time. While there are some, those in flight at the destinations are counted.
        """
        limit = self._limits.max_in_flight
        if limit is None:
            return False
        if self.unlimited:
            at_destinations = sum([one.in_flight for one in self._destinations()])
            return max(self.in_flight, at_destinations) >= limit
        return self.in_flight >= limit

    async def _take_shared(self, shared: SharedWindow, limit: int) -> None:
        """Take one of the requests of all processes, or give the place back.

        It waits only if this process has used up what it had, usually at the begin of a window.
        """
        try:
            while not shared.take(limit):
                if shared.full(limit):
                    raise self._refused("max_requests", shared.seconds_left)
                await shared.fetched()
        except BaseException:
            self.leave()
            raise

    def _window_is_full(self) -> bool:
        limit = self._max_requests
        if limit is None:
            return False
        if self.shared is not None:
            return self.shared.full(limit)
        return self._supervisor.requests_in_window >= limit

    def _window_left(self) -> float:
        """Seconds until the window of ``max_requests`` turns."""
        return self._supervisor.window_left if self.shared is None else self.shared.seconds_left

    def _no_place(self) -> ProxyError:
        limits, supervisor = self._limits, self._supervisor
        if self._all_in_flight():
            return self._refused("limits.max_in_flight", limits.queue_timeout)
        if self._has_place():  # the place is for those in the queue
            return self._refused("limits.queue", limits.queue_timeout)
        supervisor.limits_reached([one for tier in self._pool.tiers for one in tier])
        return unavailable(self._pool, (), max(1.0, limits.queue_timeout), supervisor.window_left)

    def _refused(self, limit: str, retry_after: float) -> LimitExceeded:
        name = self._pool.name
        error = LimitExceeded(f"{limit} of {name} is reached", upstream=name)
        error.limit = limit
        error.announced = self._supervisor.limit_hit(limit)
        error.retry_after = max(1.0, retry_after)
        return error


class _Waiter:
    """The turn of one waiting request.

    Attributes:
        deadline: Loop time at which the request gives up.
        woken: Done when the request should look for a place.
        waited: Whether the request has been in the queue before.
    """

    __slots__ = ("deadline", "waited", "woken")

    woken: asyncio.Future[None]

    def __init__(self, deadline: float) -> None:
        self.deadline: Final = deadline
        self.waited: bool = False
