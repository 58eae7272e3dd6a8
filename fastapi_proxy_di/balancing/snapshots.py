"""Caches the data that a policy derives from a snapshot, by the identity of the snapshot.

Deriving the data at each pick would cost O(n). Several snapshots are kept, because a spill-over
asks one policy about several tiers in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Final, Generic, TypeVar

from fastapi_proxy_di.pools.destination import Destination

__all__ = ["Snapshots"]

T = TypeVar("T")

_KEPT: Final = 8


class Snapshots(Generic[T]):
    """Derived data by the identity of the tuple from which it is derived."""

    __slots__ = ("_derive", "_kept")

    def __init__(self, derive: Callable[[Sequence[Destination]], T]) -> None:
        self._derive = derive
        # The key's tuple is held in the value, so an id cannot be reused meanwhile.
        self._kept: dict[int, tuple[Sequence[Destination], T]] = {}

    def __copy__(self) -> Snapshots[T]:
        """Give a copy whose data changes independently, for ``Balancer.peek``."""
        twin = Snapshots(self._derive)
        twin._kept = {key: (kept[0], copy(kept[1])) for key, kept in self._kept.items()}
        return twin

    def get(self, available: Sequence[Destination]) -> T:
        """Give the data of ``available``, derived at the first call."""
        kept = self._kept.get(id(available))
        if kept is not None:
            return kept[1]
        if len(self._kept) >= _KEPT:
            del self._kept[next(iter(self._kept))]
        derived = self._derive(available)
        self._kept[id(available)] = (available, derived)
        return derived
