"""Policy ``latency``: the destinations that respond fastest to probes.

All destinations within a quarter and a millisecond of the fastest form one group, which shares
the traffic by two choices on requests in flight. If only the single fastest were picked, all
traffic would go to one destination until the next probe, and then to another one (herding).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf
from random import Random
from typing import Final

from fastapi_proxy_di.balancing.policy import PickRequest
from fastapi_proxy_di.balancing.snapshots import Snapshots
from fastapi_proxy_di.balancing.two_choices import TwoChoices
from fastapi_proxy_di.pools.destination import Destination

__all__ = ["Latency"]

# Differences below these are noise of one probe on a loopback or a busy event loop.
_NEAR_RATIO: Final = 1.25
_NEAR_MS: Final = 1.0


class Latency:
    """Picks by two choices among the destinations that are about as fast as the fastest.

    Latencies change without a new snapshot, so the group is computed every ``n`` picks for
    ``n`` destinations, which keeps a pick O(1) amortised.
    """

    name = "latency"

    def __init__(self, *, random: Random) -> None:
        self._among = TwoChoices(random=random)
        self._snapshots = Snapshots(_Group)

    def pick(
        self, available: Sequence[Destination], request: PickRequest | None = None
    ) -> Destination | None:
        """Pick one of the fastest, ``None`` if there is none."""
        if len(available) < 2:
            return available[0] if available else None
        return self._among.pick(self._snapshots.get(available).fastest())

    def order(
        self, available: Sequence[Destination], request: PickRequest | None = None
    ) -> Iterator[Destination]:
        """Give the destinations, fastest first. O(n log n): only when a pick was refused."""
        return iter(sorted(available, key=_latency))


class _Group:
    __slots__ = ("_available", "_fastest", "_picks_left")

    def __init__(self, available: Sequence[Destination]) -> None:
        self._available = available
        self._fastest: tuple[Destination, ...] = ()
        self._picks_left = 0

    def fastest(self) -> tuple[Destination, ...]:
        self._picks_left -= 1
        if self._picks_left < 0:
            self._picks_left = len(self._available)
            near = _NEAR_RATIO * min(map(_latency, self._available)) + _NEAR_MS
            fastest = tuple([one for one in self._available if _latency(one) <= near])
            # The same object while the group stays, so that its weights are computed once.
            if fastest != self._fastest:
                self._fastest = fastest
        return self._fastest


def _latency(destination: Destination) -> float:
    return inf if destination.latency_ms is None else destination.latency_ms
