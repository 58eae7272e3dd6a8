"""Counts what one upstream does: attempts, retries, failures, refusals, tunnels and durations.

Everything that shows numbers reads them here: OpenTelemetry's instruments, the Prometheus
collector and ``status()``. All counts are totals since the start and never fall. A destination
that has left the pool keeps its counts for an hour; then they move to `GONE`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from time import monotonic
from typing import Final, NamedTuple, Protocol, TypeAlias

from fastapi_proxy_di.errors import LimitExceeded, ProxyError
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.observability.attributes import OTHER, method_of, server_of
from fastapi_proxy_di.observability.histogram import Histogram
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.supervision.events import DestinationEjected, Event
from fastapi_proxy_di.transport.protocol import Headers

__all__ = ["GONE", "DestinationCounts", "Metrics"]

GONE: Final = "gone"
"""Name of the counts of all destinations that left the pool more than an hour ago."""

PERIOD_SECONDS: Final = 60.0
"""Seconds between two marks; recent durations are those of one to two periods."""

KEEP_SECONDS: Final = 3600.0
"""How long a destination that has left the pool keeps its own counts."""

MAX_SERIES: Final = 40
"""Pairs of method and result with a histogram of their own, for each destination. Statuses beyond
are counted as the first of their class, so that a destination cannot fill the memory."""

Result: TypeAlias = tuple[int | None, str | None]
"""Status of the response and value of the `Failure`, each ``None`` if there is none."""


DURATION: Final = "http.client.request.duration"
FIRST_BYTE: Final = "proxy.first_byte.duration"
QUEUE: Final = "proxy.queue.duration"

Attributes: TypeAlias = Mapping[str, str | int]


class DurationRecorder(Protocol):
    """Gets the durations as they end; OpenTelemetry's instruments are one."""

    def attributes(self, name: str, labels: tuple[str | int | None, ...]) -> Attributes:
        """Give the attributes of a duration, to be kept for further ones."""

    def record(self, name: str, seconds: float, attributes: Attributes) -> None:
        """Take a duration."""


class _Mark(NamedTuple):
    """What a destination had counted at one moment."""

    durations: Histogram = Histogram()
    first_byte: Histogram = Histogram()


def _copy(*histograms: Histogram) -> Histogram:
    copy = Histogram()
    for one in histograms:
        copy.add(one)
    return copy


