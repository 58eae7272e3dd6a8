"""Makes a list the destinations of a running upstream."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from fastapi_proxy_di.settings import DestinationSettings

if TYPE_CHECKING:
    from fastapi_proxy_di.upstream.running import RunningUpstream

__all__ = ["replace_destinations"]


def replace_destinations(
    running: RunningUpstream,
    settings: Sequence[DestinationSettings],
    *,
    found: Collection[str],
    starting: bool,
) -> None:
    """Replace all destinations at once; those that stay keep connections, counts and health.

    Args:
        running: The upstream.
        settings: The settings of each destination, with distinct addresses.
        found: Addresses of those that sources found.
        starting: Whether the upstream is starting, so that all destinations are probed
            afterwards anyway.

    Raises:
        ValueError: The settings of the upstream do not fit one of them; nothing has changed.
    """
    known = {one.url: one.address for one in running.pool.destinations}
    # Made first: if it fails, nothing has changed yet.
    made = running.transports.make(one for one in settings if known.get(one.url) != one.address)
    probed = running.prober.settings.enabled and not starting
    added, removed = running.supervisor.replace(settings, found=found, await_probe=probed)
    running.metrics.replaced(added, removed)
    running.changes.replaced(added, removed)
    running.transports.add(added, made)
    if running.shared is not None:
        running.shared.restore(added)
    for destination in removed:
        _ = running.own(running.transports.retire(destination), f"retiring {destination.url}")
    if not starting:
        running.prober.start()
