"""Processes in one event loop that count attempts and share the totals, with a real store."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from fastapi_proxy_di.cluster.cluster import Cluster
from fastapi_proxy_di.cluster.totals_rows import Totals, readings_of
from fastapi_proxy_di.observability.families import Numbers, Readings
from fastapi_proxy_di.observability.metrics import Metrics
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.settings import ClusterSettings, DestinationSettings
from fastapi_proxy_di.supervision.events import Events
from tests.cluster.sharing import KEY

__all__ = ["INTERVAL", "A", "B", "CountingProcess", "numbers_of"]

A, B = "http://10.0.0.1", "http://10.0.0.2:8080"
INTERVAL = 0.1


def numbers_of(*urls: str, upstream: str = "billing", **now: Any) -> Numbers:
    """Give the numbers of an upstream with these destinations."""
    destinations = [Destination(DestinationSettings(url=url)) for url in urls]
    return Numbers(
        upstream,
        Metrics(upstream, destinations, **now),
        lambda: destinations,
        lambda _: (1, 2),
        lambda: 3,
    )


class CountingProcess:
    """One process of an app with one upstream, as far as it counts.

    Args:
        url: Address of the store.
        urls: Addresses of the destinations.
        interval: Seconds between two reports.
    """

    def __init__(self, url: str, urls: Iterable[str] = (A, B), interval: float = INTERVAL) -> None:
        settings = ClusterSettings(
            store=url, name="shop", key=KEY, timeout=1.0, snapshot_interval=interval
        )
        self.cluster = Cluster(settings, Events())
        self.totals = self.cluster.totals
        self.numbers = numbers_of(*urls)
        self.end = self.totals.add(self.numbers)
        _ = self.cluster.state.subscribe("billing", "drain", lambda *_: None)

    @property
    def name(self) -> str:
        """Name of the process."""
        return self.cluster.state.process

    def count(self, number: int = 1, url: str = A, result: Any = ("GET", 200, None)) -> None:
        """Count attempts with their durations."""
        metrics = self.numbers.metrics
        counts = next(one for one in metrics.all() if one.url == url)
        for _ in range(number):
            metrics.requests += 1
            counts.attempts += 1
            counts.first_byte.observe(0.004)
            counts.series(*result).observe(0.02)

    async def read(self) -> Readings:
        """Read the totals of all processes."""
        alive = {one.process for one in await self.cluster.members.all() if one.alive}
        return readings_of("billing", await self.totals.all("billing", alive))

    async def sums(self) -> SimpleNamespace:
        """Give the sums over all destinations."""
        counts = (await self.read()).counts
        assert isinstance(counts, Totals)
        return SimpleNamespace(
            requests=counts.requests,
            attempts=sum(one.attempts for one in counts.all()),
            durations=sum(
                durations.count for one in counts.all() for durations in one.durations.values()
            ),
            by_url={one.url: one.attempts for one in counts.all()},
        )

    def stop(self) -> None:
        """Stop as SIGSTOP would: nothing beats, reports or looks."""
        for task in tuple(self.cluster._tasks):
            task.cancel()
