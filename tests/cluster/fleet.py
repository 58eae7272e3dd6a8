"""Processes of an app in one event loop, with a real store: each has its own pool and clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from random import Random
from types import TracebackType
from typing import Any, Final, Self, cast

from fastapi_proxy_di.cluster.cluster import Cluster
from fastapi_proxy_di.health.ejection import Ejector
from fastapi_proxy_di.health.slow_start import SlowStart
from fastapi_proxy_di.health.thresholds import Threshold
from fastapi_proxy_di.observability.families import Numbers
from fastapi_proxy_di.observability.metrics import Metrics
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.settings import ClusterSettings, EjectionSettings, HealthSettings
from fastapi_proxy_di.supervision.events import Event, Events
from fastapi_proxy_di.supervision.prober import Prober
from fastapi_proxy_di.supervision.supervisor import Supervisor
from fastapi_proxy_di.transport.protocol import Transport
from fastapi_proxy_di.wire.addresses import Address
from tests.pools.samples import pool_of
from tests.support.redis_servers import RedisServer

__all__ = ["INTERVAL", "Fleet", "Process", "ejected", "traffic", "within"]

INTERVAL: Final = 0.3


async def within(seconds: float, holds: Callable[[], bool]) -> float:
    """Wait until ``holds``; give the seconds that it took, and fail after ``seconds``."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while not holds():
        assert loop.time() - began < seconds, "not in time"
        await asyncio.sleep(0.005)
    return loop.time() - began


class Process:
    """One process: the parts of an upstream that share with those of other processes.

    Attributes:
        down: Addresses whose probes fail here; ``None`` for all.
        probed: The time and the address of each probe.
        told: The events.
        events: Emits them.
        metrics: Counts its requests, if the test lets it.
        alone: Whether it sends all probes itself.
    """

    def __init__(
        self,
        url: str,
        *,
        destinations: int = 4,
        interval: float = INTERVAL,
        fall: int = 2,
        snapshot: float = 5.0,
        **ejection: Any,
    ) -> None:
        self.alone = False
        self.down: set[str] | None = set()
        self.probed: list[tuple[float, str]] = []
        self.told: list[Event] = []
        self.pool = pool = pool_of(destinations)
        self.metrics = Metrics("billing", pool.destinations)
        self.events = events = Events()
        events.subscribe(self.told.append)
        self._loop = asyncio.get_running_loop()
        health = HealthSettings(path="/health", interval=interval, timeout=0.1, fall=fall)
        self.supervisor = Supervisor(
            self.pool,
            Ejector(self.pool, EjectionSettings(**ejection)),
            Threshold(health.fall, health.rise),
            SlowStart(0),
            events,
            window=15,
        )
        self.prober = Prober(
            supervisor=self.supervisor,
            settings=health,
            transport_for=self._transport,
            headers=[],
            random=Random(),
        )
        settings = ClusterSettings(
            store=url, name="shop", key="k" * 32, timeout=1.0, snapshot_interval=snapshot
        )
        self.cluster = Cluster(settings, events)
        self.store = self.cluster.store
        self.state = self.cluster.state
        self.shared = self.cluster.share(
            self.supervisor,
            self.prober,
            lambda url, weight: None,
            Random(),
            lambda: self.alone,
            Numbers("billing", self.metrics, lambda: pool.destinations, lambda _: (0, 0), int),
        )
        self.health = self.shared.health
        self._tasks: list[asyncio.Task[None]] = []

    def __getitem__(self, index: int) -> Destination:
        return self.pool.destinations[index]

    def _transport(self, destination: Destination) -> tuple[Transport, Address]:
        address = destination.settings.probe_address
        return cast("Transport", _Transport(self, destination.url)), address

    async def start(self) -> None:
        """Start as an upstream does: leases, a sweep of probes, then all tasks."""
        await self.cluster.start()
        await self.shared.start()
        await self.prober.sweep()
        self.prober.start()
        self._tasks += [self._loop.create_task(one) for one, _ in self.health.tasks()]

    async def stop(self) -> None:
        """End in order."""
        self.supervisor.close()
        self.shared.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(self.prober.aclose(), *self._tasks, return_exceptions=True)
        await self.cluster.aclose()

    async def kill(self) -> None:
        """End without a word to others."""
        self.store.contact.lost = True  # so that nothing more is sent
        await self.stop()

    def fail(self, *indexes: int) -> None:
        """Let so many requests to each destination fail that it is ejected."""
        for index in indexes:
            for _ in range(5):
                self.supervisor.failed(self[index], "connect")

    def succeed(self, *indexes: int) -> None:
        """Let a request to each destination succeed."""
        for index in indexes:
            self[index].successes += 1

    @property
    def holds(self) -> bool:
        """Whether this process has the lease to probe."""
        return self.health.probing.holds

    @property
    def ejected(self) -> list[int]:
        """The destinations that are ejected here."""
        return [n for n, one in enumerate(self.pool.destinations) if one.ejected]

    @property
    def unhealthy(self) -> list[int]:
        """The destinations that are unhealthy here."""
        return [n for n, one in enumerate(self.pool.destinations) if not one.healthy]

    def kinds(self) -> list[type[Event]]:
        """The kinds of the events."""
        return [type(one) for one in self.told]


class _Transport:
    def __init__(self, process: Process, url: str) -> None:
        self._process = process
        self._url = url
        self.status = 0

    async def start(self, request: object, body: bytes, *, more: bool) -> Self:
        process = self._process
        process.probed.append((asyncio.get_running_loop().time(), self._url))
        return self

    async def head(self) -> None:
        down = self._process.down
        self.status = 503 if down is None or self._url in down else 200

    async def read(self) -> bytes:
        return b""

    def close(self) -> None:
        pass


class Fleet:
    """Several processes, from their start to their end.

    Args:
        urls: Address of the store for each process.
        given: Arguments of each process.
    """

    def __init__(self, urls: Iterable[str], **given: Any) -> None:
        self.processes = [Process(url, **given) for url in urls]

    async def __aenter__(self) -> list[Process]:
        for one in self.processes:
            await one.start()
        await within(
            3, lambda: all(one.state.alive == len(self.processes) for one in self.processes)
        )
        return self.processes

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for one in self.processes:
            await one.stop()


async def traffic(processes: list[Process], server: RedisServer, destinations: int = 4) -> None:
    """Let all processes have sent requests to all destinations."""
    for one in processes:
        one.succeed(*range(destinations))

    def marks() -> int:
        keys = server.client.keys("{shop}:traffic:*")
        return sum(server.client.zcard(key) for key in keys)

    await within(3, lambda: marks() == destinations * len(processes))


def ejected(processes: list[Process], *indexes: int) -> bool:
    """Whether all processes have ejected these destinations, and no others."""
    return all(one.ejected == list(indexes) for one in processes)
