"""How many lately: two counters over the last ``window`` seconds.

Owns: the marks and buckets from which they tell. Must not know: what is counted.
``RollingTotal`` is for what happens all the time: counting costs one ``+= 1`` on the hot
path, without a clock, and only the rare reader (a failure, a retry) brings the time.
``RollingCount`` is for what is rare and brings its time along.
"""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["RollingCount", "RollingTotal"]

# Resolution: what is told is right to within a tenth of the window.
_MARKS_PER_WINDOW: Final = 10


class RollingTotal:
    """Growth of a total over the last ``window`` seconds.

    Between two readings the growth is taken as even. What had been counted before the
    first reading is taken to have happened just then.
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
        # Older than the window, so a mark was set since and part of the stretch counts.
        then, count_then = marks[1]
        return total - (count + (count_then - count) * (start - at) / (then - at))


class RollingCount:
    """Number of events over the last ``window`` seconds.

    An event is forgotten a tenth of the window late rather than early, so that what is
    bounded by the count stays within its bound.
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
