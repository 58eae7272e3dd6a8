"""Pick, connect, send, wait for the head of the answer; again where the rules allow.

One attempt is `_attempt`. Everything that is sent to an upstream on behalf of a client,
HTTP requests and WebSocket handshakes alike, goes through `Dispatcher.dispatch`, so that
balancing, limits, health and retries are the same for all.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from random import Random
from time import monotonic, time
from typing import Any, Final

from fastapi_proxy_di.balancing.policy import BalancingPolicy, PickRequest
from fastapi_proxy_di.balancing.selection import Selection, select
from fastapi_proxy_di.errors import (
    Attempt,
    LimitExceeded,
    NoAvailableDestination,
    ProxyError,
    Side,
)
from fastapi_proxy_di.forwarding.admission import Admission
from fastapi_proxy_di.forwarding.body import RequestBody
from fastapi_proxy_di.forwarding.deadlines import Watch
from fastapi_proxy_di.forwarding.outbound import Outbound
from fastapi_proxy_di.forwarding.retries import (
    Outcome,
    RetryBudget,
    RetryRules,
    Verdict,
    backoff,
    decide,
)
from fastapi_proxy_di.health.ejection import Ejector
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.supervision.supervisor import Supervisor
from fastapi_proxy_di.transport.protocol import Headers, Transport, TransportExchange

_RETRY_AFTER_STATUSES: Final = frozenset({429, 503})


@dataclass(slots=True)
class Leg:
    """What sending to one destination takes, prepared at start."""

    transport: Transport
    host: tuple[bytes, bytes]
    base_path: bytes


@dataclass(frozen=True, slots=True)
class DispatchRules:
    """The settings as dispatching reads them.

    Attributes:
        retries: When another attempt may follow.
        backoff: Base of the pause before a counted retry, in seconds.
        ejection_statuses: Answers that count as failures of their destination.
        respect_retry_after: Whether Retry-After on 429 and 503 takes a destination out.
        expect_continue: Seconds to wait for 100 before the body goes anyway.
        idle_seconds: How long idle connections may serve repeatable requests.
        retry_after: Seconds told to clients when nothing is available.
    """

    retries: RetryRules
    backoff: float
    ejection_statuses: frozenset[int]
    respect_retry_after: bool
    expect_continue: float
    idle_seconds: float
    retry_after: float


class Dispatcher:
    """Sends requests of one upstream.

    Args:
        policy: Picks destinations.
        supervisor: Has the pool; told of failures.
        legs: What sending to each destination takes; may grow while running.
        rules: The settings.
        budget: Of retries.
        admission: The upstream's own limits, ``None`` if it has none.
        random: For the jitter of pauses.
        select: From policy and pool to a destination; affinity has one of its own.

    Attributes:
        succeeded: Takes note of an exchange that the destination answered.
    """

    def __init__(
        self,
        *,
        policy: BalancingPolicy,
        supervisor: Supervisor,
        legs: dict[Destination, Leg],
        rules: DispatchRules,
        budget: RetryBudget,
        admission: Admission | None,
        random: Random,
        select: Selection = select,
    ) -> None:
        self.policy = policy
        self.select = select
        self.supervisor = supervisor
        self.legs = legs
        self.admission = admission
        self._pool = supervisor.pool
        self._rules = rules
        self._budget = budget
        self._random = random
        self._observe = getattr(policy, "observe", None)
        self.succeeded: Callable[[Destination], None] = Ejector.succeeded
        # Statuses that are more than a success; an ordinary answer costs one look-up.
        self._notable = frozenset(rules.retries.statuses) | rules.ejection_statuses
        if rules.respect_retry_after:
            self._notable |= _RETRY_AFTER_STATUSES
        if self._observe is not None:
            self._notable |= frozenset(range(500, 600))

    def dispatch(
        self,
        outbound: Outbound,
        body: RequestBody | None,
        watch: Watch,
        key: PickRequest | None = None,
    ) -> Coroutine[Any, Any, tuple[TransportExchange, Destination]]:
        """Send ``outbound`` and wait for the final head.

        The destination's in-flight count includes the exchange until ``release``.

        Args:
            outbound: The request.
            body: Its body, ``None`` if it has none.
            watch: Ends it early.
            key: What the policy may see of the request.

        Raises:
            ProxyError: With every attempt attached.
        """
        if self.admission is None:
            self._budget.deposit()
            return self._attempts(outbound, body, watch, key)
        return self._admitted(self.admission, outbound, body, watch, key)

    def pick(
        self, key: PickRequest | None, tried: Collection[Destination] = ()
    ) -> Destination | None:
        """Pick a destination that is not in ``tried``, and report those that are full."""
        destination, full = self.select(self.policy, self._pool, key, tried)
        if full:
            self.supervisor.limits_reached(full)
        return destination

    def release(self, destination: Destination) -> None:
        """The exchange with ``destination`` is over."""
        destination.end()
        if self.admission is not None:
            self.admission.leave()

    def observe(self, destination: Destination, seconds: float, failed: bool, now: float) -> None:
        """Let a policy that learns take note of an exchange that did not go through here."""
        if self._observe is not None:
            self._observe(destination, seconds, failed, now)

    def failed_late(self, destination: Destination, error: ProxyError) -> None:
        """The answer broke off after its head."""
        if error.failure.side is Side.DESTINATION:
            self.supervisor.failed(destination, error.failure.value)
        error.upstream = self._pool.name
        error.destination = destination.url
        if not error.attempts:
            error.attempts = (Attempt(destination.url, error.failure),)

    async def _admitted(
        self,
        admission: Admission,
        outbound: Outbound,
        body: RequestBody | None,
        watch: Watch,
        key: PickRequest | None,
    ) -> tuple[TransportExchange, Destination]:
        await admission.enter(watch)
        self._budget.deposit()
        try:
            return await self._attempts(outbound, body, watch, key)
        except BaseException:
            admission.leave()
            raise

    async def _attempts(
        self,
        outbound: Outbound,
        body: RequestBody | None,
        watch: Watch,
        key: PickRequest | None,
    ) -> tuple[TransportExchange, Destination]:
        tried: tuple[Destination, ...] = ()
        history: tuple[Attempt, ...] = ()
        retries = connect_retries = 0
        resent = False
        elsewhere: Destination | None = None
        while True:
            destination = elsewhere or self.pick(key, tried)
            elsewhere = None
            if destination is None and tried:
                # Another destination when there is one; else one that was tried, once more.
                destination = self.pick(key)
            if outbound.trace is not None:
                outbound.trace.picked(tried, destination)
            if destination is None:
                raise self.unavailable(history)
            destination.begin()
            exchange: TransportExchange | None = None
            # uvloop's own clock has whole milliseconds; nobody else is told how long it took.
            started = 0.0 if self._observe is None else monotonic()
            try:
                leg = self.legs[destination]
                idle = self._rules.idle_seconds
                first, more = b"", False
                if body is not None:
                    first = body.at_hand
                    more = not body.ended or len(first) < len(body.first)
                if not resent:
                    exchange = leg.transport.reuse(
                        outbound.request(leg.host, leg.base_path, idle), first, more=more
                    )
                if exchange is None:
                    request = outbound.request(leg.host, leg.base_path, idle)
                    exchange = await watch.run(
                        leg.transport.start(request, first, more=more), "dial"
                    )
                watch.attach(exchange)
                if more and body is not None:
                    watch.watch_client()
                    await body.attach(exchange, len(first), self._rules.expect_continue)
                await exchange.head()
                if exchange.status not in self._notable:
                    self.succeeded(destination)
                    if self._observe is not None:
                        now = monotonic()
                        self._observe(destination, now - started, False, now)
                    return exchange, destination
                if not self._try_again(outbound, body, destination, exchange, started, retries):
                    return exchange, destination
                verdict = Verdict.RETRY_COUNTED
                history += (Attempt(destination.url, status=exchange.status),)
            except ProxyError as error:
                history = self._fill(error, destination, history)
                outcome = Outcome(
                    method=outbound.method,
                    failure=error.failure,
                    idempotency_key=outbound.repeatable,
                    reused=exchange is not None and exchange.reused,
                    written=exchange is not None,
                    answered=exchange is not None and exchange.answered,
                    replayable=body is None or body.replayable(written=exchange is not None),
                    retries=retries,
                    connect_retries=connect_retries,
                    resent=resent,
                )
                verdict = self._after_failure(outcome, destination, started)
                if verdict is Verdict.NO or watch.error is not None:
                    self._end(watch, exchange, destination)
                    raise
                last_error = error
            except BaseException:
                self._end(watch, exchange, destination)
                raise
            self._end(watch, exchange, destination)
            if outbound.trace is not None:
                outbound.trace.failed = history
            if verdict is Verdict.RETRY_COUNTED:
                tried += (destination,)
                pause = backoff(retries, self._rules.backoff, self._random)
                retries += 1
                if pause:
                    await watch.run(asyncio.sleep(pause), "back-off")
            elif exchange is None:
                tried += (destination,)
                connect_retries += 1
                # Only another destination makes a further dial worth its time. It is kept:
                # asked again, a policy that goes by turns would pass it over.
                elsewhere = self.pick(key, tried)
                if elsewhere is None:
                    raise last_error
            else:
                resent = True  # the connection was stale, not the destination

    def _end(
        self, watch: Watch, exchange: TransportExchange | None, destination: Destination
    ) -> None:
        """An attempt that gives no answer to the client is over."""
        watch.detach()
        destination.end()
        if exchange is not None:
            exchange.close()

    def _try_again(
        self,
        outbound: Outbound,
        body: RequestBody | None,
        destination: Destination,
        exchange: TransportExchange,
        started: float,
        retries: int,
    ) -> bool:
        """A notable status: count it, and say whether another attempt follows."""
        rules = self._rules
        now = monotonic()
        if exchange.status in rules.ejection_statuses:
            self.supervisor.failed(destination, f"status {exchange.status}")
        else:
            self.succeeded(destination)
        if rules.respect_retry_after and exchange.status in _RETRY_AFTER_STATUSES:
            seconds = retry_after_seconds(exchange.headers)
            if seconds is not None:
                self.supervisor.cool_down(destination, seconds)
        if self._observe is not None:
            self._observe(destination, now - started, exchange.status >= 500, now)
        outcome = Outcome(
            method=outbound.method,
            status=exchange.status,
            idempotency_key=outbound.repeatable,
            replayable=body is None or body.replayable(written=True),
            retries=retries,
        )
        return decide(outcome, rules.retries, self._budget, now) is Verdict.RETRY_COUNTED

    def _after_failure(self, outcome: Outcome, destination: Destination, started: float) -> Verdict:
        """A failed attempt: count it, and say what may follow."""
        now = monotonic()
        verdict = decide(outcome, self._rules.retries, self._budget, now)
        assert outcome.failure is not None
        stale = outcome.written and verdict is Verdict.RETRY_FREE
        if outcome.failure.side is Side.DESTINATION and not stale:
            self.supervisor.failed(destination, outcome.failure.value)
            if self._observe is not None:
                self._observe(destination, now - started, True, now)
        return verdict

    def _fill(
        self, error: ProxyError, destination: Destination, history: tuple[Attempt, ...]
    ) -> tuple[Attempt, ...]:
        error.upstream = self._pool.name
        error.destination = destination.url
        error.attempts = (*history, Attempt(destination.url, error.failure))
        return error.attempts

    def unavailable(self, history: Sequence[Attempt]) -> NoAvailableDestination:
        """Say why there is nothing to pick, and what was tried before."""
        pool = self._pool
        full = all(one.full for tier in pool.tiers for one in tier)
        kind: type[NoAvailableDestination] = NoAvailableDestination
        if not pool.candidates:
            reason = f"no destination of {pool.name} is available"
        elif full:
            kind, reason = LimitExceeded, f"every destination of {pool.name} is at its limit"
        else:
            # With room somewhere only affinity gives none.
            reason = f"the destination of {pool.name} that the client belongs to is not available"
        error = kind(reason, upstream=pool.name, attempts=history)
        error.retry_after = self._rules.retry_after
        if kind is LimitExceeded and all(
            one.requests_in_window >= one.window_limit for one in pool.candidates
        ):
            error.retry_after = max(1.0, self.supervisor.window_left)
        return error


def retry_after_seconds(headers: Headers) -> float | None:
    """Retry-After in seconds from now, given so or as a date (RFC 9110 section 10.2.3)."""
    for name, value in headers:
        if name == b"retry-after":
            if value.strip().isdigit():
                return float(value)
            with contextlib.suppress(ValueError, OverflowError):
                return parsedate_to_datetime(value.decode("latin-1")).timestamp() - time()
    return None
