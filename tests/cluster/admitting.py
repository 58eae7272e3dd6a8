"""One process that admits requests of an upstream whose ``max_requests`` all processes share.

Run as a program it admits as many as it can for some seconds, and prints when: the address of the
store, the length of a window in seconds, the limit, and how long.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from functools import partial
from typing import Any

from fastapi_proxy_di.cluster.cluster import Cluster, started
from fastapi_proxy_di.cluster.requests import SharedRequests
from fastapi_proxy_di.errors import LimitExceeded
from fastapi_proxy_di.forwarding.admission import Admission
from fastapi_proxy_di.health.ejection import Ejector
from fastapi_proxy_di.health.slow_start import SlowStart
from fastapi_proxy_di.health.thresholds import Threshold
from fastapi_proxy_di.settings import ClusterSettings, EjectionSettings, LimitSettings
from fastapi_proxy_di.supervision.events import Events
from fastapi_proxy_di.supervision.supervisor import Supervisor
from tests.forwarding.samples import watched_exchange
from tests.pools.samples import pool_of


class AdmittingProcess:
    """The parts of a process that admit requests.

    Args:
        url: Address of the store.
        limit: The limit of all processes.
        window: Seconds of a window.
        refuse: Whether nothing is admitted while the store is lost.
    """

    def __init__(self, url: str, limit: int, window: float = 1e6, *, refuse: bool = False) -> None:
        lost: Any = "refuse" if refuse else "local"
        settings = ClusterSettings(
            store=url, name="shop", key="k" * 16, timeout=1.0, on_store_lost=lost
        )
        self.cluster = Cluster(settings, Events())
        pool = pool_of(1)
        self.supervisor = Supervisor(
            pool,
            Ejector(pool, EjectionSettings()),
            Threshold(2, 1),
            SlowStart(0),
            Events(),
            window=window,
        )
        self._tasks: set[asyncio.Task[Any]] = set()
        self.requests = SharedRequests(
            self.cluster.store,
            self.cluster.state,
            self.supervisor,
            partial(started, tasks=self._tasks),
            refuse=refuse,
        )
        self.admission = Admission(self.supervisor, LimitSettings(), limit)
        self.admission.shared = self.requests

    async def admitted(self, number: int) -> int:
        """Let that many requests arrive at once; give how many were admitted."""
        return sum(await asyncio.gather(*(self.admit() for _ in range(number))))

    async def admit(self) -> bool:
        """Let a request arrive and end."""
        exchange = watched_exchange(None)
        try:
            await self.admission.enter(exchange)
        except LimitExceeded:
            return False
        finally:
            assert exchange.watcher.end(exchange) is None
        self.admission.leave()
        return True

    async def aclose(self) -> None:
        """End all."""
        if self._tasks:
            await asyncio.wait(self._tasks)
        self.supervisor.close()
        await self.cluster.aclose()


async def _main(url: str, window: str, limit: str, seconds: str) -> None:
    process = AdmittingProcess(url, int(limit), float(window))
    print("ready", flush=True)
    end = time.time() + float(seconds)
    found = []
    while time.time() < end:
        before = time.time()
        if await process.admit():
            found.append((before, time.time()))
        else:
            await asyncio.sleep(0.001)
    print(json.dumps(found))
    await process.aclose()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
