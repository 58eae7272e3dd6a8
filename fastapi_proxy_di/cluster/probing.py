"""One process probes for all: takes the leases of an upstream, publishes, follows what others find.

While the store is lost every process probes for itself, as without a store.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from random import Random
from time import monotonic
from typing import Any, Final

from fastapi_proxy_di.cluster.lease import Finding, Lease
from fastapi_proxy_di.cluster.probing_records import Records
from fastapi_proxy_di.cluster.probing_rules import (
    Found,
    Successes,
    body_of,
    found_in,
    is_named,
    shards,
    suspicious,
)
from fastapi_proxy_di.cluster.store import Store, StoreLost
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.supervision.prober import Prober
from fastapi_proxy_di.supervision.supervisor import Supervisor

__all__ = ["SharedProbing"]

_logger = logging.getLogger("fastapi_proxy_di.cluster")

_BELIEVED: Final = 3
"""Intervals for which published health is believed, and for which a process that did not trust
its probes takes no lease."""

_GATHER_SECONDS: Final = 0.05
"""How long changes of health are gathered before they are published, at most a tenth of the
interval: when a network breaks, all probes fail within moments."""


class SharedProbing:
    """Shares the probes of one upstream.

    Args:
        supervisor: The supervisor of the upstream, which follows.
        prober: Its prober.
        store: The store.
        state: The records that processes share.
        random: The source of jitter.
        own: Tells of a destination whether this process ejected it alone, and so must probe it.
        alone: Whether this process sends all probes itself and shares none.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        prober: Prober,
        store: Store,
        state: Records,
        random: Random,
        own: Callable[[Destination], bool],
        alone: Callable[[], bool],
    ) -> None:
        self._supervisor: Final = supervisor
        self._prober: Final = prober
        self._store: Final = store
        self._state: Final = state
        self._random: Final = random
        self._own: Final = own
        self._alone: Final = alone
        self._upstream: Final = supervisor.pool.name
        self._shards: list[_Shard] = []
        self._index: dict[Destination, _Shard] = {}
        self._snapshot: tuple[Destination, ...] | None = None
        self._parts = 0
        self._published: dict[str, Found] = {}
        self._records: dict[int, Mapping[str, Any]] = {}
        self._successes: Final = Successes()
        self._waited: set[Destination] = set()
        self._changed: Final = asyncio.Event()
        self._quiet_until = 0.0

    @property
    def _on(self) -> bool:
        return self._prober.settings.enabled and not self._alone()

    @property
    def holds(self) -> bool:
        """Whether this process has a lease."""
        now = monotonic()
        return any(shard.lease.holds(now) for shard in self._shards)

    def probes(self, destination: Destination) -> bool:
        """Tell whether a probe that is due is this process's.

        A destination that no published record names is probed after a wait of an interval: the
        process that has the lease may not have found it yet, or does not have it at all.
        """
        if self._store.contact.lost or self._own(destination) or self._alone():
            return True
        shard = self._shard_of(destination)
        if shard is not None and shard.lease.holds(monotonic()):
            return True
        if self._is_named(destination) and self._supervisor.threshold.has_observed(destination):
            self._waited.discard(destination)
            return False
        if destination in self._waited:
            return True
        self._waited.add(destination)
        return False

    def _is_named(self, destination: Destination) -> bool:
        believed_ms = _BELIEVED * self._prober.settings.interval * 1000
        since = self._state.now() - believed_ms
        return is_named(destination.url, self._records, self._parts, since)

    def probed(self, destination: Destination, reason: str) -> None:
        """Take the result of a probe of this process, and publish it at once if it is news."""
        shard = self._shard_of(destination)
        if shard is None:
            return
        now = monotonic()
        shard.take_result(destination, reason, now)
        if not shard.lease.holds(now):
            self._published.pop(destination.url, None)  # this result is newer
        elif shard.has_news(self._supervisor) or (reason and now < shard.confirms_until):
            self._changed.set()

    def reconfigured(self) -> None:
        """Go on by the new interval, not at the end of a pause by the old one."""
        self._changed.set()

    def follow(self, subject: str, body: Mapping[str, Any] | None) -> None:
        """Follow a record of what another process has found."""
        interval = self._prober.settings.interval
        if body is None:
            return
        self._records[int(subject)] = body
        if not self._on:
            return
        found = found_in(body, _BELIEVED * interval, self._state.now())
        self._published.update(found)
        for shard in self._shards:
            if str(shard.number) == subject:
                shard.stepped_back = False
        for url in found:
            destination = self._supervisor.pool.find(url)
            if destination is not None:
                self._follow(destination, monotonic())

    def found_again(self) -> None:
        """Tell everything again, and follow it, as this process or others probed for themselves."""
        for shard in self._shards:
            shard.shared.clear()
        for subject, body in self._state.held(self._upstream, "health").items():
            self.follow(subject, body)
        self._changed.set()

    async def start(self) -> None:
        """Take the leases that are free, before the first probes."""
        await self._tend_all()

    async def run(self) -> None:
        """Hold and take leases, publish, and follow, until cancelled; then give the leases away."""
        try:
            while True:
                await self._pause()
                now = monotonic()
                for destination in self._supervisor.pool.destinations:
                    self._follow(destination, now)
                self._successes.mark(self._supervisor.pool.destinations, now)
                await self._tend_all()
        finally:
            await self._give_all()

    async def _pause(self) -> None:
        interval = self._prober.settings.interval
        with suppress(TimeoutError):
            async with asyncio.timeout(interval / 3 * (0.8 + 0.2 * self._random.random())):
                await self._changed.wait()
                await asyncio.sleep(min(_GATHER_SECONDS, interval / 10))
        self._changed.clear()

    def _shard_of(self, destination: Destination) -> _Shard | None:
        self._divide()
        return self._index.get(destination)

    def _divide(self) -> None:
        """Divide the destinations into parts, if they are others than before."""
        destinations = self._supervisor.pool.destinations
        if destinations is self._snapshot:
            return
        self._snapshot = destinations
        parts = shards(destinations)
        self._parts = len(parts)
        while len(self._shards) < len(parts):
            number = len(self._shards)
            lease = Lease(self._store, self._state, self._upstream, number)
            self._shards.append(_Shard(number, lease))
        for shard in self._shards:
            shard.use(parts[shard.number] if shard.number < len(parts) else [])
        self._index = {one: shard for shard in self._shards for one in shard.destinations}
        self._waited &= self._index.keys()
        urls = {one.url for one in destinations}
        self._published = {url: one for url, one in self._published.items() if url in urls}

    def _follow(self, destination: Destination, now: float) -> None:
        """Apply what is published of a destination, unless this process knows better.

        It knows better if it probes it itself, or if its own requests succeed there.
        """
        found = self._published.get(destination.url)
        shard = self._shard_of(destination)
        if found is None or shard is None or shard.lease.holds(now):
            return
        if not self._on:
            self._published.clear()
            return
        interval = self._prober.settings.interval
        if not found.healthy and self._successes.within(destination, interval, now):
            return
        if found.healthy != destination.healthy or not self._supervisor.threshold.has_observed(
            destination
        ):
            self._supervisor.follow_health(
                destination, found.healthy, found.latency_ms, found.reason
            )
            shard.forget(destination)

    async def _tend_all(self) -> None:
        self._divide()
        for shard in self._shards:
            try:
                await self._tend(shard)
            except StoreLost:
                return

    async def _tend(self, shard: _Shard) -> None:
        settings, now = self._prober.settings, monotonic()
        if not self._on or not shard.destinations:
            if shard.lease.holds(now):
                await shard.lease.give()
        elif not shard.lease.holds(now):
            if now >= self._quiet_until and await shard.lease.take(settings.interval):
                # It confirms itself if no other process was there to do so.
                confirms = shard.lease.marked or shard.stepped_back
                shard.begin(now + (settings.fall + 2) * settings.interval * confirms)
                self._prober.hasten(shard.destinations)
        elif not self._many_fail(shard, now) or self._state.alive < 2:
            await self._publish(shard)
        elif now < shard.confirms_until:
            self._confirm(shard)
            await self._publish(shard)
        elif all(one.healthy for one in shard.began):
            await self._publish(shard)  # none has failed often enough yet
        else:
            await self._step_back(shard, now)

    def _many_fail(self, shard: _Shard, now: float) -> bool:
        settings = self._prober.settings
        seconds = (1.2 * settings.fall + 0.5) * settings.interval
        return suspicious(shard.began.values(), len(shard.destinations), seconds, now)

    async def _step_back(self, shard: _Shard, now: float) -> None:
        settings = self._prober.settings
        shard.stepped_back = True
        quiet = max(_BELIEVED, settings.fall + 1) * settings.interval
        self._quiet_until = now + quiet
        _logger.warning(
            "%s: probes of more than half of the destinations began to fail at once; another"
            " process probes them before that is published",
            self._upstream,
            extra={"upstream": self._upstream, "destination": None},
        )
        for destination in shard.destinations:
            self._published.pop(destination.url, None)  # own results are newer
        await shard.lease.give(quiet)

    async def _publish(self, shard: _Shard) -> None:
        ours = shard.results(self._supervisor)
        shared = {url: one.healthy for url, one in ours.items()}
        rest = {
            one.url: self._published[one.url]
            for one in shard.destinations
            if one.url not in ours and one.url in self._published
        }
        streamed = shared != shard.shared
        body = body_of({**rest, **ours}, self._state.now())
        interval = self._prober.settings.interval
        field = f"health:{shard.number}"
        for _ in range(2):  # once more, with a version above that of another process
            version, record = self._state.sign(self._upstream, field, body)
            renewal = await shard.lease.renew(
                interval, Finding(self._upstream, field, version, record, streamed)
            )
            if not renewal.newer:
                break
            self._state.learn(self._upstream, field, renewal.newer, None)
        if renewal.held and not renewal.newer:
            self._state.learn(self._upstream, field, version, body)
            self._published.update(ours)
            self._records[shard.number] = body
            shard.shared = shared

    def _confirm(self, shard: _Shard) -> None:
        """Let one failed probe be enough, as the holder before saw as many failures."""
        for destination in shard.began:
            if destination.healthy:
                self._supervisor.follow_health(
                    destination, False, None, shard.reasons.get(destination, "")
                )

    async def _give_all(self) -> None:
        for shard in self._shards:
            if shard.lease.holds(monotonic()):
                try:
                    await shard.lease.give()
                except StoreLost:
                    return


