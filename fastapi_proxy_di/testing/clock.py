"""``Clock``: a clock that tests can move, so that hours pass at once.

Probes, ejections, windows and timeouts use the event loop's clock. `Clock` replaces it in every
loop that a stand-in runs in. The time passes as usual, and jumps when a test calls ``advance``.
"""

from __future__ import annotations

import asyncio
from time import monotonic

__all__ = ["Clock"]

_WAIT_SECONDS = 10.0
_TURNS = 5
"""Passes of the loop after a jump: for the callback of a timer and the tasks it wakes."""


class Clock:
    """The time of one or more event loops.

    ``advance`` is for tests that are plain functions (``TestClient``), ``sleep`` for
    asynchronous ones.

    Attributes:
        loops: The event loops whose clock this is.
    """

    def __init__(self) -> None:
        self._ahead = 0.0
        self.loops: list[asyncio.AbstractEventLoop] = []

    def time(self) -> float:
        """Give the time of the loops, in seconds."""
        return monotonic() + self._ahead

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Replace the clock of ``loop``; stand-ins call this themselves.

        Raises:
            RuntimeError: The clock of the loop cannot be replaced, e.g. uvloop's.
        """
        if loop in self.loops:
            return
        if not isinstance(loop, asyncio.BaseEventLoop):
            raise RuntimeError(  # noqa: TRY004  # a fault of the test's set-up
                f"the clock of a {type(loop).__module__} loop cannot be replaced; run the test "
                "on asyncio's own"
            )
        loop.time = self.time  # type: ignore[method-assign]
        self.loops.append(loop)

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass at once, and wait until the timers that are due have run.

        Raises:
            RuntimeError: Called in an event loop; ``await clock.sleep(seconds)`` there.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            raise RuntimeError("in an event loop use `await clock.sleep(seconds)`")
        self._ahead += seconds
        for loop in self.loops:
            if loop.is_running():
                asyncio.run_coroutine_threadsafe(_settle(), loop).result(_WAIT_SECONDS)

    async def sleep(self, seconds: float) -> None:
        """Let ``seconds`` pass at once, and let the timers that are due run."""
        self._ahead += seconds
        await _settle()


async def _settle() -> None:
    for _ in range(_TURNS):
        await asyncio.sleep(0)
