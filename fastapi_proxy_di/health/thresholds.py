"""Decides after how many probe results in a row a destination's health changes.

The file counts the results and decides; the supervisor calls ``Pool.set_health``.
"""

from __future__ import annotations

from collections.abc import Iterable

from fastapi_proxy_di.pools.destination import Destination

__all__ = ["Threshold"]


class Threshold:
    """Hysteresis between healthy and unhealthy.

    Attributes:
        fall: Failed probes in a row that make a destination unhealthy; may be changed.
        rise: Good probes in a row that make it healthy again; may be changed.
    """

    __slots__ = ("_runs", "fall", "rise")

    def __init__(self, fall: int, rise: int) -> None:
        self.fall: int = fall
        self.rise: int = rise
        # For each probed destination, the results in a row that contradict its health.
        self._runs: dict[Destination, int] = {}

    def observe(self, destination: Destination, ok: bool) -> bool:
        """Count one probe result; return whether the destination's health becomes ``ok``.

        The first result decides at once: until then nothing is known, and a destination that
        is down at start should get no request.
        """
        if destination.removed:
            return False
        run = self._runs.get(destination)
        if destination.healthy == ok:
            self._runs[destination] = 0
            return False
        if run is not None and run + 1 < (self.rise if ok else self.fall):
            self._runs[destination] = run + 1
            return False
        self._runs[destination] = 0
        return True

    def has_observed(self, destination: Destination) -> bool:
        """Whether any probe of the destination has ended."""
        return destination in self._runs

    def failing(self, destination: Destination) -> bool:
        """Whether the destination is unhealthy, or its last probe failed."""
        return not destination.healthy or self._runs.get(destination, 0) > 0

    def follow(self, destination: Destination) -> None:
        """Take a result of another process as observed; new results are counted from zero."""
        self._runs[destination] = 0

    def forget(self, destinations: Iterable[Destination]) -> None:
        """Drop the results of ``destinations``."""
        for destination in destinations:
            self._runs.pop(destination, None)
