"""Counts what was taken within a window. Pure.

Up to 1,000 per window each take is kept with its time, so the limit holds in every stretch of time
as long as the window. Above it, the counts of the present and the previous window are kept, and the
previous one counts with the share of it that the moving window still covers.

Times are whole microseconds of a clock that does not go backwards. ``limiting.store`` has the same
in Lua; both compute in doubles in the same order, so that they give the same results.
"""

from __future__ import annotations

from math import ceil, floor
from typing import Final, NamedTuple, Protocol

from fastapi_proxy_di.limiting.rates import Rate

__all__ = ["EXACT", "MovingWindow", "Standing", "TwoWindows", "Window", "window_of"]

EXACT: Final = 1000
"""The highest limit that is counted exactly."""


class Standing(NamedTuple):
    """How a key stands with one rate, after a request.

    Attributes:
        remaining: How much may be taken now.
        wait: Microseconds until what was asked for may be taken; 0 if it was, or if only another
            rate refused it.
        reset: Microseconds until all of the limit may be taken again.
    """

    remaining: int
    wait: int
    reset: int


class Window(Protocol):
    """What was taken by one key from one rate.

    Attributes:
        limit: How much may be taken within the window; may be changed.
        used_at: When it was last used, set by who uses it.
    """

    limit: int
    used_at: int

    def wait(self, now: int, cost: int) -> int:
        """Give the microseconds until ``cost`` may be taken, 0 for now."""
        ...

    def add(self, cost: int) -> None:
        """Take ``cost``, for which ``wait`` has just given 0."""
        ...

    def standing(self, wait: int) -> Standing:
        """Say what remains at the time of the last call of ``wait``, with what that gave."""
        ...


def window_of(rate: Rate) -> Window:
    """Make the window of a key that has taken nothing yet."""
    return MovingWindow(rate) if rate.limit <= EXACT else TwoWindows(rate)


class MovingWindow:
    """Keeps each take with its time.

    Args:
        rate: The rate.

    Attributes:
        limit: How much may be taken within the window; may be changed.
        used_at: When it was last used, set by who uses it.
    """

    __slots__ = ("_length", "_now", "_takes", "_used", "limit", "used_at")

    def __init__(self, rate: Rate) -> None:
        self.limit: int = rate.limit
        self.used_at: int = 0
        self._length: Final = rate.window
        self._takes: list[tuple[int, int]] = []
        self._used = 0
        self._now = 0

    def wait(self, now: int, cost: int) -> int:
        """Give the microseconds until ``cost`` may be taken, 0 for now."""
        self._now = now
        self._forget(now)
        over = self._used + cost - self.limit
        if over <= 0:
            return 0
        if cost <= self.limit:
            for time, taken in self._takes:
                over -= taken
                if over <= 0:
                    return time + self._length - now
        return self._length  # it costs more than the limit

    def add(self, cost: int) -> None:
        """Take ``cost``, for which ``wait`` has just given 0."""
        if cost:
            self._takes.append((self._now, cost))
            self._used += cost

    def standing(self, wait: int) -> Standing:
        """Say what remains at the time of the last call of ``wait``, with what that gave."""
        reset = self._takes[-1][0] + self._length - self._now if self._takes else 0
        return Standing(max(0, self.limit - self._used), wait, reset)

    def _forget(self, now: int) -> None:
        gone = 0
        for time, taken in self._takes:
            if time > now - self._length:
                break
            self._used -= taken
            gone += 1
        if gone:
            del self._takes[:gone]


class TwoWindows:
    """Keeps the counts of the present and the previous window.

    Args:
        rate: The rate.

    Attributes:
        limit: How much may be taken within the window; may be changed.
        used_at: When it was last used, set by who uses it.
    """

    __slots__ = ("_elapsed", "_index", "_length", "_previous", "_taken", "limit", "used_at")

    def __init__(self, rate: Rate) -> None:
        self.limit: int = rate.limit
        self.used_at: int = 0
        self._length: Final = rate.window
        self._index = 0
        self._elapsed = 0
        self._taken = 0
        self._previous = 0

    def wait(self, now: int, cost: int) -> int:
        """Give the microseconds until ``cost`` may be taken, 0 for now."""
        self._turn(now)
        elapsed, length, limit = self._elapsed, self._length, self.limit
        if self._used() + cost <= limit:
            return 0
        if cost > limit:
            return length
        if self._taken + cost <= limit:
            wait = length * (1 - (limit - self._taken - cost) / self._previous) - elapsed
        else:
            wait = length * (1 - (limit - cost) / self._taken) + (length - elapsed)
        return max(1, ceil(wait))

    def add(self, cost: int) -> None:
        """Take ``cost``, for which ``wait`` has just given 0."""
        self._taken += cost

    def standing(self, wait: int) -> Standing:
        """Say what remains at the time of the last call of ``wait``, with what that gave."""
        reset = 0
        if self._taken:
            reset = 2 * self._length - self._elapsed
        elif self._previous:
            reset = self._length - self._elapsed
        return Standing(max(0, floor(self.limit - self._used())), wait, reset)

    def _turn(self, now: int) -> None:
        """Begin a new window if it is time."""
        index, self._elapsed = divmod(now, self._length)
        if index != self._index:
            self._previous = self._taken if index == self._index + 1 else 0
            self._taken = 0
            self._index = index

    def _used(self) -> float:
        if not self._previous:
            return self._taken
        return self._taken + float(self._previous) * (self._length - self._elapsed) / self._length
