"""Remembers the health of destinations that left the pool, for those whose address comes back.

A name server may leave an address out of one response and give it in the next one; an ejection
must not end by that, nor a drain that an operator asked for. Pure: callers pass the time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

from fastapi_proxy_di.health.ejection import EjectionRecord, Ejector
from fastapi_proxy_di.pools.destination import Destination

__all__ = ["Departed"]

REMEMBERED: Final = 1000
"""Addresses that are remembered; the one that left first goes first."""


class _Left(NamedTuple):
    """A destination that left the pool.

    Attributes:
        at: When it left, in monotonic seconds.
        destination: The destination, as it was then.
        drained: Whether it was drained already. The pool marks all that leave as draining.
        record: Its record of failures.
    """

    at: float
    destination: Destination
    drained: bool
    record: EjectionRecord | None


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
        self._left: dict[str, _Left] = {}

    def keep(self, seconds: float) -> None:
        """Remember addresses for ``seconds`` from now on."""
        self._keep = seconds

    def note(
        self, removed: Iterable[Destination], drained: Collection[Destination], now: float
    ) -> None:
        """Remember destinations that left the pool at ``now`` (monotonic seconds).

        Args:
            removed: The destinations.
            drained: Those that were drained before they left.
            now: The time.
        """
        for one in removed:
            self._left.pop(one.url, None)
            self._left[one.url] = _Left(now, one, one in drained, self._ejector.release(one))
        for url in [url for url, left in self._left.items() if now - left.at >= self._keep]:
            del self._left[url]
        while len(self._left) > REMEMBERED:
            del self._left[next(iter(self._left))]

    def restore(self, fresh: Destination, now: float, *, found: bool) -> None:
        """Give a destination that joins the pool what its address had when it left.

        These are its counts, its running ejection, if it is probed, that it was unhealthy, and,
        if a source found it, that it was drained. Code that adds an address again wants it to
        take requests.

        Args:
            fresh: The destination.
            now: The time, in monotonic seconds.
            found: Whether a source found it.
        """
        left = self._left.pop(fresh.url, None)
        if left is None or now - left.at >= self._keep:
            return
        before = left.destination
        fresh.draining = found and left.drained
        if before.ejected_until is not None and before.ejected_until > now:
            fresh.ejected_until = before.ejected_until
            fresh.cooling = before.cooling
        fresh.healthy = before.healthy or not fresh.awaits_probe
        fresh.successes, fresh.failures = before.successes, before.failures
        fresh.completed, fresh.ejections = before.completed, before.ejections
        if left.record is not None:
            self._ejector.inherit(fresh, left.record)
