"""Requests that wait while no destination responds (``retries.duration``), and their pace.

All waiting requests of an upstream share one pace: every ``TURN_SECONDS`` the request that has
waited longest makes an attempt, however many wait, so that an outage with many clients does not
become a storm. Each of them that gets a response lets two more try at once, so all are served
soon after a destination is back. Requests to dynamic destinations share one for each address.

The close of the upstream ends all waiting, that before a retry too.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextvars import Context
from typing import Final

from fastapi_proxy_di.errors import UpstreamClosed
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.unavailable import closed

__all__ = ["TURN_SECONDS", "Outage"]

TURN_SECONDS: Final = 0.1
"""Seconds between two attempts of waiting requests. Caddy waits 0.25 for each request."""

_RELEASED: Final = 2


class Outage:
    """The requests of one upstream that wait until a destination responds again.

    Args:
        name: Name of the upstream.

    Attributes:
        waiting: Number of requests that wait for their next attempt.
    """

    def __init__(self, name: str) -> None:
        self.waiting: int = 0
        self._name: Final = name
        self._loop: Final = asyncio.get_running_loop()
        self._turns: Final[OrderedDict[asyncio.Future[None], None]] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None
        self._closing: Final = asyncio.Event()

    async def wait(self, exchange: Exchange, deadline: float) -> bool:
        """Let an exchange wait for its next attempt, as `turn` does.

        Raises:
            ProxyError: The exchange was interrupted, or the upstream is closed.
        """
        # Counted until the caller goes on, and not only until ``turn`` ends in its task, so that
        # a close finds each request either waiting or in flight.
        self.waiting += 1
        try:
            return await exchange.watcher.run(exchange, self.turn(deadline), "outage")
        except UpstreamClosed as error:
            raise _of(exchange, error) from None
        finally:
            self.waiting -= 1

    async def pause(self, exchange: Exchange, seconds: float) -> None:
        """Let an exchange wait before a retry.

        Raises:
            ProxyError: The exchange was interrupted, or the upstream is closed.
        """
        try:
            await exchange.watcher.run(exchange, self._open_for(seconds), "back-off")
        except UpstreamClosed as error:
            raise _of(exchange, error) from None

    async def turn(self, deadline: float) -> bool:
        """Wait for the next attempt.

        Args:
            deadline: Loop time at which the request gives up.

        Returns:
            False if the deadline came first.

        Raises:
            UpstreamClosed: The upstream is closed.
        """
        if self._closing.is_set():
            raise closed(self._name)
        turn: asyncio.Future[None] = self._loop.create_future()
        self._turns[turn] = None
        if self._timer is None:
            self._timer = self._start()
        try:
            async with asyncio.timeout_at(deadline):
                await turn
        except TimeoutError:
            return False
        finally:
            self._turns.pop(turn, None)
        return True

    def responded(self) -> None:
        """Let two more try, because a request that had waited got a response."""
        for _ in range(_RELEASED):
            self._release()

    def close(self) -> None:
        """Refuse the requests that wait, and later ones, because the upstream is closed."""
        self._closing.set()
        for turn in self._turns:
            if not turn.done():
                turn.set_exception(closed(self._name))
        if self._timer is not None:
            self._timer.cancel()

    async def _open_for(self, seconds: float) -> None:
        """Wait while the upstream is open, but not longer than ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            return
        raise closed(self._name)

    def _next(self) -> None:
        self._release()
        self._timer = self._start() if self._turns else None

    def _start(self) -> asyncio.TimerHandle:
        return self._loop.call_later(TURN_SECONDS, self._next, context=Context())

    def _release(self) -> None:
        while self._turns:
            turn, _ = self._turns.popitem(last=False)
            if not turn.done():  # else its request has just been cancelled, and the next may try
                turn.set_result(None)
                return


def _of(exchange: Exchange, error: UpstreamClosed) -> UpstreamClosed:
    """Say in an error what the exchange has tried."""
    error.attempts = exchange.attempts
    error.request_sent = exchange.request_sent
    return error
