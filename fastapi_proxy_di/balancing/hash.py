"""Policy ``hash``: the same key goes to the same destination, with bounded load.

Owns: the ring and the walk on it. Consistent hashing: each destination stands at many
points of a ring, a key goes to the next point clockwise. When a destination leaves, only
its own keys move; when it returns, only they come back. With bounded loads (Mirrokni,
Thorup, Zadimoghaddam, 2016) a destination that has over 1.25 times its share of the
requests in flight passes the key on to the next one on the ring, so that a popular key
cannot sink its destination.

Points come from a stable digest of address and number, so every worker and every restart
agrees on where a key goes.
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
# With fewer requests than this in flight a destination keeps its keys whatever the others
# do: the bound is about load, and at three requests in flight all told there is none.
_UNBOUNDED_IN_FLIGHT: Final = 8
# Shares of keys then differ by about 9 % (1 / sqrt(128)).
_POINTS_PER_WEIGHT: Final = 128
# A ring of 65,536 points takes 17 ms to change on CPython 3.11; a bigger one would stall
# the event loop at each flip of health.
_RING_POINTS: Final = 65_536
_EIGHT: Final = Struct("<8Q")


class Hash:
    """Consistent hashing on a ring with bounded load; two choices when there is no key.

    O(log n) a pick. A change of the pool costs O(points of the ring), digests are kept.

    Args:
        random: For requests without a key.
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
        """Give the destination of the request's key, ``None`` if there is none."""
        key = request.key() if request is not None else None
        if key is None or len(available) < 2:
            return self._without_key.pick(available, request)
        return self._snapshots.get(available).pick(key)

    def order(
        self, available: Sequence[Destination], request: PickRequest | None = None
    ) -> Iterator[Destination]:
        """Give them in the order of the ring from the request's key on, full ones too."""
        key = request.key() if request is not None else None
        if key is None:
            return iter(sorted(available, key=lambda one: one.in_flight / one.weight))
        return self._snapshots.get(available).walk(key)

    def _derive(self, available: Sequence[Destination]) -> _Ring:
        total = sum(map(self._weigh, available))
        # Halved rather than fitted: a scale that followed every change of the pool would
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
        # Digests of those that are out for the moment are kept, those of strangers go.
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
        # The sum of requests in flight is taken every n picks, so O(1) amortised; until
        # then each pick counts as one more, so it is never too low and the bound at most
        # a factor's worth per destination too generous.
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
            # "<" because one more must stay within the bound, rounded up to a whole request.
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
