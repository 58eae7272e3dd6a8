"""One running upstream: the parts that outlive its settings, its tasks, its start and its end.

``composition`` makes it, ``control`` changes it, ``status`` reads it. What the settings decide
about requests is in its ``rules``, which are replaced whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from random import Random
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakSet

from fastapi_proxy_di.balancing.policy import BalancingPolicy, PickRequest
from fastapi_proxy_di.client.clients import Clients
from fastapi_proxy_di.client.lease import Lease
from fastapi_proxy_di.client.leasing import lease
from fastapi_proxy_di.discovery.discovery import Discovery
from fastapi_proxy_di.forwarding.admission import Admission
from fastapi_proxy_di.forwarding.failure_log import FailureLog
from fastapi_proxy_di.forwarding.journey import Journey
from fastapi_proxy_di.forwarding.open_tunnels import OpenTunnels
from fastapi_proxy_di.forwarding.outage import Outage
from fastapi_proxy_di.forwarding.retries import RetryBudget
from fastapi_proxy_di.forwarding.unavailable import closed
from fastapi_proxy_di.observability.changes import Changes
from fastapi_proxy_di.observability.families import Numbers
from fastapi_proxy_di.observability.instruments import Instruments, instruments_of
from fastapi_proxy_di.observability.metrics import PERIOD_SECONDS, Metrics
from fastapi_proxy_di.observability.telemetry import Telemetry
from fastapi_proxy_di.pools.cooled_pairs import CooledPairs
from fastapi_proxy_di.pools.pool import Pool
from fastapi_proxy_di.settings import UpstreamSettings
from fastapi_proxy_di.supervision.events import Event, Events
from fastapi_proxy_di.supervision.prober import Prober
from fastapi_proxy_di.supervision.supervisor import Supervisor
from fastapi_proxy_di.upstream.client_request import Forwarder
from fastapi_proxy_di.upstream.dynamic import DynamicUpstream
from fastapi_proxy_di.upstream.replacing import replace_destinations
from fastapi_proxy_di.upstream.rules import Rules
from fastapi_proxy_di.upstream.transports import Transports

if TYPE_CHECKING:
    from fastapi_proxy_di.cluster.shared_upstream import SharedUpstream

__all__ = ["ReloadNotes", "RunningUpstream"]


class ReloadNotes(NamedTuple):
    """What the last reload of an upstream did.

    Attributes:
        at: When the settings last changed, ``None`` if they have not since the start.
        changed: The fields that changed then.
        overridden: The fields that a file gave then and a source before it set, each with the
            source.
        failed_at: When a reload failed, ``None`` if none has failed since ``at``.
    """

    at: datetime | None = None
    changed: tuple[str, ...] = ()
    overridden: Mapping[str, str] = MappingProxyType({})
    failed_at: datetime | None = None


@dataclass(slots=True, eq=False, kw_only=True)
class RunningUpstream:
    """The running parts of one upstream, made in the event loop that they run in.

    Attributes:
        events: Emits the changes of state.
        random: Source of every random number, for picks, pauses and jitter.
        pool: The destinations.
        supervisor: Changes the pool.
        transports: The transports to the destinations.
        discovery: Finds destinations.
        prober: Sends probes.
        admission: Admits requests where the upstream has limits of its own.
        metrics: Counts its exchanges.
        changes: Remembers since when its destinations are in their state.
        budget: Its retry budget.
        outage: Where requests wait while no destination responds.
        failures: Logs the exchanges that fail.
        tunnels: The open WebSockets.
        instruments: Gives its metrics to OpenTelemetry; ``None`` if they are not wanted there.
        cooled_pairs: The keys that cool, each at a destination.
        policies: The policies that it had, by setting: a text, or the class of an object.
        rules: What the settings decide about requests; replaced whole by ``use``.
        dynamic: For requests to dynamic destinations; ``None`` as long as none were allowed.
        forwarder: Forwards by the current rules.
        clients: Its httpx clients.
        reloading: Held while its settings are changed.
        reload_notes: What the last reload did.
        shared: What it shares with other processes; ``None`` without a store.
        loop: The event loop that the parts run in.
        refuses: Whether new requests are refused, because the upstream is being closed.
        closed: Whether the upstream is closed, or about to be.
    """

    events: Events
    random: Random
    pool: Pool
    supervisor: Supervisor
    transports: Transports
    discovery: Discovery
    prober: Prober
    admission: Admission
    metrics: Metrics
    changes: Changes
    budget: RetryBudget
    outage: Outage
    failures: FailureLog
    tunnels: OpenTunnels
    instruments: Instruments | None
    policies: dict[object, BalancingPolicy] = field(default_factory=dict)
    cooled_pairs: CooledPairs = field(default_factory=CooledPairs)
    rules: Rules = field(init=False)
    dynamic: DynamicUpstream | None = None
    forwarder: Forwarder = field(init=False)
    clients: Clients = field(init=False)
    reloading: asyncio.Lock = field(default_factory=asyncio.Lock)
    reload_notes: ReloadNotes = field(default_factory=ReloadNotes)
    shared: SharedUpstream | None = None
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    refuses: bool = field(default=False, init=False)
    closed: bool = field(default=False, init=False)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _subscriptions: set[Callable[[], None]] = field(init=False)
    _journeys: WeakSet[Journey] = field(default_factory=WeakSet)
    _not_read: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        self.discovery.attach(self.own, partial(replace_destinations, self))
        self.forwarder = Forwarder()
        self.clients = Clients(lambda: self.rules.calls)
        listeners = (self.metrics.listen, self.changes.listen)
        self._subscriptions = set(map(self.events.subscribe, listeners))
        self._read_by(self.instruments)

    @property
    def settings(self) -> UpstreamSettings:
        """The current settings."""
        return self.rules.settings

    @property
    def name(self) -> str:
        """Name of the upstream."""
        return self.pool.name

    def instrument(self, telemetry: Telemetry) -> None:
        """Give the metrics to OpenTelemetry, or no more, as the telemetry says."""
        if telemetry.settings.metrics is not (self.instruments is not None):
            self._read_by(instruments_of(telemetry) if telemetry.settings.metrics else None)

    def _read_by(self, instruments: Instruments | None) -> None:
        if self._not_read is not None:
            self._not_read()
        self.instruments = self.metrics.instruments = instruments
        self._not_read = None if instruments is None else instruments.add(lambda: (self.numbers(),))

    def use(self, rules: Rules) -> None:
        """Let the requests that begin from now on go by ``rules``."""
        self.rules = self.forwarder.rules = rules
        # Also those of former rules, by which requests may begin whose bodies have yet to come.
        self._journeys.add(rules.journey)
        factory = rules.guarded_factory
        if self.dynamic is None and factory is not None:
            self.dynamic = DynamicUpstream(self, rules.settings, factory)
        if self.dynamic is not None:
            self.dynamic.use(rules)
        if self.refuses:
            self.refuse()

    def for_addresses(self) -> DynamicUpstream:
        """Give what requests to addresses need.

        Raises:
            ValueError: The settings allow no addresses outside of the pool.
        """
        if self.dynamic is None or self.rules.guarded_factory is None:
            raise ValueError(
                f"destination: the address is none of the destinations of {self.name}, which allows"
                " no others; set allowed_destinations"
            )
        return self.dynamic

    def refuse(self) -> None:
        """Refuse requests from now on; those under way continue."""
        self.refuses = True
        for journey in self._journeys:
            journey.close()
        if self.dynamic is not None:
            self.dynamic.refuse()

    @property
    def waiting(self) -> int:
        """Number of requests that wait until a destination responds again."""
        return self.outage.waiting + (0 if self.dynamic is None else self.dynamic.waiting)

    def end_waiting(self) -> None:
        """Refuse the requests that wait, in the queue or for a destination, and later ones."""
        self.admission.close()
        self.outage.close()
        if self.dynamic is not None:
            self.dynamic.end_waiting()

    def lease(self, key: PickRequest | None) -> AbstractAsyncContextManager[Lease]:
        """Lease a destination that is picked for ``key``."""
        return lease(self.rules.journey, key)

    def numbers(self) -> Numbers:
        """Give what the metrics of the upstream are read from."""
        return Numbers(
            self.name,
            self.metrics,
            lambda: self.pool.destinations,
            self.transports.connections,
            lambda: self.tunnels.count,
            self._dynamic_numbers,
        )

    def _dynamic_numbers(self) -> tuple[int, int, int] | None:
        """Give requests to addresses, connections in use there and idle ones; none for nothing."""
        return None if self.dynamic is None else self.dynamic.destinations.numbers()

    def subscribe(self, listener: Callable[[Event], object]) -> Callable[[], None]:
        """Call ``listener`` with the events of this upstream, until it is closed.

        Returns:
            A function that ends the subscription.

        Raises:
            UpstreamClosed: The upstream is closed.
        """
        self.refuse_if_closed()
        name = self.name
        unsubscribe = self.events.subscribe(
            lambda event: listener(event) if event.upstream == name else None
        )
        self._subscriptions.add(unsubscribe)

        def end() -> None:
            self._subscriptions.discard(unsubscribe)
            unsubscribe()

        return end

    def refuse_if_closed(self) -> None:
        """Raise an error if the upstream is closed, so that nothing is started in it."""
        if self.closed:
            raise closed(self.name)

    async def start(self) -> None:
        """Start in-process apps, find destinations, probe each once, then keep probing.

        Raises:
            NothingFound: A source of destinations that is required found none.
        """
        await self.transports.start()
        await self.discovery.start()
        if self.shared is not None:
            await self.shared.start()
        await self.prober.sweep()
        self.prober.start()
        _ = self.own(self._mark_periods(), f"periods of {self.name}")
        for coroutine, name in () if self.shared is None else self.shared.health.tasks():
            _ = self.own(coroutine, name)

    async def _mark_periods(self) -> None:
        while True:
            await asyncio.sleep(PERIOD_SECONDS)
            self.metrics.mark()
            for counts in self.metrics.all():
                counts.mark()
                await asyncio.sleep(0)  # a thousand of them would hold up requests
            self.metrics.move_gone()

    def own(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run ``coroutine`` as a task that is cancelled when the upstream is closed.

        The task has a context of its own, because a request may start it and end before it.
        """
        task = asyncio.get_running_loop().create_task(coroutine, name=name, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def discard(self) -> None:
        """Stop the timers and end what reads or listens; for an upstream that has no tasks."""
        self.supervisor.close()
        self.discovery.close()
        self.failures.close()
        if self.dynamic is not None:
            self.dynamic.discard()
        if self.shared is not None:
            self.shared.close()
        self._read_by(None)
        for unsubscribe in self._subscriptions:
            unsubscribe()
        self._subscriptions.clear()

    async def aclose(self) -> None:
        """Stop probing, refuse what waits, and close every tunnel and connection.

        All steps run even if one fails. Tunnels have about a second for their close frames.
        """
        self.closed = True
        self.refuse()
        self.end_waiting()
        self.supervisor.close()  # stops timers at once, not after the tasks
        self.discovery.close()
        for task in self._tasks:
            task.cancel()
        try:
            await self.tunnels.aclose("the upstream is closed")
        finally:
            await self._close_connections()

    async def _close_connections(self) -> None:
        transports = self.transports.all()
        try:
            await self.clients.aclose()
            results = await asyncio.gather(
                self.prober.aclose(),
                *self._tasks,
                *(transport.aclose() for transport in transports),
                *(() if self.dynamic is None else (self.dynamic.aclose(),)),
                return_exceptions=True,
            )
        finally:
            self.discard()
        faults = [result for result in results if isinstance(result, Exception)]
        if faults:
            raise ExceptionGroup(f"closing {self.name}", faults)
