"""Changes a running upstream: drain, replace, configure.

Each change passes the same validation as the setting that it replaces.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, Final, TypedDict

from pydantic import BaseModel

from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.settings import Destinations, DestinationSettings, HealthSettings
from fastapi_proxy_di.upstream.rules import secret_headers
from fastapi_proxy_di.upstream.running import RunningUpstream
from fastapi_proxy_di.wire.addresses import shown_address

__all__ = [
    "Control",
    "DestinationChanges",
    "HealthChanges",
    "UnknownDestination",
    "apply_health",
]

_LOOK_SECONDS: Final = 0.05
"""Seconds between two checks whether a draining destination is empty."""


class HealthChanges(TypedDict, total=False):
    """Arguments of ``Balancer.configure_health``; see ``HealthSettings`` for their meaning."""

    path: str | None
    interval: float | str
    timeout: float | str
    unhealthy_interval: float | str | None
    fall: int
    rise: int


class DestinationChanges(TypedDict, total=False):
    """Arguments of ``Balancer.configure_destination``; see ``DestinationSettings``."""

    max_requests: int | None
    max_in_flight: int | None
    weight: float
    tier: int
    health_path: str | None


class UnknownDestination(ValueError):
    """The upstream has no destination with this address."""


class Control:
    """The changes of a running upstream that ``Balancer`` offers.

    Args:
        running: The upstream.
    """

    def __init__(self, running: RunningUpstream) -> None:
        self._running: Final = running

    def drain(self, url: str, timeout: float | None) -> Awaitable[None]:
        """Send no new requests to a destination; see ``Balancer.drain``."""
        destination = self._find(url)
        self._running.supervisor.drain(destination)
        self._share_drain(destination, on=True)
        if timeout is None:
            nothing_to_wait_for = asyncio.get_running_loop().create_future()
            nothing_to_wait_for.set_result(None)
            return nothing_to_wait_for
        return self._running.own(self._empty(destination, timeout), f"draining {destination.url}")

    def undrain(self, url: str) -> None:
        """Let a drained destination take requests again."""
        destination = self._find(url)
        self._running.supervisor.undrain(destination)
        self._share_drain(destination, on=False)

    def readmit(self, url: str) -> None:
        """End the ejection of a destination; see ``Balancer.readmit``."""
        self._running.supervisor.readmit(self._find(url))

    async def probe(self, url: str) -> bool:
        """Probe a destination now; see ``Balancer.probe``."""
        destination, prober = self._find(url), self._running.prober
        if not prober.settings.enabled:
            raise ValueError(f"{self._running.name} has no probes; set health.path")
        return await prober.probe(destination)

    def replace_destinations(self, destinations: Destinations) -> None:
        """Replace all destinations at once; see ``Balancer.replace_destinations``."""
        found = [
            DestinationSettings(url=one) if isinstance(one, str) else one for one in destinations
        ]
        if not found:
            raise ValueError("replace_destinations needs at least one destination")
        if len({one.url for one in found}) != len(found):
            raise ValueError("replace_destinations was given an address twice")
        self._running.refuse_if_closed()
        self._running.discovery.replace(found)

    def configure_destination(self, url: str, changes: DestinationChanges) -> None:
        """Change a destination; see ``Balancer.configure_destination``."""
        self._running.refuse_if_closed()
        url, shared = self._find(url).url, self._running.shared
        self._running.discovery.configure(url, changes)
        if shared is not None and "weight" in changes:
            shared.weigh(url, changes["weight"])

    def configure_health(self, changes: HealthChanges) -> None:
        """Change how destinations are probed; see ``Balancer.configure_health``."""
        running = self._running
        running.refuse_if_closed()
        changed = HealthSettings.model_validate({**_fields(running.prober.settings), **changes})
        if not changed.enabled and running.rules.policy.name == "latency":
            raise ValueError("path: the policy latency needs probes")
        apply_health(running, changed)
        if running.settings.max_requests_window is None:
            running.supervisor.set_window(changed.interval)

    def _share_drain(self, destination: Destination, *, on: bool) -> None:
        if self._running.shared is not None:
            self._running.shared.drain(destination.url, on=on)

    async def _empty(self, destination: Destination, timeout: float) -> None:
        """Wait until ``destination`` has nothing in flight; then close the tunnels that remain."""
        try:
            async with asyncio.timeout(timeout):
                while destination.in_flight:  # noqa: ASYNC110  # no event tells that a count is 0
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            for tunnel in self._running.tunnels.to(destination):
                tunnel.close(1001, "the destination is drained")

    def _find(self, url: str) -> Destination:
        running = self._running
        running.refuse_if_closed()
        found = running.pool.find(url)
        if found is None:
            known = ", ".join(one.url for one in running.pool.destinations)
            raise UnknownDestination(
                f"{running.name} has no destination {shown_address(url)!r}; it has {known}"
            )
        return found


def apply_health(
    running: RunningUpstream, settings: HealthSettings, *, headers: bool = False
) -> None:
    """Probe all destinations anew, by other settings.

    Args:
        running: The upstream.
        settings: The settings of probes.
        headers: Whether the headers of probes change, too.
    """
    running.supervisor.threshold.fall = settings.fall
    running.supervisor.threshold.rise = settings.rise
    running.prober.reconfigure(settings, secret_headers(settings.headers) if headers else None)
    if not settings.enabled:
        running.supervisor.unprobed()


def _fields(settings: BaseModel) -> dict[str, Any]:
    # Not `dict(settings)`, which also contains cached properties.
    return {name: getattr(settings, name) for name in type(settings).model_fields}
