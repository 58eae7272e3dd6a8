"""Requests that wait while no destination responds (``retries.duration``), and their pace.

All waiting requests of an upstream share one pace: every ``TURN_SECONDS`` the request that has
waited longest makes an attempt, however many wait, so that an outage with many clients does not
become a storm. Each of them that gets a response lets two more try at once, so all are served
soon after a destination is back.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextvars import Context
from typing import Final

__all__ = ["TURN_SECONDS", "Outage"]

TURN_SECONDS: Final = 0.1
"""Seconds between two attempts of waiting requests. Caddy waits 0.25 for each request."""

_RELEASED: Final = 2


class Outage:
    """The requests of one upstream that wait until a destination responds again."""

    def __init__(self) -> None:
        self._loop: Final = asyncio.get_running_loop()
        self._waiting: Final[OrderedDict[asyncio.Future[None], None]] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    async def turn(self, deadline: float) -> bool:
        """Wait for the next attempt.

        Args:
            deadline: Loop time at which the request gives up.

        Returns:
            False if the deadline came first.
        """
        turn: asyncio.Future[None] = self._loop.create_future()
        self._waiting[turn] = None
        if self._timer is None:
            self._timer = self._start()
        try:
            async with asyncio.timeout_at(deadline):
                await turn
        except TimeoutError:
            return False
        finally:
            self._waiting.pop(turn, None)
        return True

    def responded(self) -> None:
        """Let two more try, because a request that had waited got a response."""
        for _ in range(_RELEASED):
            self._release()

    def _next(self) -> None:
        self._release()
        self._timer = self._start() if self._waiting else None

    def _start(self) -> asyncio.TimerHandle:
        return self._loop.call_later(TURN_SECONDS, self._next, context=Context())

    def _release(self) -> None:
        while self._waiting:
            turn, _ = self._waiting.popitem(last=False)
            if not turn.done():  # else its request has just been cancelled, and the next may try
                turn.set_result(None)
                return
