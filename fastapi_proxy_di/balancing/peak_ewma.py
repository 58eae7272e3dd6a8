"""Policy ``peak_ewma``: two choices on expected time to first byte.

The cost of a destination is its mean time to first byte, times its requests in flight by
weight with this one added (Finagle's Peak EWMA). Draws are by weight already, so an idle
destination costs its mean whatever its weight: divided by the weight, a light one would get no
traffic until the heavy ones are busy. A slower sample replaces the mean at once, faster samples
lower the mean over ten seconds. They lower it by ratio, as a geometric mean: by difference, a
penalty of five seconds over three milliseconds of work would take more than a minute to fade; by
ratio it is twice the usual after 24 seconds. The time to the end of the response is not used,
because streams and tunnels would look slow.

A request whose response has not begun counts as well: the age of the oldest one is a sample
that rises. So a destination that has just become slow is noticed before its first slow response.

A plain mean would go wrong in three cases:

- A destination that fails at once looks fastest of all, and would get all traffic. So a
  failure counts as a sample of five seconds (linkerd's penalty).
- A destination that was slow once gets no more traffic, so no sample corrects its mean.
  So a mean without samples drifts towards the typical mean of the pool. It does not drift
  towards zero: a destination that hangs gives no samples either, and must not be preferred.
- A new destination has no mean, so it gets the typical one.

Costs that differ by little count as equal, and the first draw decides. Otherwise one peak of a
millisecond would leave an idle destination without traffic for seconds.
"""

from __future__ import annotations

from bisect import bisect
from collections import OrderedDict
from collections.abc import Sequence
from math import exp
from random import Random
from typing import Final

from fastapi_proxy_di.balancing.policy import PickRequest
from fastapi_proxy_di.balancing.snapshots import Snapshots
from fastapi_proxy_di.balancing.weights import cumulative_weights
from fastapi_proxy_di.pools.destination import Destination

__all__ = ["PeakEwma"]

DECAY_SECONDS: Final = 10.0
FAILURE_PENALTY_SECONDS: Final = 5.0
# linkerd's first estimate; a zero would make the first destination measured look slow.
FIRST_ESTIMATE_SECONDS: Final = 0.03
# Share of one sample in the typical mean: the mean of about a hundred exchanges.
_TYPICAL_SHARE: Final = 0.02
# Differences below these are noise of one exchange; ``latency`` has the same.
_NEAR_RATIO: Final = 1.25
_NEAR_SECONDS: Final = 0.001
# A coarse clock measures zero, which has no ratio to anything.
_SHORTEST_SECONDS: Final = 1e-5


class PeakEwma:
    """Picks the cheaper of two distinct draws. Learns by ``observe``, ``began`` and ``ended``."""

    name = "peak_ewma"

    def __init__(self, *, random: Random) -> None:
        self._draw = random.random
        self._snapshots = Snapshots(self._derive)
        self._means: dict[Destination, _Mean] = {}
        self._prune_at = 16
        self._typical = FIRST_ESTIMATE_SECONDS
        # The time of the last request or response is used as the clock, so a policy needs none:
        # while there is no traffic at all, means need not drift.
        self._now = 0.0

    def pick(
        self, available: Sequence[Destination], request: PickRequest | None = None
    ) -> Destination | None:
        """Pick one, ``None`` if there is none. O(1), O(log n) with unequal weights."""
        count = len(available)
        if count < 2:
            return available[0] if count else None
        draw = self._draw
        cumulative, means = self._snapshots.get(available)
        if cumulative is None:
            one = int(draw() * count)
        else:
            one = bisect(cumulative, draw() * cumulative[-1], 0, count - 1)
        other = int(draw() * (count - 1))
        if other >= one:
            other += 1
        first, second = available[one], available[other]
        near = _NEAR_RATIO * self._cost(second, means[other]) + _NEAR_SECONDS
        return first if self._cost(first, means[one]) <= near else second

    def observe(
        self, destination: Destination, seconds_to_first_byte: float, failed: bool, now: float
    ) -> None:
        """Learn from one exchange. O(1)."""
        self._now = now
        if failed:
            sample = max(seconds_to_first_byte, FAILURE_PENALTY_SECONDS)
        else:
            sample = max(seconds_to_first_byte, _SHORTEST_SECONDS)
            self._typical += (sample - self._typical) * _TYPICAL_SHARE
        mean = self._means.get(destination) or self._new_mean(destination)
        if mean.seconds is None or sample > mean.seconds:
            mean.seconds = sample
        else:
            kept = exp((mean.at - now) / DECAY_SECONDS)
            mean.seconds = sample * (mean.seconds / sample) ** kept
        mean.at = now

    def began(self, destination: Destination, attempt: object, now: float) -> None:
        """Note that a request is sent. O(1)."""
        self._now = now
        mean = self._means.get(destination) or self._new_mean(destination)
        mean.under_way[attempt] = now

    def ended(self, destination: Destination, attempt: object) -> None:
        """Note that the response has begun, or that the attempt ended without one. O(1)."""
        mean = self._means.get(destination)
        if mean is not None:
            mean.under_way.pop(attempt, None)

    def cost(self, destination: Destination) -> float:
        """Return the expected cost of one more request here, in seconds."""
        return self._cost(destination, self._means.get(destination) or _Mean(0))

    def _cost(self, destination: Destination, mean: _Mean) -> float:
        typical = self._typical
        seconds = mean.seconds
        if seconds is None:
            seconds = typical
        else:
            kept = exp((mean.at - self._now) / DECAY_SECONDS)
            seconds = typical * (seconds / typical) ** kept
        if mean.under_way:
            age = self._now - next(iter(mean.under_way.values()))
            seconds = max(seconds, age)
        return seconds * (destination.in_flight / destination.weight + 1)

    def _derive(self, available: Sequence[Destination]) -> tuple[list[float] | None, list[_Mean]]:
        """Give the weights, and the means by index, which a pick reads without a look-up.

        A destination that became available again gets a new mean, because the old one is
        that of its failure. Its return has changed the snapshot, so it is noticed here.
        """
        means = []
        for destination in available:
            mean = self._means.get(destination)
            if mean is None or mean.returns != destination.returns:
                mean = self._new_mean(destination)
            means.append(mean)
        return cumulative_weights(available), means

    def _new_mean(self, destination: Destination) -> _Mean:
        if len(self._means) >= self._prune_at:
            self._means = {one: mean for one, mean in self._means.items() if not one.removed}
            self._prune_at = 2 * len(self._means) + 16
        self._means[destination] = mean = _Mean(destination.returns)
        return mean


class _Mean:
    """The estimate of one destination.

    Attributes:
        seconds: Peak-sensitive mean time to first byte, ``None`` before the first exchange.
        at: Monotonic seconds of its last update.
        returns: The destination's ``returns`` when the mean began.
        under_way: Monotonic seconds at which the requests without a response were sent, oldest
            first.
    """

    __slots__ = ("at", "returns", "seconds", "under_way")

    def __init__(self, returns: int) -> None:
        self.seconds: float | None = None
        self.at: float = 0.0
        self.returns: int = returns
        # Requests end in any order. The first key of a dict whose first keys were deleted is
        # found in O(n); an OrderedDict is a linked list.
        self.under_way: OrderedDict[object, float] = OrderedDict()
