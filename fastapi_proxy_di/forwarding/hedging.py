"""Hedging: a request without an answer after a while is also sent to a second destination.

Owns: the race between the two and what becomes of its loser: it is cancelled and counts
against nobody. Only for requests without a body that may be sent twice, and only where
the retry budget has one left, so that a slow upstream is not asked twice for everything.
It stands in for ``Dispatcher`` where ``retries.hedge_after`` is set; the path without it
does not know of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextvars import ContextVar
from dataclasses import replace
from time import monotonic
from typing import Any, Final

from starlette.types import Message

from fastapi_proxy_di.balancing.policy import BalancingPolicy, PickRequest
from fastapi_proxy_di.balancing.selection import Pick, Selection
from fastapi_proxy_di.errors import ClientDisconnected
from fastapi_proxy_di.forwarding.body import RequestBody
from fastapi_proxy_di.forwarding.deadlines import Deadlines, Grace, Watch
from fastapi_proxy_di.forwarding.dispatch import Dispatcher
from fastapi_proxy_di.forwarding.outbound import Outbound
from fastapi_proxy_di.forwarding.retries import MAX_CONNECT_RETRIES, Outcome, Verdict
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.pools.pool import Pool
from fastapi_proxy_di.transport.protocol import TransportExchange


class Dials:
    """How often one request has dialled beyond its first time, both runners together."""

    __slots__ = ("further",)

    def __init__(self) -> None:
        self.further: int = 0


class Runner:
    """One of the two that race.

    Attributes:
        avoid: Where it must not go, because the other one is there.
        dials: Counted with the other one's.
        destination: Where it went last.
        watch: Ends its exchange.
        task: Its attempts.
    """

    __slots__ = ("avoid", "destination", "dials", "task", "watch")

    def __init__(self, watch: Watch, avoid: tuple[Destination, ...], dials: Dials) -> None:
        self.avoid: tuple[Destination, ...] = avoid
        self.dials: Dials = dials
        self.destination: Destination | None = None
        self.watch: Watch = watch
        self.task: asyncio.Task[tuple[TransportExchange, Destination]]

    @property
    def won(self) -> bool:
        """Whether it has an answer."""
        return self.task.done() and not self.task.cancelled() and self.task.exception() is None

    def lost(self, task: object) -> None:
        """It has ended without being the winner; an answer that came too late is dropped."""
        self.watch.close()
        if self.won:
            Won(*self.task.result()).fail(ClientDisconnected("another answer came first"))


_runner: ContextVar[Runner | None] = ContextVar("runner", default=None)
"""Whose attempts the running task makes: a pick has no other way to know."""


class Won:
    """The winner's answer, on its way out of the race."""

    __slots__ = ("destination", "exchange")

    def __init__(self, exchange: TransportExchange, destination: Destination) -> None:
        self.exchange: TransportExchange = exchange
        self.destination: Destination = destination

    def fail(self, error: BaseException) -> None:
        """Nobody takes it: the request ended at the moment of its arrival."""
        self.exchange.fail(error)
        self.exchange.close()
        self.destination.end()


class HedgingDispatcher(Dispatcher):
    """A ``Dispatcher`` whose requests may race.

    Args:
        hedge_after: Seconds without an answer until the second one is sent.
        deadlines: The upstream's timeouts; each runner keeps them by itself, but the total
            one, which belongs to the request.
        **options: As for ``Dispatcher``.
    """

    def __init__(self, *, hedge_after: float, deadlines: Deadlines, **options: Any) -> None:
        super().__init__(**options)
        self._loop: Final = asyncio.get_running_loop()
        self._hedge_after: Final = hedge_after
        self._runner_deadlines: Final = Deadlines(deadlines.activity, deadlines.first_byte, None)
        self._pick: Final = self.select
        self.select: Selection = self._select

    async def _attempts(
        self,
        outbound: Outbound,
        body: RequestBody | None,
        watch: Watch,
        key: PickRequest | None,
    ) -> tuple[TransportExchange, Destination]:
        if body is not None or outbound.upgrade or not outbound.repeatable:
            return await super()._attempts(outbound, body, watch, key)
        won = await watch.run(self._race(outbound, key), "hedged")
        watch.attach(won.exchange)
        return won.exchange, won.destination

    async def _race(self, outbound: Outbound, key: PickRequest | None) -> Won:
        dials = Dials()
        runners = [self._run(outbound, key, (), dials)]
        winner: Runner | None = None
        try:
            await asyncio.wait((runners[0].task,), timeout=self._hedge_after)
            first = runners[0].destination
            if (
                not runners[0].task.done()
                and first is not None
                and dials.further < MAX_CONNECT_RETRIES
                and self._may_hedge(first, key)
            ):
                dials.further += 1
                runners.append(self._run(outbound, key, (first,), dials))
            running = {runner.task for runner in runners}
            while running:
                _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                winner = next((runner for runner in runners if runner.won), None)
                if winner is not None:
                    return Won(*winner.task.result())
            # Both failed. What the first one met is what the request would have met alone.
            return Won(*runners[0].task.result())
        finally:
            for runner in runners:
                if runner is winner:
                    runner.watch.close()
                else:
                    runner.task.cancel()
                    runner.task.add_done_callback(runner.lost)

    def _run(
        self,
        outbound: Outbound,
        key: PickRequest | None,
        avoid: tuple[Destination, ...],
        dials: Dials,
    ) -> Runner:
        deadlines = self._runner_deadlines
        loop = self._loop
        name = self._pool.name
        watch = _RunnerWatch(loop, deadlines, Grace(loop, deadlines.grace), _nobody, name)
        runner = Runner(watch, avoid, dials)
        token = _runner.set(runner)
        try:
            runner.task = loop.create_task(
                super()._attempts(outbound, None, watch, key), name=f"hedged {name}"
            )
        finally:
            _runner.reset(token)
        return runner

    def _may_hedge(self, first: Destination, key: PickRequest | None) -> bool:
        elsewhere, _ = self._pick(self.policy, self._pool, key, (first,))
        return elsewhere is not None and self._budget.withdraw(monotonic())

    def _after_failure(self, outcome: Outcome, destination: Destination, started: float) -> Verdict:
        runner = _runner.get()
        if runner is None:
            return super()._after_failure(outcome, destination, started)
        # As many dials for both together as any request has.
        outcome = replace(outcome, connect_retries=runner.dials.further)
        verdict = super()._after_failure(outcome, destination, started)
        if verdict is Verdict.RETRY_FREE and not outcome.written:
            runner.dials.further += 1
        return verdict

    def _select(
        self,
        policy: BalancingPolicy,
        pool: Pool,
        request: PickRequest | None = None,
        tried: Collection[Destination] = (),
    ) -> Pick:
        runner = _runner.get()
        if runner is None:
            return self._pick(policy, pool, request, tried)
        pick = self._pick(policy, pool, request, (*tried, *runner.avoid))
        runner.destination = pick[0] or runner.destination
        return pick


class _RunnerWatch(Watch):
    """A watch of the clock alone; the client is watched by the request's own."""

    __slots__ = ()

    def watch_client(self) -> None:
        """There is nobody to read from."""


async def _nobody() -> Message:  # pragma: no cover - a runner's watch never reads
    raise NotImplementedError
