"""The state of an upstream as data, for status pages and readiness."""

from __future__ import annotations

from datetime import UTC, datetime
from time import monotonic
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from fastapi_proxy_di.discovery.searcher import Searcher
from fastapi_proxy_di.observability.histogram import Histogram
from fastapi_proxy_di.pools.destination import Destination, DestinationState
from fastapi_proxy_di.settings import UpstreamSettings
from fastapi_proxy_di.upstream.dynamic_destinations import LIMIT
from fastapi_proxy_di.upstream.running import RunningUpstream


class Percentiles(BaseModel):
    """Durations in milliseconds, estimated from a histogram; more than 10 s count as 10 s.

    Attributes:
        p50: The median.
        p99: The duration that one of a hundred exceeds.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, defer_build=True)

    p50: float
    p99: float


class DestinationStatus(BaseModel):
    """One destination at one moment.

    Attributes:
        url: The address of the destination.
        weight: Its share of the traffic, relative to the other destinations.
        tier: Its tier; lower tiers are used first.
        state: ``available``, ``unhealthy`` (by probes), ``ejected`` (by live traffic),
            ``draining``, or ``unprobed`` (added, and not yet probed).
        reason: Why the state began, e.g. ``"status 503"``; ``""`` if there is nothing to say.
        since: When the state began.
        available: Whether the destination may be picked.
        healthy: Whether probes find the destination healthy.
        ejected_for: Seconds until the ejection ends, ``None`` if there is none.
        draining: Whether the destination takes no new requests.
        drained_by: Host and process id of the process that drained it in all processes that share
            a store; ``None`` if it was drained in this one alone, or is not drained.
        drained_at: When that was.
        in_flight: Number of requests and tunnels under way.
        tunnels: Number of open WebSockets.
        requests: Number of exchanges since the last readmission that succeeded, or failed on
            the destination's side.
        failures: Number of exchanges since then that failed on the destination's side.
        attempts: Number of attempts since the start, retries and leases included.
        failed_attempts: Number of failed attempts since the start, by value of the `Failure`, or
            ``cancelled``.
        recent_attempts: Number of attempts of the last one to two minutes.
        recent_failed_attempts: Number of those that failed, without those that failed because of
            the client, were cancelled, or were not processed and sent again.
        error_statuses: Number of responses since the start with each status from 400 on. After
            16 different pairs of method and result, further ones count by class, as 400 or 500.
        ejections: Number of ejections since the start.
        first_byte_ms: Milliseconds to the head of the responses of the last one to two minutes,
            ``None`` if there were none.
        duration_ms: The same to the last byte, of responses that came whole.
        latency_ms: Milliseconds that the last good probe took, ``None`` before the first.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, defer_build=True)

    url: str
    weight: float
    tier: int
    state: DestinationState
    reason: str
    since: datetime
    available: bool
    healthy: bool
    ejected_for: float | None
    draining: bool
    in_flight: int
    tunnels: int
    requests: int
    failures: int
    attempts: int
    failed_attempts: dict[str, int]
    recent_attempts: int
    recent_failed_attempts: int
    error_statuses: dict[str, int]
    ejections: int
    first_byte_ms: Percentiles | None
    duration_ms: Percentiles | None
    latency_ms: float | None
    drained_by: str | None = None
    drained_at: datetime | None = None


class SourceStatus(BaseModel):
    """One source of destinations at one moment.

    Attributes:
        source: The address of the source, without its query.
        found: Number of destinations of its list that serve.
        since: When this list was first found, or dropped; ``None`` before the first one.
        last_success: When the source last gave destinations.
        last_failure: When the source last failed, or gave none.
        reason: Why the source fails, ``""`` while it does not.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, defer_build=True)

    source: str
    found: int
    since: datetime | None
    last_success: datetime | None
    last_failure: datetime | None
    reason: str


class ReloadStatus(BaseModel):
    """What the last reload of an upstream's settings did.

    Attributes:
        at: When the settings last changed, ``None`` if they have not since the start.
        changed: The fields that changed then, such as ``timeouts.connect``; never their values.
        overridden: The fields that a file gave then and a source before it set, each with the
            source, such as ``UPSTREAM_BILLING_POLICY (environment)``.
        failed_at: When a reload failed because the settings had faults, ``None`` if none has
            failed since.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, defer_build=True)

    at: datetime | None = None
    changed: tuple[str, ...] = ()
    overridden: dict[str, str] = {}
    failed_at: datetime | None = None


