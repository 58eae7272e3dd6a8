"""Counts in the store; while it is lost, in the memory of this process.

The requests of one turn of the event loop are counted in one trip. Needs the extra ``redis``, so it
is imported only by apps that have a store.
"""

from __future__ import annotations

import asyncio
import logging
import time
from asyncio import Future
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Final, NamedTuple

from fastapi_proxy_di.cluster.cluster import Cluster
from fastapi_proxy_di.cluster.connecting import connect
from fastapi_proxy_di.cluster.keys import Keys
from fastapi_proxy_di.cluster.signing import Signer
from fastapi_proxy_di.cluster.store import Store, StoreLost
from fastapi_proxy_di.limiting.limiter import Limit, LimitsUnavailable
from fastapi_proxy_di.limiting.memory import Memory
from fastapi_proxy_di.limiting.store import Take, numbers_of, take_all
from fastapi_proxy_di.limiting.window import Standing
from fastapi_proxy_di.settings.cluster import ClusterSettings

__all__ = ["SharedLimiter", "shared_limiter"]

_TAKES: Final = 100
"""The most takes of one trip: the store does nothing else meanwhile."""


def shared_limiter(cluster: Cluster, settings: ClusterSettings) -> SharedLimiter:
    """Make the limiter of an app with a store; it has a client of its own.

    Args:
        cluster: What finds out whether the store can be reached, and how many processes there are.
        settings: The settings, with a store.
    """
    assert settings.store is not None
    assert settings.name is not None
    address, timeout = settings.store.get_secret_value(), settings.timeout
    # Without timeouts of its own: `Store` limits each command.
    client = connect(address, timeout=None, read_timeout=None)
    return SharedLimiter(
        Store(client, cluster.store.contact, timeout),
        cluster.signer,
        settings.name,
        lambda: cluster.state.alive,
        refuse=settings.on_store_lost == "refuse",
    )


_logger = logging.getLogger("fastapi_proxy_di.limits")


class SharedLimiter:
    """Counts in the store; while it is lost, each process has its share of the limits.

    Args:
        store: The store.
        signer: Hides the keys.
        cluster: Name of the app in the store.
        processes: Gives how many processes the app had when they were last counted.
        refuse: Whether everything is refused while the store is lost.
    """

    def __init__(
        self,
        store: Store,
        signer: Signer,
        cluster: str,
        processes: Callable[[], int],
        *,
        refuse: bool,
    ) -> None:
        self._store: Final = store
        self._signer: Final = signer
        self._keys: Final = Keys(cluster)
        self._processes: Final = processes
        self._refuse: Final = refuse
        self._memory: Final = Memory()
        self._waiting: list[_Waiting] = []
        self._trips: Final[set[asyncio.Task[None]]] = set()

    def take(
        self, limit: Limit, key: str | None, cost: int
    ) -> Sequence[Standing] | Future[Sequence[Standing]]:
        """Take ``cost`` from all rates, or from none, as `Limiter` says."""
        keys = [self._keys.limit(self._signer.hide(one)) for one in limit.counted(key)]
        if self._store.contact.lost:
            return self._take_locally(limit, keys, cost)
        loop = asyncio.get_running_loop()
        take = Take(keys, numbers_of(limit.rates, cost))
        waiting = _Waiting(limit, cost, take, loop.create_future())
        if not self._waiting:
            loop.call_soon(self._send, context=Context())
        self._waiting.append(waiting)
        return waiting.future

    async def aclose(self) -> None:
        """Close the connections to the store."""
        self._send()
        if self._trips:  # each is limited by `cluster.timeout`
            await asyncio.wait(self._trips)
        await self._store.aclose()

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        loop = asyncio.get_running_loop()
        for start in range(0, len(waiting), _TAKES):
            trip = self._trip(waiting[start : start + _TAKES])
            task = loop.create_task(trip, name="limits", context=Context())
            self._trips.add(task)
            task.add_done_callback(self._trips.discard)

    async def _trip(self, waiting: list[_Waiting]) -> None:
        nothing: list[list[Standing]] = [[] for _ in waiting]
        try:
            results = await take_all(self._store, [one.take for one in waiting])
        except StoreLost:
            results = nothing
        except Exception:
            # Whatever it is, the requests must not wait for ever.
            _logger.exception("limits: a response of the store cannot be read")
            results = nothing
        for one, result in zip(waiting, results, strict=True):
            if one.future.done():  # the client has left
                continue
            try:
                one.future.set_result(
                    result or self._take_locally(one.limit, one.take.keys, one.cost)
                )
            except LimitsUnavailable as error:
                one.future.set_exception(error)

    def _take_locally(self, limit: Limit, keys: Sequence[str], cost: int) -> Sequence[Standing]:
        """Take from the share of this process.

        Raises:
            LimitsUnavailable: The settings say so.
        """
        if self._refuse:
            raise LimitsUnavailable
        processes = self._processes()
        if all(cost <= rate.limit for rate in limit.rates):
            # What costs more than the share of this process takes all of it, instead of never
            # passing. What costs more than a limit never passes.
            cost = min(cost, *(rate.share(processes) for rate in limit.rates))
        return self._memory.take(
            [key.encode() for key in keys],
            limit.rates,
            cost,
            time.monotonic_ns() // 1000,
            processes=processes,
        )


class _Waiting(NamedTuple):
    """A take that waits for the store."""

    limit: Limit
    cost: int
    take: Take
    future: Future[Sequence[Standing]]
