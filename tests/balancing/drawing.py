"""Counts picks: the share that each destination gets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from fastapi_proxy_di.balancing.policy import BalancingPolicy
from fastapi_proxy_di.pools.destination import Destination
from tests.support.requests_in_flight import begin


class Keyed:
    """A request with a key for ``hash``."""

    def __init__(self, key: bytes | None) -> None:
        self._key = key

    def key(self) -> bytes | None:
        """Give the key."""
        return self._key


def picked(policy: BalancingPolicy, available: Sequence[Destination]) -> Destination:
    """Pick from a snapshot that is not empty."""
    destination = policy.pick(available, None)
    assert destination is not None
    return destination


def shares(
    policy: BalancingPolicy,
    available: Sequence[Destination],
    picks: int,
    *,
    busy: bool = False,
) -> list[float]:
    """Give each destination's share of the picks; ``busy`` requests never end."""
    counts: Counter[Destination] = Counter()
    for _ in range(picks):
        destination = picked(policy, available)
        counts[destination] += 1
        if busy:
            begin(destination)
    return [counts[destination] / picks for destination in available]
