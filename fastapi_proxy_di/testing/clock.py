"""A clock that a test moves: hours of an upstream pass at once.

Probes, ejections, windows and timeouts go by the event loop's clock. This one takes its
place in every loop that a stand-in runs in: it goes on as time does, and jumps when told.
"""

from __future__ import annotations

import asyncio
from time import monotonic

__all__ = ["Clock"]

_WAIT_SECONDS = 10.0
_TURNS = 5
"""Passes of the loop after a jump: a timer's callback, the task it wakes, and what that does."""


class Clock:
    """The time of one or more event loops.

    ``advance`` is for tests that are plain functions (``TestClient``), ``sleep`` for
    asynchronous ones.

    Attributes:
        loops: Those it is the clock of.
    """

    def __init__(self) -> None:
        self._ahead = 0.0
        self.loops: list[asyncio.AbstractEventLoop] = []

    def time(self) -> float:
        """Give the seconds that the loops see."""
        return monotonic() + self._ahead

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Be the clock of ``loop`` from now on; stand-ins do it by themselves.

        Raises:
            RuntimeError: The loop does not let its clock be replaced, as uvloop's.
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
        """Let ``seconds`` pass at once, and wait until what fell due has been done.

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
        """Let ``seconds`` pass at once, and what fell due be done."""
        self._ahead += seconds
        await _settle()


async def _settle() -> None:
    for _ in range(_TURNS):
        await asyncio.sleep(0)
