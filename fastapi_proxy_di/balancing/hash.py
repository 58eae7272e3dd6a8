"""Policy ``hash``: requests with the same key go to the same destination, with bounded load.

Consistent hashing: each destination has many points on a ring, and a key goes to the next
point clockwise. When a destination leaves, only its own keys move; when it returns, only they
come back. With bounded loads (Mirrokni, Thorup, Zadimoghaddam, 2016) the keys of a destination
that has more than 1.25 times its share of the requests in flight go to the next one on the
ring, so that a popular key cannot overload its destination.

Points are a stable digest of address and number, so all workers and restarts send a key to the
same destination.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from operator import attrgetter
from random import Random
from struct import Struct
from typing import Final

from fastapi_proxy_di.balancing.policy import PickRequest
from fastapi_proxy_di.balancing.snapshots import Snapshots
from fastapi_proxy_di.balancing.two_choices import TwoChoices
from fastapi_proxy_di.pools.destination import Destination

__all__ = ["Hash"]

LOAD_FACTOR: Final = 1.25
# A destination with fewer requests than this in flight keeps its keys: the bound is for high
# load, and a few requests in flight are no load.
_UNBOUNDED_IN_FLIGHT: Final = 8
# Shares of keys then differ by about 9 % (1 / sqrt(128)).
_POINTS_PER_WEIGHT: Final = 128
# A ring of 65,536 points takes 17 ms to change on CPython 3.11; a bigger one would stall
# the event loop at each flip of health.
_RING_POINTS: Final = 65_536
_EIGHT: Final = Struct("<8Q")


class Hash:
    """Picks on a ring with bounded load; by two choices when there is no key.

    A pick costs O(log n). A change of the pool costs O(points of the ring); digests are kept.

    Args:
        random: Used for requests without a key.
        weigh: Gives a destination's share of the ring relative to the others.
    """

    name = "hash"

    def __init__(
        self, *, random: Random, weigh: Callable[[Destination], float] = attrgetter("weight")
    ) -> None:
        self._weigh = weigh
        self._without_key = TwoChoices(random=random)
        self._snapshots = Snapshots(self._derive)
        self._points: dict[str, tuple[int, ...]] = {}

    def pick(
        self, available: Sequence[Destination], request: PickRequest | None = None
    ) -> Destination | None:
        """Pick the destination of the request's key, ``None`` if there is none."""
        key = request.key() if request is not None else None
        if key is None or len(available) < 2:
            return self._without_key.pick(available, request)
        return self._snapshots.get(available).pick(key)

    def order(
        self, available: Sequence[Destination], request: PickRequest | None = None
    ) -> Iterator[Destination]:
        """Return all destinations, also full ones, in the order of the ring from the key on."""
        key = request.key() if request is not None else None
        if key is None:
            return iter(sorted(available, key=lambda one: one.in_flight / one.weight))
        return self._snapshots.get(available).walk(key)

    def _derive(self, available: Sequence[Destination]) -> _Ring:
        total = sum(map(self._weigh, available))
        # The scale is halved, not fitted: one that followed every change of the pool would
        # move the points of all destinations each time.
        scale = float(_POINTS_PER_WEIGHT)
        while total * scale > _RING_POINTS:
            scale /= 2
        owners: dict[int, Destination] = {}
        kept = {}
        for destination in available:
            count = max(1, round(self._weigh(destination) * scale))
            points = self._points.get(destination.url, ())
            if len(points) < count:
                points = _digests(destination.url, count)
            kept[destination.url] = points
            for point in points[:count]:
                owners[point] = destination
        # Destinations that are unavailable for a while keep their digests.
        if len(self._points) > 2 * len(available) + 16:
            self._points = kept
        else:
            self._points.update(kept)
        return _Ring(available, owners, total)


class _Ring:
    __slots__ = ("_available", "_in_flight", "_owners", "_picks_left", "_points", "_total")

    def __init__(
        self, available: Sequence[Destination], owners: dict[int, Destination], total: float
    ) -> None:
        self._available = available
        self._owners = owners
        self._points = sorted(owners)
        self._total = total
        self._in_flight = 0
        self._picks_left = 0

    def pick(self, key: bytes) -> Destination | None:
        # The requests in flight are summed every n picks, so a pick is O(1) amortised. In
        # between each pick adds one and no end is seen, so the sum is never too low.
        self._picks_left -= 1
        if self._picks_left < 0:
            self._picks_left = len(self._available)
            self._in_flight = sum(destination.in_flight for destination in self._available)
        self._in_flight += 1
        per_weight = LOAD_FACTOR * self._in_flight / self._total
        points, owners = self._points, self._owners
        count = len(points)
        at = bisect(points, _digest(key))
        for step in range(at, at + count):
            destination = owners[points[step if step < count else step - count]]
            in_flight = destination.in_flight
            # "<" because one more request must stay within the bound, rounded up.
            if in_flight < _UNBOUNDED_IN_FLIGHT or in_flight < per_weight * destination.weight:
                return destination
        return None

    def walk(self, key: bytes) -> Iterator[Destination]:
        points, count = self._points, len(self._points)
        at = bisect(points, _digest(key))
        seen: set[Destination] = set()
        for step in range(at, at + count):
            destination = self._owners[points[step if step < count else step - count]]
            if destination not in seen:
                seen.add(destination)
                yield destination


def _digest(key: bytes) -> int:
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "little")


def _digests(url: str, count: int) -> tuple[int, ...]:
    name = url.encode()
    points: list[int] = []
    while len(points) < count:
        number = len(points).to_bytes(4, "little")
        points += _EIGHT.unpack(blake2b(name, digest_size=64, salt=number).digest())
    return tuple(points)
