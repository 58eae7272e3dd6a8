"""Two counters over the last ``window`` seconds.

``RollingTotal`` is for frequent events: counting costs one ``+= 1`` on the hot path, without a
clock; only a reader (a failure, a retry), which is rare, gives the time. ``RollingCount`` is for
rare events, each counted with its time.

Both keep their state in a tuple that is replaced whole. ``read`` changes nothing, so any thread may
call it.
"""

from __future__ import annotations

from typing import Final

__all__ = ["RollingCount", "RollingTotal"]

# The resolution: a reading is right to within a tenth of the window.
_MARKS_PER_WINDOW: Final = 10


class RollingTotal:
    """Growth of a total over the last ``window`` seconds.

    The growth between two marks is taken as even. The total at the first mark is taken to have
    grown at that moment.
    """

    __slots__ = ("_marks", "_spacing", "_window")

    def __init__(self, window: float) -> None:
        self._window = window
        self._spacing = window / _MARKS_PER_WINDOW
        self._marks: tuple[tuple[float, int], ...] = ()

    def mark(self, now: float, total: int) -> None:
        """Remember the total at ``now``, if the last mark is old enough.

        Args:
            now: Monotonic seconds, never less than at the mark before.
            total: The running total at ``now``.
        """
        marks = self._marks
        if not marks:
            self._marks = ((now, 0),)
        elif now - marks[-1][0] >= self._spacing:
            self._marks = (*marks[self._first(marks, now) :], (now, total))

    def read(self, now: float, total: int) -> float:
        """Give the growth over the window that ends at ``now``.

        Args:
            now: Monotonic seconds.
            total: The running total at ``now``.
        """
        marks = (*self._marks, (now, total if self._marks else 0))
        first = self._first(marks, now)
        at, count = marks[first]
        start = now - self._window
        if at >= start:
            return total - count
        # The mark is older than the window, so there is a later one, and part of the growth
        # between the two counts.
        then, count_then = marks[first + 1]
        return total - (count + (count_then - count) * (start - at) / (then - at))

    def _first(self, marks: tuple[tuple[float, int], ...], now: float) -> int:
        """Give the index of the last mark before the window, or of the first in it."""
        start = now - self._window
        first = 0
        while first + 1 < len(marks) and marks[first + 1][0] <= start:
            first += 1
        return first


class RollingCount:
    """Number of events over the last ``window`` seconds.

    An event is dropped up to a tenth of the window late, never early, so that a bound on the
    count holds.
    """

    __slots__ = ("_buckets", "_spacing", "_window")

    def __init__(self, window: float) -> None:
        self._window = window
        self._spacing = window / _MARKS_PER_WINDOW
        self._buckets: tuple[tuple[float, int], ...] = ()

    def add(self, now: float) -> None:
        """Count an event at ``now``, monotonic seconds, never less than before."""
        buckets = self._in_window(now)
        if buckets and now - buckets[-1][0] < self._spacing:
            began, count = buckets[-1]
            self._buckets = (*buckets[:-1], (began, count + 1))
        else:
            self._buckets = (*buckets, (now, 1))

    def read(self, now: float) -> int:
        """Give the number of events in the window that ends at ``now``."""
        return sum([count for _, count in self._in_window(now)])

    def _in_window(self, now: float) -> tuple[tuple[float, int], ...]:
        buckets = self._buckets
        first = 0
        while first < len(buckets) and buckets[first][0] + self._spacing <= now - self._window:
            first += 1
        return buckets[first:]