class UpstreamStatus(BaseModel):
    """One upstream at one moment.

    Attributes:
        upstream: Name of the upstream.
        policy: Name of the policy.
        panic: Whether no destination is available, so that all are used.
        in_flight: Number of requests and tunnels under way, those to dynamic destinations too.
        queued: Number of requests that wait for a place.
        limits: The limits of requests that are set, by setting: ``limits.max_in_flight``,
            ``limits.queue`` and ``max_requests``, and ``limits.dynamic_destinations`` where
            addresses are allowed.
        refused: Number of requests that a limit has refused since the start, by setting.
        recent_requests: Number of requests that ended in the last one to two minutes.
        recent_refused: Number of those that a limit has refused.
        recent_attempts: Number of attempts of the same time, of all destinations, removed and
            dynamic ones too.
        recent_failed_attempts: Number of those that failed, as of a destination.
        retries_left: Number of counted retries that the budget allows at this moment.
        tunnels: Number of open WebSockets.
        tunnel_ends: Number of tunnels that ended since the start, by reason
            (``client_closed``, ``upstream_vanished``, ...); reasons that did not occur are left
            out.
        destinations: The destinations, in the order of the settings.
        removed: Destinations that have left the pool and finish their requests.
        sources: The sources of destinations, in the order of the settings.
        dynamic_destinations: Number of dynamic destinations that are in use or have been a moment
            ago.
        reload: What the last reload of the settings did.
        waiting: Number of requests that wait until a destination responds again
            (``retries.duration``); one that makes an attempt is in flight instead. Both keep
            their place in ``limits.max_in_flight``.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, defer_build=True)

    upstream: str
    policy: str
    panic: bool
    in_flight: int
    queued: int
    limits: dict[str, int]
    refused: dict[str, int]
    recent_requests: int
    recent_refused: int
    recent_attempts: int
    recent_failed_attempts: int
    retries_left: int
    tunnels: int
    tunnel_ends: dict[str, int]
    destinations: tuple[DestinationStatus, ...]
    removed: tuple[DestinationStatus, ...]
    dynamic_destinations: int
    sources: tuple[SourceStatus, ...] = ()
    reload: ReloadStatus = ReloadStatus()
    waiting: int = 0


def status_of(running: RunningUpstream) -> UpstreamStatus:
    """Give the state of ``running`` at this moment."""
    now = running.loop.time()
    pool, tunnels, dynamic = running.pool, running.tunnels, running.dynamic
    available = frozenset(pool.available)
    recent, notes = running.metrics.recent(), running.reload_notes
    destinations = tuple(
        [_destination_status(running, one, one in available, now) for one in pool.destinations]
    )
    removed = tuple(
        [_destination_status(running, one, False, now) for one in running.metrics.leaving()]
    )
    # An address that was removed and added again has one row of counts.
    by_address = {one.url: one for one in (*removed, *destinations)}.values()
    at_addresses = running.metrics.dynamic.recent()
    return UpstreamStatus(
        upstream=running.name,
        policy=running.rules.policy.name,
        panic=pool.panic,
        in_flight=sum([one.in_flight for one in pool.destinations])
        + (0 if dynamic is None else dynamic.destinations.in_flight),
        queued=running.admission.waiting + (0 if dynamic is None else dynamic.admission.waiting),
        limits=_limits(running.settings),
        refused=dict(running.metrics.refusals),
        recent_requests=recent.ended,
        recent_refused=recent.refused,
        recent_attempts=sum([one.recent_attempts for one in by_address]) + at_addresses.attempts,
        recent_failed_attempts=sum([one.recent_failed_attempts for one in by_address])
        + at_addresses.failed,
        retries_left=int(running.budget.left(monotonic())),
        tunnels=tunnels.count,
        tunnel_ends={reason.value: count for reason, count in tunnels.ends.items() if count},
        destinations=destinations,
        removed=removed,
        sources=tuple(map(_source_status, running.discovery.searchers)),
        dynamic_destinations=0 if dynamic is None else len(dynamic.destinations),
        reload=ReloadStatus(
            at=notes.at,
            changed=notes.changed,
            overridden=dict(notes.overridden),
            failed_at=notes.failed_at,
        ),
        waiting=running.waiting,
    )


def _source_status(searcher: Searcher) -> SourceStatus:
    return SourceStatus(
        source=searcher.search.address.shown,
        found=len(searcher.destinations),
        since=searcher.found_at,
        last_success=searcher.succeeded_at,
        last_failure=searcher.failed_at,
        reason=searcher.holding.reason,
    )


def _limits(settings: UpstreamSettings) -> dict[str, int]:
    found = {
        "limits.max_in_flight": settings.limits.max_in_flight,
        "limits.queue": settings.limits.queue,
        "max_requests": settings.max_requests,
        LIMIT: settings.limits.dynamic_destinations if settings.allowed_destinations.some else 0,
    }
    return {name: limit for name, limit in found.items() if limit}


def _destination_status(
    running: RunningUpstream, one: Destination, available: bool, now: float
) -> DestinationStatus:
    counts = running.metrics.of(one)
    recent = counts.recent()
    change = running.changes.of(one)
    drained = None if running.shared is None else running.shared.drained(one.url)
    ejected_until = one.ejected_until  # once, because the loop may readmit in between
    return DestinationStatus(
        url=one.url,
        weight=one.weight,
        tier=one.tier,
        state=one.state,
        reason=change.reason,
        since=change.at,
        available=available,
        healthy=one.healthy,
        ejected_for=None if ejected_until is None else max(0.0, ejected_until - now),
        draining=one.draining,
        in_flight=one.in_flight,
        tunnels=len(running.tunnels.to(one)),
        requests=one.successes + one.failures,
        failures=one.failures,
        attempts=counts.attempts,
        failed_attempts=dict(counts.failures),
        recent_attempts=recent.attempts,
        recent_failed_attempts=recent.failed,
        error_statuses=counts.error_statuses(),
        ejections=sum(counts.ejections.values()),
        first_byte_ms=percentiles(recent.first_byte),
        duration_ms=percentiles(recent.durations),
        latency_ms=one.latency_ms,
        drained_by=None if drained is None else drained.by,
        drained_at=None if drained is None else datetime.fromtimestamp(drained.at / 1000, UTC),
    )


def percentiles(histogram: Histogram) -> Percentiles | None:
    """Give the percentiles of durations, ``None`` if there are none."""
    p50, p99 = histogram.quantile(0.5), histogram.quantile(0.99)
    if p50 is None or p99 is None:
        return None
    return Percentiles(p50=p50 * 1000, p99=p99 * 1000)
