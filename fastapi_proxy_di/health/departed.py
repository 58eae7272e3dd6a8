"""Remembers the health of destinations that left the pool, for those whose address comes back.

A name server may leave an address out of one response and give it in the next one; an ejection
must not end by that. Pure: callers pass the time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from fastapi_proxy_di.health.ejection import EjectionRecord, Ejector
from fastapi_proxy_di.pools.destination import Destination

__all__ = ["Departed"]

REMEMBERED: Final = 1000
"""Addresses that are remembered; the one that left first goes first."""


class Departed:
    """The destinations that left a pool not long ago.

    Args:
        ejector: Keeps the records of failures.
        keep: Seconds that an address is remembered.
    """

    __slots__ = ("_ejector", "_keep", "_left")

    def __init__(self, ejector: Ejector, keep: float) -> None:
        self._ejector = ejector
        self._keep = keep
        self._left: dict[str, tuple[float, Destination, EjectionRecord | None]] = {}

    def keep(self, seconds: float) -> None:
        """Remember addresses for ``seconds`` from now on."""
        self._keep = seconds

    def note(self, removed: Iterable[Destination], now: float) -> None:
        """Remember destinations that left the pool at ``now`` (monotonic seconds)."""
        for one in removed:
            self._left.pop(one.url, None)
            self._left[one.url] = (now, one, self._ejector.release(one))
        for url in [url for url, (at, _, _) in self._left.items() if now - at >= self._keep]:
            del self._left[url]
        while len(self._left) > REMEMBERED:
            del self._left[next(iter(self._left))]

    def restore(self, fresh: Destination, now: float) -> None:
        """Give a destination that joins the pool what its address had when it left.

        These are its counts, its running ejection, and, if it is probed, that it was unhealthy.
        """
        at, before, record = self._left.pop(fresh.url, (0.0, None, None))
        if before is None or now - at >= self._keep:
            return
        if before.ejected_until is not None and before.ejected_until > now:
            fresh.ejected_until = before.ejected_until
            fresh.cooling = before.cooling
        fresh.healthy = before.healthy or not fresh.awaits_probe
        fresh.successes, fresh.failures = before.successes, before.failures
        fresh.completed, fresh.ejections = before.completed, before.ejections
        if record is not None:
            self._ejector.inherit(fresh, record)
