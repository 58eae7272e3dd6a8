"""A histogram of durations: counts per bucket, for metrics and for percentiles on status pages.

The buckets are those of FastAPI's own telemetry, which are OpenTelemetry's advice for HTTP.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import Final, TypeAlias

__all__ = ["BOUNDS", "Durations", "Histogram", "Label"]

Label: TypeAlias = str | int | None
"""Value of an attribute of a metric; ``None`` where the attribute does not apply."""

BOUNDS: Final = (
    0.005,
    0.01,
    0.025,
    0.05,
    0.075,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
)
"""Upper bounds of the buckets in seconds; the last bucket has no bound."""

_EMPTY: Final = [0] * (len(BOUNDS) + 1)


class Histogram:
    """Counts of durations.

    Attributes:
        buckets: Number of durations in each bucket, the one without a bound last.
        seconds: The sum of all durations.
    """

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets: array[int] = array("q", _EMPTY)  # a list would keep an object per bucket
        self.seconds: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count a duration."""
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds

    def add(self, other: Histogram) -> None:
        """Count the durations of ``other`` as well."""
        for number, count in enumerate(other.buckets):
            self.buckets[number] += count
        self.seconds += other.seconds

    def since(self, earlier: Histogram) -> Histogram:
        """Give the durations that were counted after ``earlier``, a copy, was made."""
        found = Histogram()
        pairs = zip(self.buckets, earlier.buckets, strict=True)
        found.buckets = array("q", [ours - theirs for ours, theirs in pairs])
        found.seconds = self.seconds - earlier.seconds
        return found

    @property
    def count(self) -> int:
        """Number of durations."""
        return sum(self.buckets)

    def quantile(self, share: float) -> float | None:
        """Estimate a quantile as Prometheus does, by a line through the bucket that has it.

        Args:
            share: 0.5 for the median.

        Returns:
            Seconds, at most the largest bound; ``None`` if nothing was counted.
        """
        rank = share * self.count
        if not rank:
            return None
        below = 0.0
        lower = 0.0
        for bound, count in zip(BOUNDS, self.buckets, strict=False):
            if below + count >= rank:
                return lower + (bound - lower) * (rank - below) / count
            below += count
            lower = bound
        return BOUNDS[-1]


class Durations(Histogram):
    """A histogram with the attributes that it is shown with.

    Args:
        first: The values of the first attributes, in the order of the family.
        rest: The values of the other attributes. Two tuples, because many histograms share the
            first one.
    """

    __slots__ = ("_first", "_rest")

    def __init__(self, first: tuple[Label, ...], rest: tuple[Label, ...] = ()) -> None:
        super().__init__()
        self._first: Final = first
        self._rest: Final = rest

    @property
    def labels(self) -> tuple[Label, ...]:
        """The values of the attributes, in the order of the family."""
        return self._first + self._rest
