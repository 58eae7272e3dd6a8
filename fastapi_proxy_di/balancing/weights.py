"""Draws in proportion to weight.

Owns: the cumulative weights of a snapshot. Must not know: policies, loads.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from fastapi_proxy_di.pools.destination import Destination

__all__ = ["cumulative_weights"]


def cumulative_weights(available: Sequence[Destination]) -> list[float] | None:
    """Give running sums of the weights for ``bisect``, ``None`` if all are equal.

    ``None`` lets equal weights, the usual case, be drawn by index in O(1).
    """
    weights = [destination.weight for destination in available]
    if len(set(weights)) <= 1:
        return None
    return list(accumulate(weights))
