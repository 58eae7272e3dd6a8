"""Limiters of processes that share a store, and how much they admit. Imported by processes too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi_proxy_di.cluster.connecting import connect
from fastapi_proxy_di.cluster.signing import Signer
from fastapi_proxy_di.cluster.store import Contact, Store
from fastapi_proxy_di.limiting.limiter import Limit, Limiter
from fastapi_proxy_di.limiting.rates import read_rates
from fastapi_proxy_di.limiting.shared import SharedLimiter
from fastapi_proxy_di.limiting.window import Standing

KEY = b"a key of sixteen"


def limit_of(*rates: str) -> Limit:
    """Make a limit with these rates."""
    return Limit("n", read_rates(rates))


MINUTE = limit_of("100/minute")


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


async def standings(
    limiter: Limiter, limit: Limit, cost: int = 1, key: str | None = "ada@example.org"
) -> Sequence[Standing]:
    """Ask once."""
    taken = limiter.take(limit, key, cost)
    return await taken if isinstance(taken, asyncio.Future) else taken


async def admitted(
    limiter: Limiter, number: int, limit: Limit = MINUTE, key: str | None = "ada@example.org"
) -> int:
    """Ask that often at once; give how often there was room."""
    results = await asyncio.gather(*(standings(limiter, limit, 1, key) for _ in range(number)))
    return sum(not any(one.wait for one in result) for result in results)
