"""Keeps the recent events of all upstreams of an app, for status pages."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from fastapi_proxy_di.observability.changes import now
from fastapi_proxy_di.supervision.events import Event

__all__ = ["History", "PastEvent"]

KEPT: Final = 500
"""Events that are kept; older ones are forgotten."""


@dataclass(frozen=True, slots=True)
class PastEvent:
    """An event with its place in time.

    Attributes:
        number: Its number, from 1, without gaps.
        at: When it happened.
        event: The event.
    """

    number: int
    at: datetime
    event: Event


class History:
    """The last events of an app, in order.

    Args:
        clock: Gives the time of day.

    Attributes:
        started: When it began.
        last: Number of the last event, 0 before the first one.
    """

    def __init__(self, clock: Callable[[], datetime] = now) -> None:
        self._clock: Final = clock
        self.started: Final = clock()
        self._kept: Final[deque[PastEvent]] = deque(maxlen=KEPT)
        self._waiting: set[asyncio.Future[None]] = set()
        self.last: int = 0

    def listen(self, event: Event) -> None:
        """Keep an event, and end all waiting for one."""
        self.last += 1
        self._kept.append(PastEvent(self.last, self._clock(), event))
        self.wake()

    def after(self, number: int) -> list[PastEvent]:
        """Give the kept events after the one with ``number``, the oldest first."""
        return [one for one in self._kept if one.number > number]

    async def wait(self, number: int, seconds: float) -> None:
        """Wait until there is an event after ``number``, at most ``seconds``, or until `wake`."""
        if self.last > number:
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            async with asyncio.timeout(seconds):
                await future
        except TimeoutError:
            pass
        finally:
            self._waiting.discard(future)

    def wake(self) -> None:
        """End all waiting, also without an event; the app does so when it ends."""
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
