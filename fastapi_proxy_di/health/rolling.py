"""Two counters over the last ``window`` seconds.

``RollingTotal`` is for frequent events: counting costs one ``+= 1`` on the hot path, without a
clock; only a reader (a failure, a retry), which is rare, gives the time. ``RollingCount`` is for
rare events, each counted with its time.
"""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["RollingCount", "RollingTotal"]

# The resolution: a reading is right to within a tenth of the window.
_MARKS_PER_WINDOW: Final = 10


class RollingTotal:
    """Growth of a total over the last ``window`` seconds.

    The growth between two readings is taken as even. The total at the first reading is taken
    to have grown at that moment.
    """

    __slots__ = ("_marks", "_spacing", "_window")

    def __init__(self, window: float) -> None:
        self._window = window
        self._spacing = window / _MARKS_PER_WINDOW
        self._marks: deque[tuple[float, int]] = deque()

    def read(self, now: float, total: int) -> float:
        """Give the growth over the window that ends at ``now``.

        Args:
            now: Monotonic seconds, never less than at the reading before.
            total: The running total at ``now``.
        """
        marks = self._marks
        start = now - self._window
        if not marks:
            marks.append((now, 0))
        elif now - marks[-1][0] >= self._spacing:
            marks.append((now, total))
        while len(marks) > 1 and marks[1][0] <= start:
            marks.popleft()
        at, count = marks[0]
        if at >= start:
            return total - count
        # The mark is older than the window, so there is a later one, and part of the growth
        # between the two counts.
        then, count_then = marks[1]
        return total - (count + (count_then - count) * (start - at) / (then - at))


class RollingCount:
    """Number of events over the last ``window`` seconds.

    An event is dropped up to a tenth of the window late, never early, so that a bound on the
    count holds.
    """

    __slots__ = ("_buckets", "_count", "_spacing", "_window")

    def __init__(self, window: float) -> None:
        self._window = window
        self._spacing = window / _MARKS_PER_WINDOW
        self._count = 0
        self._buckets: deque[tuple[float, int]] = deque()

    def add(self, now: float) -> None:
        """Count an event at ``now``, monotonic seconds, never less than before."""
        buckets = self._buckets
        self._count += 1
        if buckets and now - buckets[-1][0] < self._spacing:
            began, count = buckets[-1]
            buckets[-1] = (began, count + 1)
        else:
            buckets.append((now, 1))

    def read(self, now: float) -> int:
        """Give the number of events in the window that ends at ``now``."""
        buckets = self._buckets
        while buckets and buckets[0][0] + self._spacing <= now - self._window:
            self._count -= buckets.popleft()[1]
        return self._count
