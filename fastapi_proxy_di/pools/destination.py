"""One live destination: its address, load, health and counters.

Owns: the state of one address and what keeps it consistent. Must not know: clocks,
I/O, policies, and the rules by which health changes (``fastapi_proxy_di.health``).
The whole of it changes only through its ``Pool``, except the counters that live traffic
bumps: ``begin``, ``end`` and the plain numbers below.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi_proxy_di.pools.rolling import RollingCount, RollingTotal
    from fastapi_proxy_di.settings import DestinationSettings
    from fastapi_proxy_di.wire.urls import Address

__all__ = ["Destination"]


class Destination:
    """One address of an upstream, alive.

    Attributes:
        settings: What the user wrote.
        url: The normalised address.
        weight: Share of the traffic relative to the others; the settings' weight, or
            less of it while slow start ramps up.
        tier: Lower tiers are used first.
        max_in_flight: Requests at once, ``None`` for no limit.
        max_requests: Requests per window, ``None`` for no limit.
        metadata: What the user attached.
        in_flight: Requests and tunnels under way.
        requests_in_window: Requests begun since the window turned.
        healthy: What active probes say; true until they say otherwise.
        latency_ms: Milliseconds the last probe took, ``None`` before the first.
        ejected_until: Monotonic seconds at which an ejection ends, ``None`` if in.
        cooling: Whether it asked for that ejection itself; then no probe ends it.
        ejections: How often it was ejected, ever.
        draining: Takes no new requests, finishes the old.
        removed: No longer part of its pool; finishes its work.
        successes: Exchanges that went well since it was last let in.
        failures: Failures on the destination's side since it was last let in.
        consecutive_failures: Those since the last success.
        history: Successes and failures of the last while, once somebody asked.
        ejection_level: Factor of the last ejection's length; decays with good conduct.
        ejection_ended_at: Monotonic seconds at which the last ejection was to end.
        probed: Whether a probe has ever come back.
        probe_run: Probe results in a row that contradict ``healthy``.
        ewma_seconds: Peak-sensitive mean time to first byte, ``None`` before the first and
            after a return.
        ewma_at: Monotonic seconds of its last update.
        ended: Where ``end`` reports, if a policy asked for it.
    """

    __slots__ = (
        "consecutive_failures",
        "cooling",
        "draining",
        "ejected_until",
        "ejection_ended_at",
        "ejection_level",
        "ejections",
        "ended",
        "ewma_at",
        "ewma_seconds",
        "failures",
        "healthy",
        "history",
        "in_flight",
        "in_flight_limit",
        "latency_ms",
        "max_in_flight",
        "max_requests",
        "metadata",
        "probe_run",
        "probed",
        "removed",
        "requests_in_window",
        "settings",
        "successes",
        "tier",
        "url",
        "weight",
        "window_limit",
    )

    def __init__(self, settings: DestinationSettings) -> None:
        self.configure(settings)
        self.in_flight: int = 0
        self.requests_in_window: int = 0
        self.healthy: bool = True
        self.latency_ms: float | None = None
        self.ejected_until: float | None = None
        self.cooling: bool = False
        self.ejections: int = 0
        self.draining: bool = False
        self.removed: bool = False
        self.successes: int = 0
        self.failures: int = 0
        self.consecutive_failures: int = 0
        self.history: tuple[RollingTotal, RollingCount] | None = None
        self.ejection_level: int = 0
        self.ejection_ended_at: float = 0.0
        self.probed: bool = False
        self.probe_run: int = 0
        self.ewma_seconds: float | None = None
        self.ewma_at: float = 0.0
        self.ended: set[Destination] | None = None

    def configure(self, settings: DestinationSettings) -> None:
        """Take over settings for the same address; counts and health stay."""
        self.settings: DestinationSettings = settings
        self.url: str = settings.url
        self.weight: float = settings.weight
        self.tier: int = settings.tier
        self.max_in_flight: int | None = settings.max_in_flight
        self.max_requests: int | None = settings.max_requests
        self.metadata: Mapping[str, str] = settings.metadata
        # Infinity instead of None, so that the check at the pick is one comparison.
        self.in_flight_limit: float = inf if self.max_in_flight is None else self.max_in_flight
        self.window_limit: float = inf if self.max_requests is None else self.max_requests

    def __repr__(self) -> str:
        flags = "".join(
            f" {word}"
            for word, on in (
                ("unhealthy", not self.healthy),
                ("ejected", self.ejected_until is not None),
                ("draining", self.draining),
                ("removed", self.removed),
            )
            if on
        )
        return f"<Destination {self.url} in_flight={self.in_flight}{flags}>"

    @property
    def address(self) -> Address:
        """The parsed address, as the settings give it."""
        return self.settings.address

    @property
    def available(self) -> bool:
        """Whether it may be picked: healthy, not ejected, not draining."""
        return self.healthy and self.ejected_until is None and not self.draining

    @property
    def full(self) -> bool:
        """Whether one of its own limits leaves no room for another request now."""
        return (
            self.in_flight >= self.in_flight_limit or self.requests_in_window >= self.window_limit
        )

    def begin(self) -> None:
        """Count a request that is about to be sent here."""
        self.in_flight += 1
        self.requests_in_window += 1

    def end(self) -> None:
        """Count it as over, however it ended. Once per ``begin``."""
        self.in_flight -= 1
        if self.ended is not None:
            self.ended.add(self)
