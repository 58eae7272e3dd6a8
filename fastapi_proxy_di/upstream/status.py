"""The state of an upstream as data, for status pages and readiness."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.upstream.running import RunningUpstream


class DestinationStatus(BaseModel):
    """One destination at one moment.

    Attributes:
        url: The address of the destination.
        weight: Its share of the traffic, relative to the other destinations.
        tier: Its tier; lower tiers are used first.
        available: Whether the destination may be picked.
        healthy: Whether probes find the destination healthy.
        ejected_for: Seconds until the ejection ends, ``None`` if there is none.
        draining: Whether the destination takes no new requests.
        in_flight: Number of requests and tunnels under way.
        requests: Number of exchanges since the last readmission that succeeded, or failed on
            the destination's side.
        failures: Number of exchanges since then that failed on the destination's side.
        latency_ms: Milliseconds that the last good probe took, ``None`` before the first.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    url: str
    weight: float
    tier: int
    available: bool
    healthy: bool
    ejected_for: float | None
    draining: bool
    in_flight: int
    requests: int
    failures: int
    latency_ms: float | None


class UpstreamStatus(BaseModel):
    """One upstream at one moment.

    Attributes:
        upstream: Name of the upstream.
        policy: Name of the policy.
        panic: Whether no destination is available, so that all are used.
        in_flight: Number of requests and tunnels under way.
        queued: Number of requests that wait for a place.
        tunnels: Number of open WebSockets.
        tunnel_ends: Number of tunnels that ended since the start, by reason
            (``client_closed``, ``upstream_vanished``, ...); reasons that did not occur are left
            out.
        destinations: The destinations, in the order of the settings.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    upstream: str
    policy: str
    panic: bool
    in_flight: int
    queued: int
    tunnels: int
    tunnel_ends: dict[str, int]
    destinations: tuple[DestinationStatus, ...]


def status_of(running: RunningUpstream) -> UpstreamStatus:
    """Give the state of ``running`` at this moment."""
    now = running.loop.time()
    pool, websocket, admission = running.pool, running.websocket, running.admission
    available = frozenset(pool.available)
    return UpstreamStatus(
        upstream=running.settings.name,
        policy=running.policy.name,
        panic=pool.panic,
        in_flight=sum(one.in_flight for one in pool.destinations),
        queued=0 if admission is None else admission.waiting,
        tunnels=websocket.open_tunnels,
        tunnel_ends={reason.value: count for reason, count in websocket.ends.items() if count},
        destinations=tuple(
            _destination_status(one, one in available, now) for one in pool.destinations
        ),
    )


def _destination_status(one: Destination, available: bool, now: float) -> DestinationStatus:
    return DestinationStatus(
        url=one.url,
        weight=one.weight,
        tier=one.tier,
        available=available,
        healthy=one.healthy,
        ejected_for=(None if one.ejected_until is None else max(0.0, one.ejected_until - now)),
        draining=one.draining,
        in_flight=one.in_flight,
        requests=one.successes + one.failures,
        failures=one.failures,
        latency_ms=one.latency_ms,
    )
