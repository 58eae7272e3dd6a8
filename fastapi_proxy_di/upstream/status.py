"""What an upstream is doing, as data: for status pages, readiness and people."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class DestinationStatus(BaseModel):
    """One destination at one moment.

    Attributes:
        url: Its address.
        weight: Share of the traffic.
        tier: Lower ones are used first.
        available: Whether it may be picked.
        healthy: What probes say.
        ejected_for: Seconds until its ejection ends, ``None`` if it is in.
        draining: Whether it takes no new requests.
        in_flight: Requests and tunnels under way.
        requests: Exchanges since it was last let in that went well or failed on its side.
        failures: Those that failed on its side.
        latency_ms: Milliseconds the last good probe took.
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
        upstream: Its name.
        policy: How destinations are picked.
        panic: Whether none is available and all are used.
        in_flight: Requests and tunnels under way.
        queued: Requests waiting for a place.
        tunnels: WebSockets that are open.
        tunnel_ends: How many each reason has ended since the start, by its name
            (``client_closed``, ``upstream_vanished``, ...); reasons that never did are left out.
        destinations: In the order of the settings.
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
