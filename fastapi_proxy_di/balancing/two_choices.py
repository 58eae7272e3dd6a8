"""Policy ``power_of_two_choices``, the default: draw two, take the less loaded.

With two random choices the fullest destination is within O(log log n) of the mean (Azar, Broder,
Karlin, Upfal: "Balanced Allocations", 1994), and only two destinations are compared. Many
proxies that share the destinations do not all pick the same one, as they do with the least
loaded of all. A pick is part of the hot path and takes less than a microsecond.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from random import Random

from fastapi_proxy_di.balancing.policy import PickRequest
from fastapi_proxy_di.balancing.snapshots import Snapshots
from fastapi_proxy_di.balancing.weights import cumulative_weights
from fastapi_proxy_di.pools.destination import Destination

__all__ = ["TwoChoices"]


class TwoChoices:
    """Draws two distinct destinations by weight, and picks the one with less load per weight."""

    name = "power_of_two_choices"

    def __init__(self, *, random: Random) -> None:
        self._draw = random.random
        self._snapshots = Snapshots(cumulative_weights)
        self._available: Sequence[Destination] = ()
        self._cumulative: list[float] | None = None

    def pick(
        self, available: Sequence[Destination], request: PickRequest | None = None
    ) -> Destination | None:
        """Pick one, ``None`` if there is none. O(1), O(log n) with unequal weights."""
        count = len(available)
        if count < 2:
            return available[0] if count else None
        if available is not self._available:
            self._cumulative = self._snapshots.get(available)
            self._available = available
        draw = self._draw
        cumulative = self._cumulative
        if cumulative is None:
            one = int(draw() * count)
            other = int(draw() * (count - 1))
            # Skipping the first draw makes the second distinct without a loop.
            if other >= one:
                other += 1
            first, second = available[one], available[other]
            return first if first.in_flight <= second.in_flight else second
        total = cumulative[-1]
        one = bisect(cumulative, draw() * total, 0, count - 1)
        other = bisect(cumulative, draw() * total, 0, count - 1)
        if other == one:
            other = int(draw() * (count - 1))
            if other >= one:
                other += 1
        first, second = available[one], available[other]
        # At a tie, as in an idle pool, taking the first draw keeps the shares by weight.
        if first.in_flight * second.weight <= second.in_flight * first.weight:
            return first
        return second
