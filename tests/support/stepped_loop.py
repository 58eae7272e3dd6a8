"""A loop in front of the running one whose clock goes forward only when a test says so.

For parts that keep their loop in an attribute. Sockets, tasks and futures are the running
loop's own, so it works with real connections and on every event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

__all__ = ["SteppedLoop"]


class SteppedLoop:
    """Time and timers that ``advance`` moves; everything else is the running loop's."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._now = self._loop.time()
        self._timers: list[asyncio.TimerHandle] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def time(self) -> float:
        """Give the seconds of this clock."""
        return self._now

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any
    ) -> asyncio.TimerHandle:
        """As the loop's own."""
        return self.call_at(self._now + delay, callback, *args)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any
    ) -> asyncio.TimerHandle:
        """As the loop's own."""
        timer = asyncio.TimerHandle(when, callback, args, self)  # type: ignore[arg-type]
        self._timers.append(timer)
        return timer

    def _timer_handle_cancelled(self, timer: asyncio.TimerHandle) -> None:
        """A handle says so of itself."""

    def advance(self, seconds: float) -> None:
        """Let time pass: run the timers that fall due, in their order."""
        end = self._now + seconds
        while due := [timer for timer in self._timers if timer.when() <= end]:
            first = min(due, key=asyncio.TimerHandle.when)
            self._timers.remove(first)
            self._now = max(self._now, first.when())
            if not first.cancelled():
                first._run()
        self._now = end