class DestinationCounts:
    """The counts of one destination.

    Attributes:
        attempts: Attempts, retries and leases included.
        retries: Attempts that repeated an earlier one, by the reason.
        failures: Failed attempts, by value of the `Failure`.
        ejections: Ejections, by reason.
        tunnels: Ended tunnels, by reason.
        messages: Messages through tunnels that have ended, to the upstream and to the client.
        durations: Seconds from the start of an attempt to its last byte, by method and result.
        first_byte: Seconds from the start of an attempt to the head of its response.
        attributes: Attributes of the durations that OpenTelemetry has got, by series.
    """

    __slots__ = (
        "_marks",
        "attempts",
        "attributes",
        "durations",
        "ejections",
        "failures",
        "first_byte",
        "messages",
        "retries",
        "tunnels",
    )

    def __init__(self) -> None:
        self.attempts: int = 0
        self.retries: dict[str, int] = {}
        self.failures: dict[str, int] = {}
        self.ejections: dict[str, int] = {}
        self.tunnels: dict[str, int] = {}
        self.messages: list[int] = [0, 0]
        self.durations: dict[tuple[str, Result], Histogram] = {}
        self.first_byte: Histogram = Histogram()
        self.attributes: dict[tuple[str, Result] | None, Attributes] = {}
        self._marks: tuple[_Mark, _Mark] = (_Mark(), _Mark())

    def ended(self, method: str, result: Result, seconds: float) -> tuple[str, Result]:
        """Count the duration of an attempt; give the series in which it is counted."""
        histogram = self.durations.get((method, result))
        if histogram is None:
            status = result[0]
            if len(self.durations) >= MAX_SERIES and status is not None:
                result = (status // 100 * 100, result[1])
                method = OTHER
            histogram = self.durations.setdefault((method, result), Histogram())
        histogram.observe(seconds)
        return method, result

    def mark(self) -> None:
        """Begin a new period of the recent durations."""
        self._marks = (self._marks[1], _Mark(self._all_durations(), _copy(self.first_byte)))

    def recent(self) -> tuple[Histogram, Histogram]:
        """Give the durations since the `mark` before the last one: first bytes, and in all."""
        mark = self._marks[0]
        return self.first_byte.since(mark.first_byte), self._all_durations().since(mark.durations)

    def _all_durations(self) -> Histogram:
        return _copy(*tuple(self.durations.values()))

    def add(self, other: DestinationCounts) -> None:
        """Count everything that ``other`` has counted as well."""
        self.attempts += other.attempts
        for ours, theirs in (
            (self.retries, other.retries),
            (self.failures, other.failures),
            (self.ejections, other.ejections),
            (self.tunnels, other.tunnels),
        ):
            for name, count in theirs.items():
                ours[name] = ours.get(name, 0) + count
        for side, count in enumerate(other.messages):
            self.messages[side] += count
        for key, histogram in other.durations.items():
            self.durations.setdefault(key, Histogram()).add(histogram)
        self.first_byte.add(other.first_byte)


class Metrics:
    """The counts of one upstream, and the ``Observer`` of all its exchanges.

    One object observes all exchanges; what belongs to one exchange is stored in the exchange.

    Args:
        upstream: Name of the upstream.
        clock: Gives monotonic seconds.

    Attributes:
        upstream: Name of the upstream.
        refusals: Refused requests, by the setting that refused them.
        failures: Requests that failed without an attempt, by value of the `Failure`.
        queue: Seconds that requests waited in the queue.
        instruments: Records durations as they end, ``None`` for nobody.
    """

    def __init__(self, upstream: str, clock: Callable[[], float] = monotonic) -> None:
        self.upstream: Final = upstream
        self._clock: Final = clock
        self._counts: Final[dict[Destination, DestinationCounts]] = {}
        self._removed: Final[dict[Destination, float]] = {}
        self._gone: DestinationCounts | None = None
        self.refusals: dict[str, int] = {}
        self.failures: dict[str, int] = {}
        self.queue: Histogram = Histogram()
        self.instruments: DurationRecorder | None = None

    def of(self, destination: Destination) -> DestinationCounts:
        """Give the counts of a destination."""
        counts = self._counts.get(destination)
        if counts is None:
            counts = self._counts[destination] = DestinationCounts()
        return counts

    def removed(self, destinations: Collection[Destination]) -> None:
        """Note that destinations have left the pool."""
        now = self._clock()
        for destination in destinations:
            if destination in self._counts:
                self._removed[destination] = now

    def leaving(self) -> list[Destination]:
        """Give the destinations that have left the pool and finish their requests."""
        return [one for one in tuple(self._removed) if one.in_flight]

    def mark(self) -> None:
        """Begin a new period of the recent durations of all destinations."""
        for counts in tuple(self._counts.values()):
            counts.mark()

    def by_destination(self) -> Iterator[tuple[Destination | None, DestinationCounts]]:
        """Give the counts of each destination; ``None`` stands for those that left long ago."""
        self._fold(self._clock() - KEEP_SECONDS)
        yield from tuple(self._counts.items())
        if self._gone is not None:
            yield None, self._gone

    def _fold(self, before: float) -> None:
        for destination, since in tuple(self._removed.items()):
            if since <= before and not destination.in_flight:
                del self._removed[destination]
                if self._gone is None:
                    self._gone = DestinationCounts()
                self._gone.add(self._counts.pop(destination))

    # -- as a listener of events ----------------------------------------------------------

    def listen(self, event: Event) -> None:
        """Count an ejection."""
        if isinstance(event, DestinationEjected) and event.upstream == self.upstream:
            for destination, counts in self._counts.items():
                if destination.url == event.destination and not destination.removed:
                    counts.ejections[event.reason] = counts.ejections.get(event.reason, 0) + 1

    # -- as the observer of exchanges -----------------------------------------------------

    def observe(self, exchange: Exchange) -> Metrics:
        """Give itself: one object observes all exchanges."""
        return self

    def picked(
        self, exchange: Exchange, tried: Collection[Destination], destination: Destination | None
    ) -> None:
        """Do nothing; picks are counted as attempts."""

    def attempt_began(self, exchange: Exchange) -> None:
        """Count an attempt, and whether it is a retry."""
        exchange.attempt_began = self._clock()
        exchange.head_at = 0.0
        counts = self.of(exchange.destination)
        counts.attempts += 1
        if exchange.attempts:
            last = exchange.attempts[-1]
            reason = f"status_{last.status}" if last.failure is None else last.failure.value
        elif exchange.avoid:
            reason = "hedge"
        else:
            return
        counts.retries[reason] = counts.retries.get(reason, 0) + 1

    def head(self, exchange: Exchange) -> None:
        """Count the seconds to the head of a response."""
        exchange.head_at = now = self._clock()
        seconds = now - exchange.attempt_began
        counts = self.of(exchange.destination)
        counts.first_byte.observe(seconds)
        if self.instruments is not None:
            attributes = counts.attributes.get(None)
            if attributes is None:
                labels = (self.upstream, exchange.destination.url)
                attributes = self.instruments.attributes(FIRST_BYTE, labels)
                counts.attributes[None] = attributes
            self.instruments.record(FIRST_BYTE, seconds, attributes)

    def received(self, exchange: Exchange) -> None:
        """Do nothing; the attempt ends when the client has the response."""

    def attempt_ended(self, exchange: Exchange, failure: BaseException | None) -> None:
        """Count the duration and the failure of an attempt."""
        counts = self.of(exchange.destination)
        error: str | None = None
        if failure is not None:
            error = failure.failure.value if isinstance(failure, ProxyError) else "cancelled"
            counts.failures[error] = counts.failures.get(error, 0) + 1
        status = exchange.response.status if exchange.head_at else None
        if exchange.tunnel_end is None and (status is not None or error is not None):
            seconds = self._clock() - exchange.attempt_began
            series = counts.ended(method_of(exchange.method), (status, error), seconds)
            if self.instruments is not None:
                attributes = counts.attributes.get(series)
                if attributes is None:
                    method, (status, error) = series
                    labels = (self.upstream, *server_of(exchange.destination))
                    attributes = self.instruments.attributes(
                        DURATION, (*labels, method, status, error)
                    )
                    counts.attributes[series] = attributes
                self.instruments.record(DURATION, seconds, attributes)

    def responded(self, exchange: Exchange, status: int, headers: Headers) -> None:
        """Do nothing; statuses are counted when the attempt ends."""

    def sent(self, size: int) -> None:
        """Do nothing; the server counts bytes."""

    def ended(self, exchange: Exchange, failure: BaseException | None) -> None:
        """Count a refusal, a failure without an attempt, and the end of a tunnel."""
        if exchange.queued is not None:
            self.queue.observe(exchange.queued)
            if self.instruments is not None:
                attributes = self.instruments.attributes(QUEUE, (self.upstream,))
                self.instruments.record(QUEUE, exchange.queued, attributes)
        if isinstance(failure, LimitExceeded):
            self.refusals[failure.limit] = self.refusals.get(failure.limit, 0) + 1
        elif isinstance(failure, ProxyError) and not exchange.attempts and not exchange.in_flight:
            name = failure.failure.value
            self.failures[name] = self.failures.get(name, 0) + 1
        end = exchange.tunnel_end
        if end is not None:
            counts = self.of(exchange.destination)
            name = end.reason.value
            counts.tunnels[name] = counts.tunnels.get(name, 0) + 1
            counts.messages[0] += end.upward_messages
            counts.messages[1] += end.downward_messages
