"""An event loop with a virtual clock: hours of timers and sleeps pass in milliseconds.

Instead of sleeping until the next timer, the loop sets its clock to that time. Nothing else is
replaced: tasks, futures, timeouts and timers are those of asyncio.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class _JumpingSelector(selectors.DefaultSelector):
    """A selector that never sleeps, and adds the time it would have slept to the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everything waits for something that never comes"
        self.now += timeout
        return super().select(0)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """The asyncio loop with a virtual clock."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Give the virtual monotonic seconds."""
        return self._jumping.now


def run_virtually(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run ``coroutine`` in a loop with virtual time.

    The loop has its own thread: CPython 3.11 reports returns without calls to a tracer when a
    timeout cancels a coroutine several awaits deep, which would confuse coverage here.
    """

    def run() -> T:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            return runner.run(coroutine)

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run).result()
