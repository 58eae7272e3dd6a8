"""Slow start: a destination that comes back gets its weight bit by bit.

Owns: who is warming up, and the weight that is due. Must not know: timers, policies. The
weights reach the policies through ``Pool.set_weight``, a few times per return, so that no
pick pays for it.
"""

from __future__ import annotations

from typing import Final

from fastapi_proxy_di.pools.destination import Destination

__all__ = ["SlowStart", "ramped_share"]

# Envoy's minimum: with less, a warm-up would hardly begin.
_FIRST_SHARE: Final = 0.1
_STEPS: Final = 10


def ramped_share(elapsed: float, duration: float) -> float:
    """Give the share of its weight ``elapsed`` of ``duration`` seconds after a return.

    From a tenth to the whole in ten equal steps.
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
        """Seconds between two calls of ``due``, ``None`` while nobody warms up."""
        return self._duration / _STEPS if self._began else None

    def begin(self, destination: Destination, now: float) -> None:
        """Note that it came back at ``now``: up after being down, or readmitted.

        Nothing happens at start: when all begin together there is nothing to protect.
        """
        if self._duration > 0:
            self._began[destination] = now

    def due(self, now: float) -> list[tuple[Destination, float]]:
        """Give the weights that are due at ``now``, for ``Pool.set_weight``."""
        weights = []
        for destination, began in list(self._began.items()):
            share = ramped_share(now - began, self._duration)
            if share == 1.0 or destination.removed:
                del self._began[destination]
            weights.append((destination, destination.settings.weight * share))
        return weights
