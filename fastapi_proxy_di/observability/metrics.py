"""Counts what one upstream does: attempts, retries, failures, refusals, tunnels and durations.

Everything that shows numbers reads them here: OpenTelemetry's instruments, the Prometheus
collector and ``status()``. All counts are totals since the start and never fall. An address whose
destination has left the pool keeps its counts for an hour; then they move to `GONE`.

All changes are made in the event loop. Readers may be in any thread and need no lock: they take
the counts of all destinations at once, in a dict that is replaced whole when counts move.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from time import monotonic
from typing import Final, NamedTuple, Protocol

from fastapi_proxy_di.errors import Failure, LimitExceeded, ProxyError
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.observability.attributes import method_of, server_of
from fastapi_proxy_di.observability.counts import DYNAMIC, GONE, DestinationCounts
from fastapi_proxy_di.observability.histogram import Durations
from fastapi_proxy_di.pools.destination import Destination, DynamicDestination
from fastapi_proxy_di.supervision.events import DestinationEjected, Event

__all__ = ["Metrics", "RecentRequests"]

PERIOD_SECONDS: Final = 60.0
"""Seconds between two marks; recent numbers are those of one to two periods."""

KEEP_SECONDS: Final = 3600.0
"""How long an address that has left the pool keeps its own counts, and up to a period longer."""

DURATION: Final = "http.client.request.duration"
FIRST_BYTE: Final = "proxy.first_byte.duration"
QUEUE: Final = "proxy.queue.duration"


class DurationRecorder(Protocol):
    """Gets the durations as they end; OpenTelemetry's instruments are one."""

    def record(self, name: str, seconds: float, durations: Durations) -> None:
        """Take a duration.

        Args:
            name: Name of the metric.
            seconds: The duration.
            durations: The histogram in which it was counted, with its labels.
        """


class RecentRequests(NamedTuple):
    """Requests that ended in some time.

    Attributes:
        ended: All of them.
        refused: Those that a limit refused.
    """

    ended: int
    refused: int


_START: Final = RecentRequests(0, 0)


