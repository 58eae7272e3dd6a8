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
    """

    limit: int

    def wait(self, now: int, cost: int) -> int:
        """Give the microseconds until ``cost`` may be taken, 0 for now."""
        ...

    def add(self, now: int, cost: int) -> None:
        """Take ``cost``."""
        ...

    def standing(self, now: int, wait: int) -> Standing:
        """Say what remains."""
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
    """

    __slots__ = ("_length", "_takes", "_used", "limit")

    def __init__(self, rate: Rate) -> None:
        self.limit: int = rate.limit
        self._length: Final = rate.window
        self._takes: list[tuple[int, int]] = []
        self._used = 0

    def wait(self, now: int, cost: int) -> int:
        """Give the microseconds until ``cost`` may be taken, 0 for now."""
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

    def add(self, now: int, cost: int) -> None:
        """Take ``cost``."""
        if cost:
            self._takes.append((now, cost))
            self._used += cost

    def standing(self, now: int, wait: int) -> Standing:
        """Say what remains."""
        reset = self._takes[-1][0] + self._length - now if self._takes else 0
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
    """

    __slots__ = ("_index", "_length", "_previous", "_taken", "limit")

    def __init__(self, rate: Rate) -> None:
        self.limit: int = rate.limit
        self._length: Final = rate.window
        self._index = 0
        self._taken = 0
        self._previous = 0

    def wait(self, now: int, cost: int) -> int:
        """Give the microseconds until ``cost`` may be taken, 0 for now."""
        elapsed = self._turn(now)
        length, limit = self._length, self.limit
        if self._used(elapsed) + cost <= limit:
            return 0
        if cost > limit:
            return length
        if self._taken + cost <= limit:
            wait = length * (1 - (limit - self._taken - cost) / self._previous) - elapsed
        else:
            wait = length * (1 - (limit - cost) / self._taken) + (length - elapsed)
        return max(1, ceil(wait))

    def add(self, now: int, cost: int) -> None:
        """Take ``cost``."""
        self._turn(now)
        self._taken += cost

    def standing(self, now: int, wait: int) -> Standing:
        """Say what remains."""
        elapsed = self._turn(now)
        reset = 0
        if self._taken:
            reset = 2 * self._length - elapsed
        elif self._previous:
            reset = self._length - elapsed
        return Standing(max(0, floor(self.limit - self._used(elapsed))), wait, reset)

    def _turn(self, now: int) -> int:
        """Begin a new window if it is time, and give the microseconds since the present began."""
        index, elapsed = divmod(now, self._length)
        if index != self._index:
            self._previous = self._taken if index == self._index + 1 else 0
            self._taken = 0
            self._index = index
        return elapsed

    def _used(self, elapsed: int) -> float:
        return self._taken + float(self._previous) * (self._length - elapsed) / self._length
