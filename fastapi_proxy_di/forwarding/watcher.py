"""Watches exchanges: interrupts one when its client disconnects or a deadline passes.

Most exchanges end within milliseconds, and watching them costs more than they do. So for their
first `UNWATCHED_SECONDS` all exchanges of an upstream share one timer. An exchange that lasts
longer gets a task that waits for ``http.disconnect`` (with a silent upstream nothing is sent
that could fail) and a timer for its nearest deadline. Both call ``Exchange.interrupt``, which
fails the attempt, or cancels the dial or the waiting before it.

The task has the context of its request, because the server's ``receive`` may be wrapped by a
middleware that reads context variables, such as the current span. Timers have an empty context,
because the request that starts one may end before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from contextvars import Context, copy_context
from typing import Any, Final, TypeVar

from fastapi_proxy_di.errors import ClientDisconnected, Failure, ProxyError, Side
from fastapi_proxy_di.forwarding.body import client_left
from fastapi_proxy_di.forwarding.deadlines import Deadlines, nearest_deadline, timeout_error
from fastapi_proxy_di.forwarding.exchange import Exchange

__all__ = ["UNWATCHED_SECONDS", "Watcher"]

UNWATCHED_SECONDS: Final = 0.02
"""Exchanges shorter than this are not watched, because a task costs more than they do."""

T = TypeVar("T")


class Watcher:
    """Watches the exchanges of one upstream that have the same deadlines.

    Args:
        name: The name of the upstream, for the names of tasks.
        deadlines: The deadlines of the exchanges.

    Attributes:
        deadlines: The deadlines of the exchanges.
        unwatched_seconds: Seconds until an exchange is watched; no longer than any deadline.
        unwatched: The exchanges that are not watched yet, oldest first.
    """

    __slots__ = ("_loop", "_name", "_timer", "deadlines", "unwatched", "unwatched_seconds")

    def __init__(self, name: str, deadlines: Deadlines) -> None:
        given = [seconds for seconds in deadlines if seconds is not None]
        self.deadlines: Deadlines = deadlines
        self.unwatched_seconds: float = min((UNWATCHED_SECONDS, *given))
        # A dict keeps the order of arrival and removes an exchange in O(1).
        self.unwatched: dict[Exchange, None] = {}
        self._loop = asyncio.get_running_loop()
        self._name = name
        self._timer: asyncio.TimerHandle | None = None

    def start(self, exchange: Exchange) -> None:
        """Start the time of the exchange; watch it once it has lasted ``unwatched_seconds``."""
        exchange.started = exchange.attempt_started = self._loop.time()
        exchange.context = copy_context()
        self.unwatched[exchange] = None
        if self._timer is None:
            self._timer = self._loop.call_later(
                self.unwatched_seconds, self._watch_old_ones, context=Context()
            )

    async def run(self, exchange: Exchange, coroutine: Coroutine[Any, Any, T], what: str) -> T:
        """Await ``coroutine``, or raise as soon as the exchange is interrupted.

        The coroutine runs in a task, so this is for slow ones: a dial, the queue, a back-off. That
        of a dial has an empty context, because the connection keeps it and outlives the request.
        """
        if exchange.error is not None:
            coroutine.close()
            raise exchange.error
        context = Context() if what == "dial" else None
        task = self._loop.create_task(coroutine, name=f"{what} {self._name}", context=context)
        exchange.pending = task
        try:
            return await task
        except asyncio.CancelledError:
            if task.done() and not task.cancelled() and task.exception() is None:
                # The coroutine succeeded just before it was cancelled: its connection, if it
                # made one, must not leak.
                made = task.result()
                if hasattr(made, "fail"):
                    exchange.request_sent = True  # with its dial
                    made.fail(ClientDisconnected())
            current = asyncio.current_task()
            assert current is not None
            if current.cancelling() or exchange.error is None:
                raise
            raise exchange.error from None
        finally:
            exchange.pending = None

    def watch_client(self, exchange: Exchange) -> None:
        """Read the rest of the client's body from now on, then wait for its disconnect."""
        if exchange.client_task is None and exchange.receive is not None:
            exchange.client_task = self._loop.create_task(
                _read_client(exchange), name=f"client of {self._name}", context=exchange.context
            )

    def arm(self, exchange: Exchange) -> None:
        """Set the timer for the nearest deadline; when it fires, activity may have moved it."""
        if exchange.deadline_timer is not None:
            exchange.deadline_timer.cancel()
            exchange.deadline_timer = None
        now = self._loop.time()
        failure, deadline = nearest_deadline(exchange, self.deadlines)
        if failure is None:
            return
        if deadline > now:
            exchange.deadline_timer = self._loop.call_at(
                deadline, self.arm, exchange, context=Context()
            )
            return
        error = self._timed_out(exchange, failure)
        sent = exchange.transport_exchange
        if failure is Failure.TOTAL_TIMEOUT or error.failure.side is Side.CLIENT or sent is None:
            exchange.interrupt(error)
        else:
            # Only the attempt failed: another destination may still respond in time.
            exchange.attempt_timed_out = True
            sent.fail(error)
            self.arm(exchange)

    def end(self, exchange: Exchange) -> Awaitable[None] | None:
        """Stop watching the client and the deadlines of the exchange.

        Returns:
            An awaitable for the end of the client's task, ``None`` if there is none.
        """
        if not exchange.watched:
            self.unwatched.pop(exchange, None)
        elif exchange.deadline_timer is not None:
            exchange.deadline_timer.cancel()
            exchange.deadline_timer = None
        client, exchange.client_task = exchange.client_task, None
        if client is None or client.done():
            return None
        client.cancel()
        return _ended(client)

    def _timed_out(self, exchange: Exchange, failure: Failure) -> ProxyError:
        return timeout_error(exchange, failure, self.deadlines)

    def _watch_old_ones(self) -> None:
        self._timer = None
        limit = self._loop.time() - self.unwatched_seconds
        while self.unwatched:
            oldest = next(iter(self.unwatched))
            if oldest.started > limit:
                due = oldest.started + self.unwatched_seconds
                self._timer = self._loop.call_at(due, self._watch_old_ones, context=Context())
                return
            del self.unwatched[oldest]
            oldest.watched = True
            self.watch_client(oldest)
            self.arm(oldest)


async def _read_client(exchange: Exchange) -> None:
    try:
        if exchange.body is None:
            assert exchange.receive is not None
            await client_left(exchange.receive)
        else:
            await exchange.body.pump()
    except Exception as error:  # noqa: BLE001  # whatever the server's receive raises
        exchange.interrupt(error)
    else:
        exchange.interrupt(ClientDisconnected())


async def _ended(task: asyncio.Task[None]) -> None:
    """Wait until a cancelled task has ended, also if its waiter is cancelled meanwhile."""
    await asyncio.wait((task,))
