"""Slow start: a destination that comes back gets its weight in steps.

The file computes which destinations are warming up, and their weight at a given time. The
supervisor sets these weights with ``Pool.set_weight`` ten times per warm-up, so slow start adds
no work to a pick.
"""

from __future__ import annotations

from typing import Final

from fastapi_proxy_di.pools.destination import Destination

__all__ = ["SlowStart", "ramped_share"]

# Envoy's minimum: with less a destination gets too few requests to warm up.
_FIRST_SHARE: Final = 0.1
_STEPS: Final = 10


def ramped_share(elapsed: float, duration: float) -> float:
    """Give the share of the weight at ``elapsed`` of ``duration`` seconds after a return.

    The share grows from a tenth to the whole in ten equal steps.
    """
    if elapsed >= duration:
        return 1.0
    return max(_FIRST_SHARE, int(elapsed / duration * _STEPS) / _STEPS)


class SlowStart:
    """The destinations of one pool that are warming up.

    Args:
        duration: Seconds until the full weight, 0 for at once.
    """

    __slots__ = ("_began", "_duration")

    def __init__(self, duration: float) -> None:
        self._duration = duration
        self._began: dict[Destination, float] = {}

    @property
    def step_seconds(self) -> float | None:
        """Seconds between two calls of ``due``, ``None`` while no destination warms up."""
        return self._duration / _STEPS if self._began else None

    def configure(self, duration: float) -> None:
        """Set the duration in seconds, also of warm-ups that have begun."""
        self._duration = duration

    def begin(self, destination: Destination, now: float) -> None:
        """Start the warm-up of a destination that became healthy or was readmitted at ``now``.

        Not called when the upstream starts, because then all destinations are cold.
        """
        if self._duration > 0:
            self._began[destination] = now

    def due(self, now: float) -> list[tuple[Destination, float]]:
        """Give the weights at ``now`` of the destinations that warm up."""
        weights = []
        for destination, began in list(self._began.items()):
            share = ramped_share(now - began, self._duration)
            if share == 1.0 or destination.removed:
                del self._began[destination]
            weights.append((destination, destination.settings.weight * share))
        return weights
