"""What one app shares with its other processes: started before its upstreams, closed after them.

Nothing of it is on the path of a request, but where ``max_requests`` has none left in this process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from contextvars import Context
from functools import partial
from random import Random
from time import monotonic
from typing import Any, Final
from weakref import WeakValueDictionary

from fastapi_proxy_di.cluster.connecting import connect
from fastapi_proxy_di.cluster.members import Applied, Member, Members, UpstreamCounts, process_name
from fastapi_proxy_di.cluster.probing_upstream import SharedHealth
from fastapi_proxy_di.cluster.reader import Reader
from fastapi_proxy_di.cluster.requests import SharedRequests
from fastapi_proxy_di.cluster.shared_upstream import SharedUpstream
from fastapi_proxy_di.cluster.signing import Signer
from fastapi_proxy_di.cluster.state import SharedState
from fastapi_proxy_di.cluster.store import Contact, Store
from fastapi_proxy_di.cluster.store import StoreLost as Lost
from fastapi_proxy_di.cluster.totals import SharedTotals
from fastapi_proxy_di.cluster.totals_rows import Rows, readings_of
from fastapi_proxy_di.observability.families import Numbers, Readings
from fastapi_proxy_di.settings.cluster import ClusterSettings
from fastapi_proxy_di.supervision.events import Events, StoreBack, StoreLost
from fastapi_proxy_di.supervision.prober import Prober
from fastapi_proxy_di.supervision.supervisor import Supervisor

__all__ = ["Cluster", "started"]

_START_SECONDS: Final = 1.0
"""How long a start tries to reach the store; then it goes on without."""

_START_PAUSE_SECONDS: Final = 0.05
_ACKNOWLEDGED_SECONDS: Final = 2.0

_logger = logging.getLogger("fastapi_proxy_di.cluster")


class Cluster:
    """The store of an app, and what its processes share there.

    Args:
        settings: The settings, with a store.
        events: Emits `StoreLost` and `StoreBack`, for each upstream.

    Attributes:
        signer: Signs and checks what is written.
        store: Runs scripts in the store.
        state: The records that the processes share.
        members: The processes.
        totals: What they have counted.
    """

    def __init__(self, settings: ClusterSettings, events: Events) -> None:
        assert settings.store is not None
        assert settings.name is not None
        assert settings.key is not None
        address, timeout = settings.store.get_secret_value(), settings.timeout
        self._events: Final = events
        self._refuse: Final = settings.on_store_lost == "refuse"
        self._contact: Final = Contact(self._changed)
        self.signer: Final = Signer(settings.key.get_secret_value().encode(), settings.name)
        # Without timeouts of its own: `Store` limits each command.
        client = connect(address, timeout=None, read_timeout=None)
        self.store: Final = Store(client, self._contact, timeout)
        self.state: Final = SharedState(self.store, self.signer, settings.name, process_name())
        self._reader: Final = Reader(
            self.state,
            lambda: connect(address, timeout=timeout, read_timeout=None),
            self._applied,
        )
        self.totals: Final = SharedTotals(
            self.store,
            self.signer,
            self.state,
            settings.snapshot_interval,
            Random(),  # noqa: S311  # spreads load, keeps no secret
        )
        self.members: Final = Members(
            self.store, self.signer, self.state, self._reader.restart, self._counts
        )
        self._tasks: Final[set[asyncio.Task[Any]]] = set()
        self._writes: Final[set[asyncio.Task[Any]]] = set()
        # By its running upstream, which ends earlier than the cluster, if code started it.
        self._shared: Final[WeakValueDictionary[str, SharedUpstream]] = WeakValueDictionary()
        self._started = False
        self._reason = ""

    async def start(self) -> None:
        """Read the records, if the store can be reached; then follow and beat."""
        end = monotonic() + _START_SECONDS
        while True:
            try:
                await self.members.beat()
                await self.state.read()
                break
            except Lost:
                if monotonic() >= end:
                    break
                await asyncio.sleep(_START_PAUSE_SECONDS)
        self._started = True
        if self._contact.lost:
            self._tell(self._reason)
        _ = started(self._reader.run(), "reader of the cluster", self._tasks)
        _ = started(self.members.run(), "beats of the cluster", self._tasks)
        _ = started(self.totals.run(), "totals of the cluster", self._tasks)

    async def read(self) -> None:
        """Read all records now, for an upstream that was added; not if the store is lost."""
        with suppress(Lost):
            await self.state.read()

    def share(
        self,
        supervisor: Supervisor,
        prober: Prober,
        weigh: Callable[[str, float], object],
        random: Random,
        probes_alone: Callable[[], bool],
        numbers: Numbers,
    ) -> SharedUpstream:
        """Share an upstream.

        Args:
            supervisor: The supervisor of the upstream.
            prober: Its prober.
            weigh: Gives an address a weight, whatever the settings say.
            random: The source of jitter.
            probes_alone: Whether each process sends all probes itself, as for the policy
                ``latency``.
            numbers: What its metrics are read from.
        """
        store, state, events = self.store, self.state, self._events
        health = SharedHealth(
            supervisor, prober, store, state, events, random, probes_alone=probes_alone
        )
        own = partial(started, tasks=self._writes)
        ended = self.totals.add(numbers)
        requests = SharedRequests(store, state, supervisor, own, refuse=self._refuse)
        shared = SharedUpstream(state, supervisor, weigh, own, health, requests, ended)
        self._shared[supervisor.pool.name] = shared
        return shared

    async def acknowledged(self, upstream: str) -> Applied | None:
        """Wait until all processes have applied the changes of an upstream, up to two seconds.

        ``None`` if that cannot be known, because the store is lost.
        """
        shared = self._shared.get(upstream)
        try:
            entry = None if shared is None else await shared.written()
            if entry is None:
                return None
            return await self.members.acknowledged(entry, _ACKNOWLEDGED_SECONDS)
        except Lost:
            return None

    async def processes(self) -> tuple[Member, ...]:
        """Give the processes of the app, also missing ones; none while the store is lost."""
        try:
            return await self.members.all()
        except Lost:
            return ()

    async def rows(self, upstream: str) -> Rows | None:
        """Read the totals of an upstream, of all processes together.

        ``None`` if the store is lost, or has lost what the processes are reporting again.
        """
        try:
            alive = {one.process for one in await self.members.all() if one.alive}
            return await self.totals.all(upstream, alive)
        except Lost:
            return None

    async def readings(self) -> list[Readings] | None:
        """Read the metrics of all upstreams that run here; ``None`` as for `rows`."""
        found = []
        for upstream in dict.fromkeys(one.upstream for one in self.totals.running):
            rows = await self.rows(upstream)
            if rows is None:
                return None
            found.append(await asyncio.to_thread(readings_of, upstream, rows))
        return found

    async def aclose(self) -> None:
        """End the tasks, leave the processes that beat, and close all connections."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._writes:  # each is limited by `cluster.timeout`
            await asyncio.wait(self._writes)
        if self._started:
            self._started = False
            await self.totals.finish()
            with suppress(Lost):
                await self.members.leave()
        await self.store.aclose()

    def _counts(self) -> Iterator[tuple[str, UpstreamCounts]]:
        for numbers in self.totals.running:
            destinations = tuple(numbers.destinations())
            available = sum([one.state == "available" for one in destinations])
            in_flight = sum([one.in_flight for one in destinations])
            yield numbers.upstream, UpstreamCounts(len(destinations), available, in_flight)

    def _applied(self) -> None:
        self.members.beat_soon()

    def _changed(self, reason: str) -> None:
        self._reason = reason
        if self._started:
            self._tell(reason)
            if not reason:
                self._reader.restart()
                self.totals.store_is_back()

    def _tell(self, reason: str) -> None:
        if reason:
            _logger.warning(
                "the store is lost (%s); each process goes on with what it knows", reason
            )
        else:
            _logger.warning("the store is back")
        for upstream in self.state.upstreams:
            self._events.emit(StoreLost(upstream, reason=reason) if reason else StoreBack(upstream))


def started(
    coroutine: Coroutine[Any, Any, Any], name: str, tasks: set[asyncio.Task[Any]]
) -> asyncio.Task[Any]:
    """Start a task that is one of ``tasks`` until it ends."""
    task = asyncio.get_running_loop().create_task(coroutine, name=name, context=Context())
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task
