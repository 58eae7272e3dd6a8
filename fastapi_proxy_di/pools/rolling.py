"""How much a running total grew lately, learnt only from the moments somebody asked.

Owns: the marks from which the growth over the last ``window`` seconds is told. Must not
know: what is counted. It exists so that counting costs one ``+= 1`` on the hot path, with
no clock: only the rare reader (a failure, a retry) brings the time.
"""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["RollingTotal"]

# Resolution of the window. Ten marks keep the error under a tenth of the window's traffic.
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
