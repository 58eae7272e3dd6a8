"""Policy ``random``: any available destination, in proportion to weight."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from random import Random

from fastapi_proxy_di.balancing.policy import PickRequest
from fastapi_proxy_di.balancing.snapshots import Snapshots
from fastapi_proxy_di.balancing.weights import cumulative_weights
from fastapi_proxy_di.pools.destination import Destination

__all__ = ["RandomChoice"]


class RandomChoice:
    """Picks by an independent weighted draw. O(1), O(log n) with unequal weights."""

    name = "random"

    def __init__(self, *, random: Random) -> None:
        self._draw = random.random
        self._snapshots = Snapshots(cumulative_weights)

    def pick(
        self, available: Sequence[Destination], request: PickRequest | None = None
    ) -> Destination | None:
        """Pick one, ``None`` if there is none."""
        count = len(available)
        if count < 2:
            return available[0] if count else None
        cumulative = self._snapshots.get(available)
        if cumulative is None:
            return available[int(self._draw() * count)]
        return available[bisect(cumulative, self._draw() * cumulative[-1], 0, count - 1)]
