"""Policy ``round_robin``: each destination in turn, by weight, smoothly.

Every destination has a deadline that lies ``1 / weight`` after its last one; the destination
with the earliest deadline is picked. So in any run of picks each destination gets its share
within one pick, heavy destinations are picked evenly and not in bursts, and weights need not be
whole numbers. With equal weights a plain cursor does the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from heapq import heapify, heapreplace
from random import Random

from fastapi_proxy_di.balancing.policy import PickRequest
from fastapi_proxy_di.balancing.snapshots import Snapshots
from fastapi_proxy_di.pools.destination import Destination

__all__ = ["RoundRobin"]


class RoundRobin:
    """Smooth weighted round robin. O(1), O(log n) with unequal weights."""

    name = "round_robin"

    def __init__(self, *, random: Random) -> None:
        self._random = random
        self._snapshots = Snapshots(self._turn)

    def pick(
        self, available: Sequence[Destination], request: PickRequest | None = None
    ) -> Destination | None:
        """Pick the next in turn, ``None`` if there is none."""
        if not available:
            return None
        return self._snapshots.get(available).next()

    def __copy__(self) -> RoundRobin:
        twin = RoundRobin(random=self._random)
        twin._snapshots = copy(self._snapshots)
        return twin

    def _turn(self, available: Sequence[Destination]) -> _Cursor | _Deadlines:
        # Turns begin at random: if each change of the pool began with the first, a pool that
        # changes often would favour it.
        if len({destination.weight for destination in available}) == 1:
            return _Cursor(available, self._random.randrange(len(available)))
        return _Deadlines(available, self._random)


class _Cursor:
    __slots__ = ("_at", "_available", "_count")

    def __init__(self, available: Sequence[Destination], at: int) -> None:
        self._available = available
        self._count = len(available)
        self._at = at

    def next(self) -> Destination:
        at = self._at
        self._at = at + 1 if at + 1 < self._count else 0
        return self._available[at]


class _Deadlines:
    __slots__ = ("_heap",)

    def __init__(self, available: Sequence[Destination], random: Random) -> None:
        # The index breaks ties, so destinations are never compared.
        self._heap = [
            (random.random() / destination.weight, index, 1 / destination.weight, destination)
            for index, destination in enumerate(available)
        ]
        heapify(self._heap)

    def __copy__(self) -> _Deadlines:
        twin = _Deadlines.__new__(_Deadlines)
        twin._heap = self._heap.copy()  # noqa: SLF001  # its own kind
        return twin

    def next(self) -> Destination:
        deadline, index, period, destination = self._heap[0]
        heapreplace(self._heap, (deadline + period, index, period, destination))
        return destination
