"""The cumulative weights of a snapshot, for draws in proportion to weight."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from fastapi_proxy_di.pools.destination import Destination

__all__ = ["cumulative_weights"]


def cumulative_weights(available: Sequence[Destination]) -> list[float] | None:
    """Give running sums of the weights for ``bisect``, ``None`` if all are equal.

    With equal weights, the usual case, a policy draws an index in O(1) instead.
    """
    weights = [destination.weight for destination in available]
    if len(set(weights)) <= 1:
        return None
    return list(accumulate(weights))
