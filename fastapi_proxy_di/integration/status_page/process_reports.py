"""What the status router gives as JSON of all processes that share a store."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from fastapi_proxy_di.observability.changes import now
from fastapi_proxy_di.upstream.status import Percentiles, percentiles

if TYPE_CHECKING:
    from fastapi_proxy_di.cluster.members import Member  # needs an extra
    from fastapi_proxy_di.cluster.totals_rows import Rows
    from fastapi_proxy_di.observability.counts import DestinationCounts

__all__ = [
    "DestinationTotalsReport",
    "ProcessReport",
    "ProcessUpstreamReport",
    "TotalsReport",
    "process_reports",
    "totals_report",
]


class _Report(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, defer_build=True)


class ProcessUpstreamReport(_Report):
    """The counts of one upstream that a process sends with each beat.

    Attributes:
        destinations: Number of its destinations.
        available: How many of them are available.
        in_flight: Number of requests and tunnels under way.
    """

    destinations: int
    available: int
    in_flight: int


class ProcessReport(_Report):
    """A process of the app, by its last beat.

    Attributes:
        process: Host and process id.
        alive: Whether it beats. One that does not, and has not ended in order, went missing; it is
            listed for an hour.
        last_beat: When it has last beaten.
        version: Its version of fastapi-proxy-di.
        upstreams: The counts of its upstreams, by name; of as many as fit into 1 kB.
    """

    process: str
    alive: bool
    last_beat: datetime
    version: str
    upstreams: dict[str, ProcessUpstreamReport]


class DestinationTotalsReport(_Report):
    """One destination in all processes together; counts since each of them has started.

    Attributes:
        url: The address of the destination; ``gone`` for all that left long ago, ``dynamic`` for
            all dynamic destinations.
        states: The number of processes by the state that they see it in.
        in_flight: Number of requests and tunnels under way.
        attempts: Number of attempts, retries and leases included.
        failed_attempts: Number of failed attempts, by value of the `Failure`, or ``cancelled``.
        error_statuses: Number of responses with each status from 400 on.
        ejections: Number of ejections.
        first_byte_ms: Milliseconds to the head of all responses, ``None`` if there were none.
        duration_ms: The same to the last byte, of responses that came whole.
    """

    url: str
    states: dict[str, int]
    in_flight: int
    attempts: int
    failed_attempts: dict[str, int]
    error_statuses: dict[str, int]
    ejections: int
    first_byte_ms: Percentiles | None
    duration_ms: Percentiles | None


class TotalsReport(_Report):
    """One upstream in all processes together.

    Counts are those of each process since its start, and of processes that ended or went missing.

    Attributes:
        upstream: Name of the upstream.
        requests: Number of requests that have ended.
        refused: Number of requests that a limit has refused, by setting.
        in_flight: Number of requests and tunnels under way, in the processes that beat.
        tunnels: Number of open WebSockets there.
        destinations: The destinations, in the order of the settings; then others.
    """

    upstream: str
    requests: int
    refused: dict[str, int]
    in_flight: int
    tunnels: int
    destinations: tuple[DestinationTotalsReport, ...]


def process_reports(members: Iterable[Member]) -> tuple[ProcessReport, ...]:
    """Give the processes by name, those that went missing first."""
    at = now()
    return tuple(
        ProcessReport(
            process=one.name,
            alive=one.alive,
            last_beat=at - timedelta(seconds=one.age),
            version=one.version,
            upstreams={
                name: ProcessUpstreamReport(**counts._asdict())
                for name, counts in one.upstreams.items()
            },
        )
        for one in sorted(members, key=lambda one: (one.alive, one.process))
    )


def totals_report(upstream: str, rows: Rows, order: Iterable[str]) -> TotalsReport:
    """Give what all processes have counted of an upstream.

    Args:
        upstream: Name of the upstream.
        rows: The sum of their rows.
        order: The addresses of the destinations, in order.
    """
    # Imported late, because redis is an extra.
    from fastapi_proxy_di.cluster.totals_rows import WHOLE, Totals  # noqa: PLC0415

    totals = Totals(upstream, rows)
    first = [url for url in order if url in totals.destinations]
    gauges = {url: row["gauges"] for url, row in rows.items()}
    return TotalsReport(
        upstream=upstream,
        requests=totals.requests,
        refused=totals.refusals,
        in_flight=sum(one.get("active", 0) for one in gauges.values()),
        tunnels=gauges.get(WHOLE, {}).get("tunnels", 0),
        destinations=tuple(
            _destination(totals.destinations[url], gauges[url])
            for url in dict.fromkeys((*first, *sorted(totals.destinations)))
        ),
    )


def _destination(counts: DestinationCounts, gauges: dict[str, Any]) -> DestinationTotalsReport:
    since_start = counts.recent()
    return DestinationTotalsReport(
        url=counts.url,
        states=gauges.get("states", {}),
        in_flight=gauges.get("active", 0),
        attempts=counts.attempts,
        failed_attempts=counts.failures,
        error_statuses=counts.error_statuses(),
        ejections=sum(counts.ejections.values()),
        first_byte_ms=percentiles(since_start.first_byte),
        duration_ms=percentiles(since_start.durations),
    )
