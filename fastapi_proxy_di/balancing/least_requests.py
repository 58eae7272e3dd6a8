"""Policy ``least_requests``: the destination with the fewest requests in flight per weight.

Owns: an exact minimum at O(log n) amortised, although loads change outside.

A heap of loads is kept lazily. A load that grew is noticed when it surfaces and is sunk to
its place. A load that shrank must not be missed, so each destination reports its ``end``
(and each turn of its window) to a list which the next pick works off. Each request begins
and ends once, hence the amortised cost. A full destination sinks to infinity until it
reports. Ties are taken in turn, because every pick moves to the end of its load.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush, heapreplace
from math import inf
from random import Random
from typing import Final

from fastapi_proxy_di.balancing.policy import PickRequest
from fastapi_proxy_di.balancing.snapshots import Snapshots
from fastapi_proxy_di.pools.destination import Destination

__all__ = ["LeastRequests"]

# Entries per destination, obsolete ones among them, at which the heap is built anew.
_OBSOLETE_FACTOR: Final = 4


class LeastRequests:
    """Least loaded of all, exactly; loads are requests in flight divided by weight."""

    name = "least_requests"

    def __init__(self, *, random: Random) -> None:
        self._snapshots = Snapshots(lambda available: _Loads(available, random))

    def pick(
        self, available: Sequence[Destination], request: PickRequest | None = None
    ) -> Destination | None:
        """Give the least loaded with room, ``None`` if all are full or there is none."""
        return self._snapshots.get(available).least() if available else None

    def order(
        self, available: Sequence[Destination], request: PickRequest | None = None
    ) -> Iterator[Destination]:
        """Give them least loaded first. O(n log n): only when a pick was refused."""
        return iter(sorted(available, key=lambda one: one.in_flight / one.weight))


class _Loads:
    """A heap of ``(load, turn, index)``; the entry with an index's last turn is in force."""

    __slots__ = ("_available", "_ended", "_heap", "_index", "_turn", "_turns")

    def __init__(self, available: Sequence[Destination], random: Random) -> None:
        self._available = available
        self._index = {destination: at for at, destination in enumerate(available)}
        # Shuffled, or each change of the pool would begin its ties with the first.
        self._turns = random.sample(range(len(available)), len(available))
        self._turn = len(available)
        self._ended: set[Destination] = set()
        for destination in available:
            destination.ended = self._ended
        self._build()

    def least(self) -> Destination | None:
        if self._ended:
            for destination in self._ended:
                self._push(self._index[destination])
            self._ended.clear()
            if len(self._heap) > _OBSOLETE_FACTOR * len(self._available):
                self._build()
        heap, turns = self._heap, self._turns
        while True:
            load, turn, at = heap[0]
            if turn != turns[at]:
                heappop(heap)
                continue
            destination = self._available[at]
            actual = _load(destination)
            # Whether sunk to its true load or picked, it goes behind its equals.
            self._turn += 1
            turns[at] = self._turn
            heapreplace(heap, (actual, self._turn, at))
            if actual == load:
                return destination if load < inf else None

    def _push(self, at: int) -> None:
        self._turn += 1
        self._turns[at] = self._turn
        heappush(self._heap, (_load(self._available[at]), self._turn, at))

    def _build(self) -> None:
        self._heap = [
            (_load(destination), turn, at)
            for at, (destination, turn) in enumerate(zip(self._available, self._turns, strict=True))
        ]
        heapify(self._heap)


def _load(destination: Destination) -> float:
    return inf if destination.full else destination.in_flight / destination.weight
