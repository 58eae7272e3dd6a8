"""Who may end an exchange early: the client by leaving, and the clock.

Most exchanges are over before watching them would pay, so for the first `GRACE_SECONDS`
there is only one timer handle. An exchange that lasts longer gets a task that waits for
``http.disconnect`` (a silent upstream never makes ``send`` fail) and one timer for the
nearest deadline. `Watch.interrupt` is the one door through which all of them act: it
fails the exchange, or cancels the dial or the queueing that precedes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from starlette.types import Receive

from fastapi_proxy_di.errors import (
    ClientDisconnected,
    Failure,
    ProxyError,
    RequestBodyTimeout,
    Side,
    UpstreamTimeout,
)
from fastapi_proxy_di.forwarding.body import RequestBody, client_left
from fastapi_proxy_di.transport.protocol import TransportExchange

GRACE_SECONDS: Final = 0.02
"""Exchanges shorter than this are not watched: a task costs more than they do."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Deadlines:
    """The timeouts of one exchange, in seconds; ``None`` never runs out."""

    activity: float | None
    first_byte: float | None
    total: float | None

    @property
    def grace(self) -> float:
        """How long the exchange may go unwatched."""
        given = (self.activity, self.first_byte, self.total)
        return min((GRACE_SECONDS, *(seconds for seconds in given if seconds is not None)))


class Grace:
    """The exchanges that are too young to be watched, oldest first, and one timer for all.

    Args:
        loop: The running loop.
        seconds: How long they go unwatched, `Deadlines.grace`.
    """

    __slots__ = ("_loop", "_seconds", "_timer", "young")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        # A dict keeps the order of arrival and forgets in O(1).
        self.young: dict[Watch, None] = {}
        self._loop = loop
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, watch: Watch) -> None:
        """Let ``watch`` be until its time is over."""
        self.young[watch] = None
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._grow_up)

    def _grow_up(self) -> None:
        self._timer = None
        limit = self._loop.time() - self._seconds
        while self.young:
            oldest = next(iter(self.young))
            if oldest.started > limit:
                self._timer = self._loop.call_at(oldest.started + self._seconds, self._grow_up)
                return
            del self.young[oldest]
            oldest.lapse()


