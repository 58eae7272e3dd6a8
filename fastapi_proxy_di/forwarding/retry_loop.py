"""The retry loop: picks a destination, makes an attempt, and repeats if ``retries`` allows.

Every request to an upstream goes through the loop: HTTP requests, WebSocket handshakes and the
app's own calls. So balancing, health and retries are the same for all of them. Hedging and
admission are layers around the loop. Long because the loop handles each kind of result itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from random import Random
from time import monotonic
from typing import Any, Final

from fastapi_proxy_di.balancing.only_destination import OnlyDestination
from fastapi_proxy_di.balancing.policy import BalancingPolicy, PickRequest
from fastapi_proxy_di.balancing.selection import Selection
from fastapi_proxy_di.errors import Attempt, Failure, ProxyError
from fastapi_proxy_di.forwarding.destination_transport import DestinationTransport
from fastapi_proxy_di.forwarding.exchange import Dials, Exchange
from fastapi_proxy_di.forwarding.first_event import first_event_of
from fastapi_proxy_di.forwarding.key_cooling import KeyCooling
from fastapi_proxy_di.forwarding.outage import Outage
from fastapi_proxy_di.forwarding.outcomes import Outcomes, names_retry_after
from fastapi_proxy_di.forwarding.retries import (
    Outcome,
    RetryBudget,
    Verdict,
    backoff,
    decide,
    goes_on,
)
from fastapi_proxy_di.forwarding.unavailable import only_unavailable, unavailable
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.settings import LimitSettings, UpstreamSettings
from fastapi_proxy_di.supervision.supervisor import Supervisor
from fastapi_proxy_di.transport.protocol import OutgoingRequest, TransportExchange
from fastapi_proxy_di.wire.targets import join_target

__all__ = ["FRESH_SECONDS", "RetryLoop", "attempt", "outgoing_request"]

_STATUS_OF_STREAMS: Final = frozenset({200})

FRESH_SECONDS: Final = 1.0
"""How long a connection may have been idle for a request that must not be sent twice. Servers
close idle connections after some seconds, so a connection this fresh will hardly be closed."""


class RetryLoop:
    """Makes the attempts of one upstream's exchanges.

    Args:
        settings: The settings of the upstream.
        policy: The policy, which chooses one of the candidates.
        select: The selection: ``balancing.selection.select``, or that of an affinity.
        supervisor: The supervisor of the pool; receives the destinations found full.
        transports: The transport to each destination; destinations may be added while running.
        outcomes: Receives the results of the attempts.
        budget: The retry budget.
        outage_of: Gives where an exchange waits while no destination responds.
        random: The source of the jitter of pauses.
        key_cooling: Cools the keys that destinations refuse; ``None`` without ``ejection.key``.

    Raises:
        ValueError: ``streams.first_event_when`` cannot be imported, or is no rule.
    """

    def __init__(
        self,
        *,
        settings: UpstreamSettings,
        policy: BalancingPolicy,
        select: Selection,
        supervisor: Supervisor,
        transports: Mapping[Destination, DestinationTransport],
        outcomes: Outcomes,
        budget: RetryBudget,
        outage_of: Callable[[Exchange], Outage],
        random: Random,
        key_cooling: KeyCooling | None = None,
    ) -> None:
        self._name: Final = settings.name
        self._settings: Final = settings.retries
        self._limits: Final = settings.limits
        self._policy: Final = policy
        self._select: Final = select if key_cooling is None else key_cooling.select
        self._key_cooling: Final = key_cooling
        self._supervisor: Final = supervisor
        self._pool: Final = supervisor.pool
        health = settings.health
        self._retry_after: Final = max(1.0, health.interval if health.enabled else 1.0)
        self._transports: Final = transports
        self._outcomes: Final = outcomes
        self._budget: Final = budget
        self._random: Final = random
        self._outage_of: Final = outage_of
        # One set of both kinds of statuses, so that an ordinary response costs one look-up.
        self._listed: Final = settings.retries.statuses | settings.retries.refused_statuses
        refusals = frozenset() if key_cooling is None else key_cooling.statuses
        self._first_event: Final = first_event_of(settings)
        # Where streams are held, each response with 200 takes the way of the notable ones.
        self._notable: Final = (
            self._listed
            | outcomes.notable
            | refusals
            | (frozenset() if self._first_event is None else _STATUS_OF_STREAMS)
        )

    def pick(
        self, key: PickRequest | None, tried: Collection[Destination] = ()
    ) -> Destination | None:
        """Give a destination with room that has not been tried; report full destinations."""
        destination, full = self._select(self._policy, self._pool, key, tried)
        if full:
            self._supervisor.limits_reached(full)
        return destination

    async def hold(self, exchange: Exchange) -> None:
        """Pick a destination and count the exchange there, without sending anything.

        Raises:
            NoAvailableDestination: No destination is available; ``LimitExceeded`` if all are full.
        """
        destination = self.pick(exchange.key)
        if destination is None:
            raise self._unavailable(exchange)
        exchange.take_place(destination)
        exchange.begin_attempt()

    def send(self, exchange: Exchange) -> Coroutine[Any, Any, None]:
        """Count the request and make its attempts, as ``run`` does."""
        self._budget.requests += 1
        return self.run(exchange)

    async def run(self, exchange: Exchange, elsewhere: Destination | None = None) -> None:
        """Make attempts until one has a response, ``exchange.response``.

        The exchange then stays in the in-flight count of the destination.

        Args:
            exchange: The exchange to send.
            elsewhere: The destination of the first attempt, if it has been picked already.

        Raises:
            ProxyError: No attempt has a response; the error carries every attempt.
        """
        pick, outcomes = self.pick, self._outcomes
        tried = closed = exchange.avoid
        retries = refusals = 0
        resent = False
        pause = 0.0
        waited = False
        while True:
            usable = elsewhere is not None and not elsewhere.full
            destination = elsewhere if usable else pick(exchange.key, tried)
            elsewhere = None
            if destination is None and len(tried) > len(closed):
                # No other destination can be used, so one that was tried is tried again.
                destination = pick(exchange.key, closed)
            if exchange.observer is not None:
                exchange.observer.picked(exchange, tried, destination)
            if destination is None:
                await self._go_on(exchange, self._unavailable(exchange))
                tried, waited = closed, True
                continue
            exchange.take_place(destination)
            if pause:
                await self._pause(exchange, pause)
                pause = 0.0
            exchange.begin_attempt()
            failed: ProxyError | None = None
            # Not the loop's time, which uvloop rounds to milliseconds.
            started = monotonic() if outcomes.learns else 0.0
            tracked = outcomes.tracked
            if tracked is not None:
                tracked.began(destination, exchange, started)
            try:
                try:
                    response = await attempt(
                        exchange,
                        self._transports[destination],
                        self._limits,
                        new_connection=resent or refusals > 0,
                    )
                finally:
                    if tracked is not None:
                        tracked.ended(destination, exchange)
                exchange.metrics.head(exchange)
                if exchange.observer is not None:
                    exchange.observer.head(exchange)
                if waited:
                    self._outage_of(exchange).responded()
                if response.status not in self._notable:
                    outcomes.succeeded(destination)
                    if outcomes.learns:
                        outcomes.observe(destination, started, failed=False)
                    return
                failed_event = await self._failed_event(exchange)
                cools = self._cool_key(exchange, response)
                outcomes.notable_response(
                    destination,
                    response,
                    started,
                    of_key=cools is not None,
                    failed_event=failed_event,
                )
                if not failed_event and response.status not in self._listed:
                    return
                if cools or names_retry_after(response):
                    closed += (destination,)
                verdict = self._decide_on_response(exchange, closed, retries, failed_event)
                if verdict is Verdict.NO:
                    return
                # Picked while there still is a response to give: without another destination
                # the client gets this one.
                elsewhere = self._after_response(exchange, tried, closed)
                if elsewhere is None:
                    return
                why = Failure.FIRST_EVENT if failed_event else None
                exchange.attempts += (Attempt(destination.url, why, response.status),)
                exchange.request_sent = True
            except ProxyError as error:
                self._note(exchange, error)
                verdict = self._decide_on_failure(
                    exchange, error, started, retries, resent, refusals
                )
                sent = exchange.transport_exchange
                answered = sent is not None and sent.answered
                if exchange.error is not None:
                    exchange.end_attempt(error)
                    raise
                last_error = failed = error
            except BaseException as error:
                exchange.end_attempt(error)
                raise
            dialled = exchange.transport_exchange is not None
            exchange.end_attempt(failed)
            if verdict is Verdict.NO:
                await self._go_on(exchange, last_error, answered=answered)
                tried, waited = closed, True
            elif verdict is Verdict.RETRY_COUNTED:
                tried += (destination,)
                pause = backoff(retries, self._settings.backoff, self._random)
                retries += 1
            elif verdict is Verdict.RETRY_UNPROCESSED:
                if refusals:  # not the end of a connection in order, which happens once
                    tried += (destination,)
                refusals += 1
            elif not dialled:
                tried += (destination,)
                # Dial again only if there is another destination. The pick is kept, because
                # a second pick of round robin would give the next destination.
                elsewhere = pick(exchange.key, tried)
                if elsewhere is None:
                    await self._go_on(exchange, last_error)
                    tried, waited = closed, True
            else:
                resent = True  # the connection was stale, not the destination

    async def _go_on(
        self, exchange: Exchange, error: ProxyError, *, answered: bool = False
    ) -> None:
        """Wait for another attempt while no destination responds, or raise ``error``."""
        if exchange.avoid:
            raise error  # of a second branch: only the first waits, so that a request counts once
        duration, body = self._settings.duration, exchange.body
        replayable = body is None or body.replayable(written=exchange.request_sent)
        if duration is None or not goes_on(
            error.failure,
            repeatable=exchange.repeatable,
            replayable=replayable,
            answered=answered,
        ):
            raise error
        if not await self._outage_of(exchange).wait(exchange, exchange.started + duration):
            raise error
        if exchange.dials is not None:
            exchange.dials.further = 0

    def _after_response(
        self, exchange: Exchange, tried: Sequence[Destination], closed: Sequence[Destination]
    ) -> Destination | None:
        """Pick the destination of the attempt after a response, ``None`` if there is none."""
        last = exchange.destination
        other = self.pick(exchange.key, (*tried, last)) or self.pick(exchange.key, closed)
        # The last destination may be full only because the response still has its place there.
        return other or (None if last in closed or last.draining else last)

    async def _pause(self, exchange: Exchange, seconds: float) -> None:
        """Wait before an attempt, whose place at its destination is already taken."""
        try:
            await self._outage_of(exchange).pause(exchange, seconds)
        except BaseException:
            exchange.leave_place()
            raise

    def _cool_key(self, exchange: Exchange, response: TransportExchange) -> float | None:
        """Cool the key of the exchange if the destination refuses it; give the seconds."""
        return None if self._key_cooling is None else self._key_cooling.cool(exchange, response)

    def _unavailable(self, exchange: Exchange) -> ProxyError:
        supervisor = self._supervisor
        if self._key_cooling is not None:
            refusal = self._key_cooling.refusal(exchange, supervisor.pool, self._retry_after)
            if refusal is not None:
                refusal.request_sent = exchange.request_sent
                return refusal
        error = self._without_destination(exchange)
        error.request_sent = exchange.request_sent
        return error

    def _without_destination(self, exchange: Exchange) -> ProxyError:
        supervisor, key = self._supervisor, exchange.key
        if isinstance(key, OnlyDestination):
            one = supervisor.pool.find(key.url)
            return only_unavailable(
                supervisor.pool.name,
                key.url,
                one,
                exchange.attempts,
                self._retry_after,
                supervisor.window_left,
                None if one is None else supervisor.cooling_seconds(one),
            )
        return unavailable(
            supervisor.pool,
            exchange.attempts,
            self._retry_after,
            supervisor.window_left,
            supervisor.cooling_left,
        )

    async def _failed_event(self, exchange: Exchange) -> bool:
        """Wait for the first event of a stream that is held; return whether it means failure."""
        held = self._first_event
        if held is None or exchange.response.status != 200:
            return False
        return await held.failed(exchange)

    def _repeatable(self, exchange: Exchange, *, held: bool) -> bool:
        """Whether the request may be sent twice; ``held``: its response was a stream."""
        if held and self._first_event is not None:
            return self._first_event.repeatable(exchange)
        return exchange.repeatable

    def _decide_on_response(
        self,
        exchange: Exchange,
        closed: Sequence[Destination],
        retries: int,
        failed_event: bool,
    ) -> Verdict:
        """Decide whether another attempt follows a listed status or an event of failure."""
        pool = self._supervisor.pool
        if self._key_cooling is not None:
            closed = (*closed, *self._key_cooling.cooled(exchange, pool))
        if all(one in closed for tier in pool.tiers for one in tier):
            return Verdict.NO  # before the budget is asked, which would count a retry
        outcome = Outcome(
            status=exchange.response.status,
            failed_event=failed_event,
            repeatable=self._repeatable(exchange, held=failed_event),
            replayable=exchange.body is None or exchange.body.replayable(written=True),
            retries=retries,
        )
        return decide(outcome, self._settings, self._budget, monotonic())

    def _decide_on_failure(
        self,
        exchange: Exchange,
        error: ProxyError,
        started: float,
        retries: int,
        resent: bool,
        refusals: int,
    ) -> Verdict:
        """Count a failed attempt, and decide whether another one follows."""
        sent, body = exchange.transport_exchange, exchange.body
        dials = exchange.dials or Dials()
        outcome = Outcome(
            failure=error.failure,
            repeatable=self._repeatable(exchange, held=error.failure.held),
            reused=sent is not None and sent.reused,
            answered=sent is not None and sent.answered,
            replayable=body is None or body.replayable(written=sent is not None),
            retries=retries,
            connect_retries=dials.further,
            resent=resent,
            refusals=refusals,
        )
        verdict = decide(outcome, self._settings, self._budget, monotonic())
        if not error.counts:
            return verdict
        if verdict is not Verdict.RETRY_FREE:
            self._outcomes.attempt_failed(exchange.destination, error.failure, started)
        elif sent is None:
            dials.further += 1
            exchange.dials = dials
            self._outcomes.attempt_failed(exchange.destination, error.failure, started)
        # Otherwise the connection was stale, which is no failure of the destination. Nor is a
        # request that was not processed, by its side.
        return verdict

    def _note(self, exchange: Exchange, error: ProxyError) -> None:
        url = exchange.destination.url
        exchange.attempts += (Attempt(url, error.failure),)
        error.upstream = self._name
        error.destination = url
        error.attempts = exchange.attempts
        if exchange.transport_exchange is not None:
            exchange.request_sent = True
        error.request_sent = exchange.request_sent


async def attempt(
    exchange: Exchange, to: DestinationTransport, limits: LimitSettings, *, new_connection: bool
) -> TransportExchange:
    """Send the request and wait for the final head of the response.

    Args:
        exchange: The exchange, with the request to send; stores the attempt once it is sent.
        to: The transport to the destination.
        limits: The limits of the upstream.
        new_connection: Whether to open one even if an idle connection can be used.

    Raises:
        ProxyError: There is no response.
    """
    request = outgoing_request(exchange, to, limits.idle_seconds)
    body = exchange.body
    first, more = b"", False
    if body is not None:
        first = body.at_hand
        more = not body.ended or len(first) < len(body.first)
    sent = None if new_connection else to.transport.reuse(request, first, more=more)
    if sent is None:
        sent = await exchange.watcher.run(
            exchange, to.transport.start(request, first, more=more), "dial"
        )
    exchange.attach(sent)
    if more and body is not None:
        exchange.watcher.watch_client(exchange)
        await body.attach(sent, len(first), limits.expect_continue)
    await sent.head()
    return sent


def outgoing_request(
    exchange: Exchange, to: DestinationTransport, idle_seconds: float
) -> OutgoingRequest:
    """Make the transport's request for one destination.

    Args:
        exchange: The exchange, with the request to send.
        to: The transport to the destination.
        idle_seconds: How long a connection may have been idle for a request that may be sent
            twice.
    """
    headers = exchange.headers if exchange.attempt_headers is None else exchange.attempt_headers
    return OutgoingRequest(
        exchange.method,
        join_target(to.base_path, exchange.target, exchange.query),
        [to.host if exchange.host is None else (b"host", exchange.host), *headers],
        idle_seconds if exchange.repeatable else FRESH_SECONDS,
        exchange.length,
        exchange.chunked,
        exchange.upgrade,
    )
