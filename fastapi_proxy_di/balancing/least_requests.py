"""Policy ``least_requests``: the destination with the fewest requests in flight per weight.

The minimum is exact and costs O(log n) amortised, although loads change between picks.

Loads are kept in a heap that is updated lazily. A load that grew is noticed when its entry is
at the top, and the entry is moved. A load that fell must not be missed: when a request ends or
its window turns, the destination adds itself to a set, and the next pick moves the entries of
this set. Each request begins and ends once, hence the amortised cost. A full destination has an
infinite load. Ties, above all in an idle pool, are broken in turn by weight: each pick defers
the destination's next turn by ``1 / weight`` (as nginx ``least_conn`` does).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from heapq import heapify, heappop, heappush, heapreplace
from math import inf
from random import Random
from typing import Final

from fastapi_proxy_di.balancing.policy import PickRequest
from fastapi_proxy_di.balancing.snapshots import Snapshots
from fastapi_proxy_di.pools.destination import Destination

__all__ = ["LeastRequests"]

# Entries per destination, obsolete ones among them, at which the heap is rebuilt.
_OBSOLETE_FACTOR: Final = 4


class LeastRequests:
    """Picks the least loaded of all; loads are requests in flight divided by weight."""

    name = "least_requests"

    def __init__(self, *, random: Random) -> None:
        self._random = random
        self._snapshots = Snapshots(self._loads)

    def pick(
        self, available: Sequence[Destination], request: PickRequest | None = None
    ) -> Destination | None:
        """Pick the least loaded with room, ``None`` if all are full or there is none."""
        return self._snapshots.get(available).least() if available else None

    def order(
        self, available: Sequence[Destination], request: PickRequest | None = None
    ) -> Iterator[Destination]:
        """Give the destinations, least loaded first. O(n log n): only when a pick was refused."""
        return iter(sorted(available, key=lambda one: one.in_flight / one.weight))

    def __copy__(self) -> LeastRequests:
        twin = LeastRequests(random=self._random)
        twin._snapshots = copy(self._snapshots)
        return twin

    def _loads(self, available: Sequence[Destination]) -> _Loads:
        return _Loads(available, self._random)


class _Loads:
    """A heap of ``(load, turn, index)``; only the last entry of an index counts."""

    __slots__ = ("_available", "_entries", "_fallen", "_heap", "_index", "_now", "_turns")

    def __init__(self, available: Sequence[Destination], random: Random) -> None:
        self._available = available
        self._index = {destination: at for at, destination in enumerate(available)}
        # Turns begin at random, else ties after each change of the pool would favour the first.
        self._turns = [random.random() / destination.weight for destination in available]
        self._now = 0.0  # the turn of the last pick
        self._fallen: set[Destination] = set()
        for destination in available:
            destination.report_falls(self._fallen)
        self._build()

    def __copy__(self) -> _Loads:
        twin = _Loads.__new__(_Loads)
        for name in self.__slots__:  # `_fallen` too: no destination adds itself to the copy's
            setattr(twin, name, copy(getattr(self, name)))
        return twin

    def least(self) -> Destination | None:
        if self._fallen:
            for destination in self._fallen:
                self._push(self._index[destination])
            self._fallen.clear()
            if len(self._heap) > _OBSOLETE_FACTOR * len(self._available):
                self._build()
        heap, entries, turns = self._heap, self._entries, self._turns
        while True:
            entry = heap[0]
            load, turn, at = entry
            if entry is not entries[at]:
                heappop(heap)
                continue
            destination = self._available[at]
            actual = _load(destination)
            if actual == load and load < inf:
                # A destination that was busy for long must not get all missed turns at once.
                self._now = max(self._now, turn)
                turns[at] = self._now + 1 / destination.weight
            entries[at] = (actual, turns[at], at)
            heapreplace(heap, entries[at])
            if actual == load:
                return destination if load < inf else None

    def _push(self, at: int) -> None:
        self._entries[at] = (_load(self._available[at]), self._turns[at], at)
        heappush(self._heap, self._entries[at])

    def _build(self) -> None:
        self._entries = [
            (_load(destination), turn, at)
            for at, (destination, turn) in enumerate(zip(self._available, self._turns, strict=True))
        ]
        self._heap = self._entries.copy()
        heapify(self._heap)


def _load(destination: Destination) -> float:
    return inf if destination.full else destination.in_flight / destination.weight