class Watch:
    """Ends one exchange when its client leaves or a deadline passes.

    Attributes:
        error: What ended it early, ``None`` so far.
        body: What the client sends beside its departure, ``None`` for nothing.

    Args:
        loop: The running loop.
        deadlines: Timeouts.
        grace: Where it begins unwatched.
        receive: The server's; where the client's departure is told.
        label: Upstream's name, for the task's name.
    """

    __slots__ = (
        "_attempt_started",
        "_client",
        "_deadlines",
        "_exchange",
        "_label",
        "_lapsed",
        "_loop",
        "_pending",
        "_receive",
        "_timer",
        "_young",
        "body",
        "error",
        "started",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        deadlines: Deadlines,
        grace: Grace,
        receive: Receive,
        label: str,
    ) -> None:
        self.error: BaseException | None = None
        self.body: RequestBody | None = None
        self._loop = loop
        self._deadlines = deadlines
        self._receive = receive
        self._label = label
        self._lapsed = False
        self.started: float = loop.time()
        self._attempt_started = self.started
        self._exchange: TransportExchange | None = None
        self._pending: asyncio.Task[Any] | None = None
        self._client: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._young = grace.young
        grace.begin(self)

    @property
    def interrupted(self) -> bool:
        """Whether the request is over, whatever its attempts do."""
        return self.error is not None

    # -- while the exchange is being made ---------------------------------------------

    async def run(self, coroutine: Coroutine[Any, Any, T], what: str) -> T:
        """Await ``coroutine``, or raise as soon as the exchange is interrupted.

        For what takes its time anyway: a dial, a place in the queue, a back-off.
        """
        if self.interrupted:
            coroutine.close()
            raise self.error or ClientDisconnected()
        task = self._loop.create_task(coroutine, name=f"{what} {self._label}")
        self._pending = task
        try:
            return await task
        except asyncio.CancelledError:
            if task.done() and not task.cancelled() and task.exception() is None:
                # Cancelled at the very moment it succeeded: what it made must not leak.
                made = task.result()
                if hasattr(made, "fail"):
                    made.fail(ClientDisconnected())
            current = asyncio.current_task()
            assert current is not None
            if current.cancelling() or not self.interrupted:
                raise
            raise (self.error or ClientDisconnected()) from None
        finally:
            self._pending = None

    def attach(self, exchange: TransportExchange) -> None:
        """``exchange`` is what an interruption ends from now on."""
        self._exchange = exchange
        self._attempt_started = exchange.last_activity
        if self.error is not None:
            exchange.fail(self.error)
        elif self._lapsed:
            self._arm()

    def detach(self) -> None:
        """The exchange is over; another attempt may follow."""
        self._exchange = None

    def interrupt(self, error: BaseException) -> None:
        """End the exchange, whatever it is waiting for, with ``error``."""
        if self.error is None:
            self.error = error
        if self._exchange is not None:
            self._exchange.fail(self.error)
        elif self._pending is not None:
            self._pending.cancel()

    def watch_client(self) -> None:
        """Read the client's side from now on: the rest of its body, then its departure."""
        if self._client is None:
            self._client = self._loop.create_task(
                self._read_client(), name=f"client of {self._label}"
            )

    # -- the end ------------------------------------------------------------------------

    def close(self) -> Awaitable[None] | None:
        """Stop watching. Gives what remains to be awaited, ``None`` for a short exchange."""
        self._exchange = None
        if not self._lapsed:
            self._young.pop(self, None)
        elif self._timer is not None:
            self._timer.cancel()
            self._timer = None
        client, self._client = self._client, None
        if client is None or client.done():
            return None
        client.cancel()
        return _ended(client)

    # -- inside -------------------------------------------------------------------------

    async def _read_client(self) -> None:
        try:
            if self.body is None:
                await client_left(self._receive)
            else:
                await self.body.pump()
        except Exception as error:  # noqa: BLE001  # whatever the server's receive raises
            self.interrupt(error)
        else:
            self.interrupt(ClientDisconnected())

    def lapse(self) -> None:
        """The grace time is over."""
        self._lapsed = True
        self.watch_client()
        self._arm()

    def _arm(self) -> None:
        """Wait for the nearest deadline; activity since then moves it when it comes."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._loop.time()
        failure, deadline = self._nearest()
        if failure is None:
            return
        if deadline > now:
            self._timer = self._loop.call_at(deadline, self._arm)
            return
        error = self._timed_out(failure)
        exchange = self._exchange
        if failure is Failure.TOTAL_TIMEOUT or error.failure.side is Side.CLIENT or not exchange:
            self.interrupt(error)
        else:
            # The attempt is over, not the request: another destination may answer in time.
            self._exchange = None
            exchange.fail(error)
            self._arm()

    def _nearest(self) -> tuple[Failure | None, float]:
        deadlines = self._deadlines
        exchange = self._exchange
        nearest: tuple[Failure | None, float] = (None, 0.0)
        if deadlines.total is not None:
            nearest = (Failure.TOTAL_TIMEOUT, self.started + deadlines.total)
        if exchange is None:
            return nearest  # dialling and queueing have timeouts of their own
        if deadlines.first_byte is not None and not exchange.answered:
            first_byte = self._attempt_started + deadlines.first_byte
            if nearest[0] is None or first_byte <= nearest[1]:
                nearest = (Failure.FIRST_BYTE_TIMEOUT, first_byte)
        if deadlines.activity is not None:
            idle = exchange.last_activity + deadlines.activity
            if nearest[0] is None or idle < nearest[1]:
                nearest = (Failure.ACTIVITY_TIMEOUT, idle)
        return nearest

    def _timed_out(self, failure: Failure) -> ProxyError:
        exchange = self._exchange
        if failure is Failure.ACTIVITY_TIMEOUT:
            if exchange is not None and exchange.stalled_by_reader:
                return ClientDisconnected("the client took nothing of the answer in time")
            if self.body is not None and self.body.awaits_client:
                return RequestBodyTimeout("the client sent nothing of its body in time")
        return UpstreamTimeout(f"{failure.value.replace('_', ' ')} ran out", failure=failure)


async def _ended(task: asyncio.Task[None]) -> None:
    """Wait until a cancelled task has ended, whoever else is cancelled meanwhile."""
    await asyncio.wait((task,))