class Metrics:
    """The counts of one upstream.

    One object counts all exchanges; what belongs to one exchange is stored in the exchange.

    Args:
        upstream: Name of the upstream.
        destinations: Its destinations, which have counts from the start.
        clock: Gives monotonic seconds.

    Attributes:
        upstream: Name of the upstream.
        requests: Requests that have ended, refused ones too.
        refusals: Refused requests, by the setting that refused them.
        failures: Requests that failed without an attempt, by value of the `Failure`.
        unread_taps: Responses that their tap could not read, by reason.
        queue: Seconds that requests waited in the queue.
        dynamic: The counts that all dynamic destinations share.
        instruments: Records durations as they end; ``None`` if OpenTelemetry gets no metrics.
    """

    def __init__(
        self,
        upstream: str,
        destinations: Iterable[Destination] = (),
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.upstream: Final = upstream
        self._clock: Final = clock
        self._counts: dict[str, DestinationCounts] = {}
        self._left_at: Final[dict[str, float]] = {}
        self._leaving: tuple[Destination, ...] = ()
        self.requests: int = 0
        self.refusals: dict[str, int] = {}
        self._marks: tuple[RecentRequests, RecentRequests] = (_START, _START)
        self.failures: dict[str, int] = {}
        self.unread_taps: dict[str, int] = {}
        self.queue: Durations = Durations((upstream,))
        self.dynamic: DestinationCounts = DestinationCounts(upstream, DYNAMIC, (DYNAMIC, None))
        self.instruments: DurationRecorder | None = None
        self.replaced(destinations, ())

    def of(self, destination: Destination) -> DestinationCounts:
        """Give the counts of a destination.

        All dynamic destinations share the counts `DYNAMIC`. A destination whose counts
        have moved to `GONE` gets empty ones.
        """
        try:
            return self._counts[destination.url]
        except KeyError:
            return self._unlisted(destination)

    def all(self) -> tuple[DestinationCounts, ...]:
        """Give the counts of each destination, of all that are `GONE`, and of `DYNAMIC` ones."""
        return tuple(self._counts.copy().values())

    def replaced(self, added: Iterable[Destination], removed: Iterable[Destination]) -> None:
        """Note that destinations have joined and left the pool.

        An address that joins again goes on with the counts that it had, so that none falls.
        """
        now = self._clock()
        for one in removed:
            self._left_at[one.url] = now
        for one in added:
            self._left_at.pop(one.url, None)
            if one.url not in self._counts:
                self._counts[one.url] = self._made(one)
        self._leaving = (*self.leaving(), *removed)

    def leaving(self) -> tuple[Destination, ...]:
        """Give the destinations that have left the pool and finish their requests."""
        return tuple([one for one in self._leaving if one.in_flight])

    def mark(self) -> None:
        """Begin a new period of the recent requests."""
        self._marks = (self._marks[1], self._requests())

    def recent(self) -> RecentRequests:
        """Give the requests that ended since the `mark` before the last one."""
        now, before = self._requests(), self._marks[0]
        return RecentRequests(now.ended - before.ended, now.refused - before.refused)

    def _requests(self) -> RecentRequests:
        return RecentRequests(self.requests, sum(self.refusals.copy().values()))

    def move_gone(self) -> None:
        """Move the counts of destinations that left the pool long ago to `GONE`."""
        self._leaving = self.leaving()
        busy = {one.url for one in self._leaving}
        before = self._clock() - KEEP_SECONDS
        gone = {url for url, at in self._left_at.items() if at <= before and url not in busy}
        if gone:
            self._move_to_gone(gone)

    def _move_to_gone(self, urls: Collection[str]) -> None:
        total = DestinationCounts(self.upstream, GONE, (GONE, None))
        rest = self._counts.copy()
        # The counts that have moved before come first, so that each keeps its series.
        for url in (GONE, *urls):
            counts = rest.pop(url, None)
            if counts is not None:
                total.add(counts)
        for url in urls:
            del self._left_at[url]
        self._counts = {**rest, GONE: total}

    def _unlisted(self, destination: Destination) -> DestinationCounts:
        if not isinstance(destination, DynamicDestination):
            return self._made(destination)
        if DYNAMIC not in self._counts:
            self._counts = {**self._counts, DYNAMIC: self.dynamic}
        return self.dynamic

    def _made(self, destination: Destination) -> DestinationCounts:
        return DestinationCounts(self.upstream, destination.url, server_of(destination))

    # -- as a listener of events ----------------------------------------------------------

    def listen(self, event: Event) -> None:
        """Count an ejection."""
        if isinstance(event, DestinationEjected) and event.upstream == self.upstream:
            counts = self._counts.get(event.destination or "")
            if counts is not None:
                _count(counts.ejections, _ejection_reason(event.reason))

    # -- as the metrics of exchanges ------------------------------------------------------

    def attempt_began(self, exchange: Exchange) -> None:
        """Count an attempt, and whether it is a retry."""
        exchange.attempt_began = self._clock()
        exchange.head_at = 0.0
        exchange.counts = counts = self.of(exchange.destination)
        counts.attempts += 1
        if exchange.attempts:
            last = exchange.attempts[-1]
            failure = last.failure
            _count(counts.retries, f"status_{last.status}" if failure is None else failure.value)
        elif exchange.avoid:
            _count(counts.retries, "hedge")

    def head(self, exchange: Exchange) -> None:
        """Count the seconds to the head of a response."""
        exchange.head_at = now = self._clock()
        seconds = now - exchange.attempt_began
        first_byte: Durations = exchange.counts.first_byte
        first_byte.observe(seconds)
        if self.instruments is not None:
            self.instruments.record(FIRST_BYTE, seconds, first_byte)

    def attempt_ended(self, exchange: Exchange, failure: BaseException | None) -> None:
        """Count the duration and the failure of an attempt; a tunnel has no duration."""
        counts: DestinationCounts = exchange.counts
        error: str | None = None
        if failure is not None:
            error = _error_type(exchange, failure)
            _count(counts.failures, error)
            if exchange.scope["type"] == _LEASE:
                return  # its duration is that of the app's own work
        response = exchange.transport_exchange
        status = None if response is None or not exchange.head_at else response.status
        if exchange.tunnel_end is None and (status is not None or error is not None):
            seconds = self._clock() - exchange.attempt_began
            durations = counts.series(method_of(exchange.method), status, error)
            durations.observe(seconds)
            if self.instruments is not None:
                self.instruments.record(DURATION, seconds, durations)

    def ended(self, exchange: Exchange, failure: BaseException | None) -> None:
        """Count a request, its refusal or failure without an attempt, and the end of a tunnel."""
        self.requests += 1
        if exchange.queued is not None:
            self.queue.observe(exchange.queued)
            if self.instruments is not None:
                self.instruments.record(QUEUE, exchange.queued, self.queue)
        if failure is not None:
            self._ended_early(exchange, failure)
        end = exchange.tunnel_end
        if end is not None:
            counts = self.of(exchange.destination)
            _count(counts.tunnels, end.reason.value)
            counts.messages[0] += end.upward_messages
            counts.messages[1] += end.downward_messages

    def unread(self, reason: str) -> None:
        """Count a response that its tap could not read."""
        _count(self.unread_taps, reason)

    def _ended_early(self, exchange: Exchange, failure: BaseException) -> None:
        """Count a refusal, or a failure without an attempt."""
        if isinstance(failure, LimitExceeded):
            _count(self.refusals, failure.limit)
        elif isinstance(failure, ProxyError) and not exchange.attempts and not exchange.in_flight:
            _count(self.failures, failure.failure.value)


def _count(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1


def _error_type(exchange: Exchange, failure: BaseException) -> str:
    """Give ``error.type``; a lease may be failed with any exception."""
    if isinstance(failure, ProxyError):
        return failure.failure.value
    return _LEASE if exchange.scope["type"] == _LEASE else "cancelled"


_LEASE: Final = "lease"
_EJECTION_REASONS: Final = frozenset({"retry_after", *(one.value for one in Failure)})


def _ejection_reason(reason: str) -> str:
    """Give ``proxy.ejection.reason``; a lease may be failed with any text."""
    if reason in _EJECTION_REASONS:
        return reason
    status = re.fullmatch(r"status (\d{3})", reason)
    return _LEASE if status is None else f"status_{status[1]}"
