"""Limiters of processes that share a store, and how much they admit. Imported by processes too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi_proxy_di.cluster.connecting import connect
from fastapi_proxy_di.cluster.signing import Signer
from fastapi_proxy_di.cluster.store import Contact, Store
from fastapi_proxy_di.limiting.rates import Rate, read_rates
from fastapi_proxy_di.limiting.shared import SharedLimiter

KEY = b"a key of sixteen"
MINUTE = read_rates(["100/minute"])


@asynccontextmanager
async def limiter_of(
    url: str, *, processes: int = 12, refuse: bool = False, timeout: float = 1.0
) -> AsyncIterator[tuple[SharedLimiter, Store]]:
    """Make a limiter of one process."""
    store = Store(connect(url, timeout=None, read_timeout=None), Contact(_ignore), timeout)
    try:
        signer = Signer(KEY, "shop")
        yield SharedLimiter(store, signer, "shop", lambda: processes, refuse=refuse), store
    finally:
        await store.aclose()


def _ignore(_: str) -> None:
    pass


async def admitted(
    limiter: SharedLimiter, number: int, rates: tuple[Rate, ...] = MINUTE, cost: int = 1
) -> int:
    """Ask that often at once; give how often there was room."""
    results = await asyncio.gather(
        *(limiter.take("n", "ada@example.org", rates, cost) for _ in range(number))
    )
    return sum(not any(one.wait for one in result) for result in results)
