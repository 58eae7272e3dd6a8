"""One process of an app, as far as it shares records through a store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from fastapi_proxy_di.cluster.cluster import Cluster
from fastapi_proxy_di.settings.cluster import ClusterSettings
from fastapi_proxy_di.supervision.events import Event, Events

__all__ = ["KEY", "STATE", "Process", "alive", "until"]

KEY = "a-key-of-the-tests"
STATE = "{shop}:state:billing"


class Process:
    """One process of the app, as far as it shares records."""

    def __init__(self, url: str, **settings: Any) -> None:
        self.events: list[str] = []
        events = Events()
        _ = events.subscribe(self._listen)
        given = {"store": url, "name": "shop", "key": KEY, "timeout": 0.25, **settings}
        self.cluster = Cluster(ClusterSettings(**given), events)
        self.seen: dict[str, Any] = {}
        _ = self.cluster.state.subscribe("billing", "drain", self.take)

    def take(self, subject: str, body: Any) -> None:
        """Remember the newest body."""
        self.seen[subject] = body["n"]

    def _listen(self, event: Event) -> None:
        self.events.append(type(event).__name__)

    async def write(self, subject: str, n: int) -> str | None:
        """Write a record."""
        self.seen[subject] = n
        return await self.cluster.state.write("billing", "drain", subject, {"n": n})


async def until(true: Callable[[], bool], seconds: float = 2.0) -> None:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not become true in time"
        await asyncio.sleep(0.01)


async def alive(cluster: Cluster, number: int, seconds: float = 5.0) -> None:
    """Wait until so many processes beat."""
    end = time.monotonic() + seconds
    while sum(one.alive for one in await cluster.members.all()) != number:
        assert time.monotonic() < end, "it did not become true in time"
        await asyncio.sleep(0.05)
