"""Counts in the store; while it is lost, in the memory of this process.

Needs the extra ``redis``, so it is imported only by apps that have a store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from fastapi_proxy_di.cluster.cluster import Cluster
from fastapi_proxy_di.cluster.connecting import connect
from fastapi_proxy_di.cluster.keys import Keys
from fastapi_proxy_di.cluster.signing import Signer
from fastapi_proxy_di.cluster.store import Store, StoreLost
from fastapi_proxy_di.limiting.limiter import LimitsUnavailable, counted
from fastapi_proxy_di.limiting.memory import Memory
from fastapi_proxy_di.limiting.rates import Rate
from fastapi_proxy_di.limiting.store import take
from fastapi_proxy_di.limiting.window import Standing
from fastapi_proxy_di.settings.cluster import ClusterSettings

__all__ = ["SharedLimiter", "shared_limiter"]


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

    async def take(
        self, name: str, key: str | None, rates: Sequence[Rate], cost: int
    ) -> Sequence[Standing]:
        """Take ``cost`` from all rates, or from none, as `Limiter` says."""
        keys = [self._keys.limit(self._signer.hide(counted(name, key, rate))) for rate in rates]
        if not self._store.contact.lost:
            try:
                return await take(self._store, keys, rates, cost)
            except StoreLost:
                pass
        if self._refuse:
            raise LimitsUnavailable
        shares = [rate.share(self._processes()) for rate in rates]
        # What costs more than the share of this process takes all of it, instead of never passing.
        cost = min(cost, *(share.limit for share in shares))
        return self._memory.take(keys, shares, cost, time.monotonic_ns() // 1000)

    async def aclose(self) -> None:
        """Close the connections to the store."""
        await self._store.aclose()