class _Shard:
    """A part of the upstream, and what this process found there while it has had the lease.

    Attributes:
        number: Its number.
        lease: Its lease.
        destinations: Its destinations.
        began: When the failures of each destination whose last probe failed began.
        reasons: Why the last probe of each destination failed, ``""`` if it was good.
        shared: The health that was published last, by address.
        confirms_until: The monotonic second until which this process may publish that most is
            unhealthy, because the holder before saw it as well.
        stepped_back: Whether this process gave the lease away, as it did not trust its probes, and
            no process has published anything since.
    """

    def __init__(self, number: int, lease: Lease) -> None:
        self.number: Final = number
        self.lease: Final = lease
        self.destinations: list[Destination] = []
        self.began: dict[Destination, float] = {}
        self.reasons: dict[Destination, str] = {}
        self.shared: dict[str, bool] = {}
        self.confirms_until = 0.0
        self.stepped_back = False

    def use(self, destinations: list[Destination]) -> None:
        """Have these destinations from now on."""
        self.destinations = destinations
        for one in self.reasons.keys() - set(destinations):
            self.forget(one)

    def begin(self, confirms_until: float) -> None:
        """Begin with a lease that was taken; results from before are not published."""
        self.began.clear()
        self.reasons.clear()
        self.shared.clear()
        self.confirms_until = confirms_until
        self.stepped_back = False

    def take_result(self, destination: Destination, reason: str, now: float) -> None:
        """Take the result of a probe."""
        self.reasons[destination] = reason
        if reason:
            self.began.setdefault(destination, now)
        else:
            self.began.pop(destination, None)

    def forget(self, destination: Destination) -> None:
        """Drop the result for a destination, as that of another process is followed."""
        self.reasons.pop(destination, None)
        self.began.pop(destination, None)

    def results(self, supervisor: Supervisor) -> dict[str, Found]:
        """Give what is to be published, by address."""
        return {
            one.url: Found(one.healthy, "" if one.healthy else reason, one.latency_ms)
            for one, reason in self.reasons.items()
            if supervisor.threshold.has_observed(one)
        }

    def has_news(self, supervisor: Supervisor) -> bool:
        """Whether the health differs from what was published last."""
        return {url: one.healthy for url, one in self.results(supervisor).items()} != self.shared
