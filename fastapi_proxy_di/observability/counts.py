"""The counts of one destination: attempts, retries, failures, ejections, tunnels and durations.

The counts are written in the event loop and may be read in any thread. A reader gets each number
as it is or as it was a moment ago, never a smaller one than before.
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias

from fastapi_proxy_di.errors import Failure, Side
from fastapi_proxy_di.observability.attributes import OTHER
from fastapi_proxy_di.observability.histogram import Durations, Histogram

__all__ = ["DYNAMIC", "GONE", "MAX_SERIES", "DestinationCounts", "Recent", "Result"]

GONE: Final = "gone"
"""Name of the counts of all destinations that left the pool more than an hour ago."""

DYNAMIC: Final = "dynamic"
"""Name of the counts of all dynamic destinations."""

MAX_SERIES: Final = 16
"""Pairs of method and result with a histogram of their own, for each destination. Those beyond are
counted by the class of the status and as method and error `OTHER`, so that the counts of a
destination need at most 16 KiB. The numbers of failures are exact all the same."""

Result: TypeAlias = tuple[str, int | None, str | None]
"""Method, status and ``error.type``, which are the last attributes of a duration."""

_NO_FAULT: Final = frozenset(
    {
        "cancelled",
        Failure.NOT_PROCESSED.value,
        *(one.value for one in Failure if one.side is Side.CLIENT),
    }
)
"""Failed attempts that are no sign of trouble: the client left or sent something wrong, the caller
or a hedged copy was cancelled, or the destination asked for another connection."""


class Recent(NamedTuple):
    """What was counted in some time.

    Attributes:
        first_byte: Durations to the first byte.
        durations: Durations of whole responses.
        attempts: Attempts.
        failed: Attempts that failed, without those that failed because of the client.
    """

    first_byte: Histogram
    durations: Histogram
    attempts: int
    failed: int


_START: Final = Recent(Histogram(), Histogram(), 0, 0)


def _sum(*histograms: Histogram) -> Histogram:
    total = Histogram()
    for one in histograms:
        total.add(one)
    return total


class DestinationCounts:
    """The counts of one destination, of all that are gone, or of all dynamic destinations.

    Args:
        upstream: Name of the upstream.
        url: Address of the destination, `GONE` or `DYNAMIC`.
        server: ``server.address`` and ``server.port``.

    Attributes:
        url: Address of the destination, `GONE` or `DYNAMIC`.
        attempts: Attempts, retries and leases included.
        retries: Attempts that repeated an earlier one, by the reason.
        failures: Failed attempts, by value of the `Failure`, or ``cancelled``.
        ejections: Ejections, by reason.
        tunnels: Ended tunnels, by reason.
        messages: Messages through tunnels that have ended, to the upstream and to the client.
        durations: Seconds from the start of an attempt to its last byte, by result.
        first_byte: Seconds from the start of an attempt to the head of its response.
    """

    __slots__ = (
        "_labels",
        "_marks",
        "attempts",
        "durations",
        "ejections",
        "failures",
        "first_byte",
        "messages",
        "retries",
        "tunnels",
        "url",
    )

    def __init__(self, upstream: str, url: str, server: tuple[str, int | None]) -> None:
        self.url: Final = url
        self.attempts: int = 0
        self.retries: dict[str, int] = {}
        self.failures: dict[str, int] = {}
        self.ejections: dict[str, int] = {}
        self.tunnels: dict[str, int] = {}
        self.messages: list[int] = [0, 0]
        self.durations: dict[Result, Durations] = {}
        self.first_byte: Durations = Durations((upstream, url))
        self._labels: tuple[str, str, int | None] = (upstream, *server)
        self._marks: tuple[Recent, Recent] = (_START, _START)

    @property
    def server(self) -> tuple[str, int | None]:
        """``server.address`` and ``server.port``."""
        return self._labels[1:]

    def series(self, method: str, status: int | None, error: str | None) -> Durations:
        """Give the durations of a method, a status and a `Failure`, each ``None`` for none."""
        if error is None and status is not None and status >= 400:
            error = str(status)  # an error for a client, by the conventions
        result = method, status, error
        found = self.durations.get(result)
        if found is None and len(self.durations) >= MAX_SERIES:
            first = None if status is None else status // 100 * 100
            result = OTHER, first, error and OTHER
            found = self.durations.get(result)
        if found is None:
            found = self.durations[result] = Durations(self._labels, result)
        return found

    def error_statuses(self) -> dict[str, int]:
        """Give the number of responses by status, from 400 on; beyond `MAX_SERIES` by class."""
        found: dict[str, int] = {}
        for (_, status, _), durations in self.durations.copy().items():
            if status is not None and status >= 400:
                found[str(status)] = found.get(str(status), 0) + durations.count
        return found

    def mark(self) -> None:
        """Begin a new period of the recent numbers."""
        now = Recent(_sum(self.first_byte), self._whole_responses(), self.attempts, self._failed())
        self._marks = (self._marks[1], now)

    def recent(self) -> Recent:
        """Give what was counted since the `mark` before the last one."""
        before = self._marks[0]
        return Recent(
            self.first_byte.since(before.first_byte),
            self._whole_responses().since(before.durations),
            self.attempts - before.attempts,
            self._failed() - before.failed,
        )

    def _failed(self) -> int:
        counts = self.failures.copy()
        return sum([count for name, count in counts.items() if name not in _NO_FAULT])

    def _whole_responses(self) -> Histogram:
        """Give the durations of the attempts that had a response to its last byte."""
        return _sum(*filter(_is_whole, self.durations.copy().values()))

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
        for result, durations in other.durations.items():
            self.series(*result).add(durations)
        self.first_byte.add(other.first_byte)


def _is_whole(durations: Durations) -> bool:
    """Whether these are durations of responses that came to their end, whatever their status."""
    status, error = durations.labels[-2:]
    return status is not None and error in {None, str(status), OTHER}
