"""Picks in numbers: distributions, and their cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from time import perf_counter

from fastapi_proxy_di.balancing.policy import BalancingPolicy, PickRequest
from fastapi_proxy_di.pools.destination import Destination


class Keyed:
    """A request with a key for ``hash``."""

    def __init__(self, key: bytes | None) -> None:
        self._key = key

    def key(self) -> bytes | None:
        """Give the key."""
        return self._key


def picked(policy: BalancingPolicy, available: Sequence[Destination]) -> Destination:
    """One pick from a snapshot that has one to give."""
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
    """Share of the picks that each destination gets; ``busy`` requests never end."""
    counts: Counter[Destination] = Counter()
    for _ in range(picks):
        destination = picked(policy, available)
        counts[destination] += 1
        if busy:
            destination.begin()
    return [counts[destination] / picks for destination in available]


def seconds_per_pick(
    policy: BalancingPolicy,
    available: Sequence[Destination],
    request: Callable[[int], PickRequest | None] = lambda _: None,
    *,
    picks: int = 3000,
) -> float:
    """Best of five of a pick with its begin and the end of an earlier one."""
    best = float("inf")
    running: list[Destination] = []
    policy.pick(available, request(0))
    for _ in range(5):
        started = perf_counter()
        for number in range(picks):
            destination = policy.pick(available, request(number))
            assert destination is not None
            destination.begin()
            running.append(destination)
            if len(running) > 50:
                running.pop(0).end()
        best = min(best, (perf_counter() - started) / picks)
    return best
