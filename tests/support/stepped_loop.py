"""A wrapper of the running loop, whose clock moves only when a test moves it.

For parts that keep their loop in an attribute. Sockets, tasks and futures are those of the running
loop, so the wrapper works with real connections and on every event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any

__all__ = ["SteppedLoop"]


class SteppedLoop:
    """A loop with its own time and timers, moved by ``advance``."""

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
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call ``callback`` after ``delay`` seconds of this clock."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call ``callback`` at ``when`` of this clock."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)  # type: ignore[arg-type]
        self._timers.append(timer)
        return timer

    def _timer_handle_cancelled(self, timer: asyncio.TimerHandle) -> None:
        """Do nothing; a cancelled handle is skipped by ``advance``."""

    def advance(self, seconds: float) -> None:
        """Move the clock, and run the due timers in their order."""
        end = self._now + seconds
        while due := [timer for timer in self._timers if timer.when() <= end]:
            first = min(due, key=asyncio.TimerHandle.when)
            self._timers.remove(first)
            self._now = max(self._now, first.when())
            if not first.cancelled():
                first._run()
        self._now = end
