"""Reads the counts of upstreams as families of metrics, for every exporter alike.

Names and attributes are those of OpenTelemetry's conventions for HTTP clients, and ``proxy.*`` for
what they do not name. No attribute has a value that a client chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, TypeAlias, get_args

from fastapi_proxy_di.observability.attributes import server_of
from fastapi_proxy_di.observability.counts import DYNAMIC, DestinationCounts
from fastapi_proxy_di.observability.histogram import Durations, Histogram, Label
from fastapi_proxy_di.observability.metrics import DURATION, FIRST_BYTE, QUEUE, Metrics
from fastapi_proxy_di.pools.destination import Destination, DestinationState

__all__ = [
    "Counts",
    "Family",
    "Gauges",
    "Labels",
    "Numbers",
    "Readings",
    "Server",
    "families",
    "families_of",
]

Server: TypeAlias = tuple[str, int | None]
"""``server.address`` and ``server.port``."""

Labels: TypeAlias = tuple[Label, ...]
"""Values of the attributes of a family, in its order; ``None`` where one does not apply."""


@dataclass(slots=True)
class Family:
    """One metric with its values.

    Attributes:
        name: Name of the metric, e.g. ``"proxy.attempts"``.
        kind: ``"counter"`` never falls; ``"gauge"`` goes up and down.
        unit: Unit by UCUM, ``"s"`` or a word in braces.
        text: What is counted.
        attributes: Names of the attributes, in order.
        values: A number for each set of attributes.
        histograms: The same for a histogram.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    text: str
    attributes: tuple[str, ...]
    values: dict[Labels, float] = field(default_factory=dict)
    histograms: dict[Labels, Histogram] = field(default_factory=dict)

    def add(self, count: float, *labels: Label) -> None:
        """Add to the value with these attributes; two destinations may share them."""
        self.values[labels] = self.values.get(labels, 0) + count

    def add_durations(self, durations: Durations) -> None:
        """Add to the histogram with the same attributes."""
        self.histograms.setdefault(durations.labels, Histogram()).add(durations)


class Counts(Protocol):
    """The counts of one upstream, in this process or in several: totals that never fall."""

    @property
    def refusals(self) -> dict[str, int]:
        """Refused requests, by the setting that refused them."""

    @property
    def failures(self) -> dict[str, int]:
        """Requests that failed without an attempt, by value of the `Failure`."""

    @property
    def unread_taps(self) -> dict[str, int]:
        """Responses that their tap could not read, by reason."""

    @property
    def queue(self) -> Durations:
        """Seconds that requests waited in the queue."""

    def all(self) -> Iterable[DestinationCounts]:
        """Give the counts of each destination."""


@dataclass(slots=True)
class Gauges:
    """What one upstream has at this moment, in this process or in several.

    Attributes:
        states: Number of destinations in each state.
        servers: Number of requests under way, of connections in use and of idle ones.
        tunnels: Number of open tunnels.
    """

    states: Mapping[str, int]
    servers: Iterable[tuple[Server, tuple[int, int, int]]]
    tunnels: int


@dataclass(frozen=True, slots=True)
class Readings:
    """What the families of one upstream are made of.

    Attributes:
        upstream: Name of the upstream.
        counts: Its totals.
        gauges: What it has at this moment.
    """

    upstream: str
    counts: Counts
    gauges: Gauges


@dataclass(frozen=True, slots=True)
class Numbers:
    """What the metrics of one upstream are read from.

    Attributes:
        upstream: Name of the upstream.
        metrics: The counts of its exchanges.
        destinations: Gives its destinations.
        connections: Gives the number of connections of a destination in use, and of idle ones.
        tunnels: Gives the number of open tunnels.
        dynamic: Gives the number of requests to dynamic destinations, and of connections
            there in use and idle; it gives ``None`` if no addresses are allowed.
    """

    upstream: str
    metrics: Metrics
    destinations: Callable[[], Iterable[Destination]]
    connections: Callable[[Destination], tuple[int, int]]
    tunnels: Callable[[], int]
    dynamic: Callable[[], tuple[int, int, int] | None] = lambda: None

    def read(self) -> Readings:
        """Read what the upstream has at this moment; in any thread."""
        states: dict[str, int] = {}
        destinations = tuple(self.destinations())
        for one in destinations:
            states[one.state] = states.get(one.state, 0) + 1
        servers = [
            (server_of(one), (one.in_flight, *self.connections(one)))
            for one in (*destinations, *self.metrics.leaving())
        ]
        dynamic = self.dynamic()
        if dynamic is not None:
            servers.append(((DYNAMIC, None), dynamic))
        return Readings(self.upstream, self.metrics, Gauges(states, servers, self.tunnels()))


_SERVER: Final = ("proxy.upstream", "server.address", "server.port")
_OURS: Final = ("proxy.upstream", "proxy.destination")
_STATES: Final = get_args(DestinationState)


def families(upstreams: Iterable[Numbers]) -> list[Family]:
    """Read all metrics of the given upstreams."""
    return families_of([numbers.read() for numbers in upstreams])


def families_of(upstreams: Iterable[Readings]) -> list[Family]:
    """Give all metrics of upstreams that have been read."""
    made = _Families()
    for one in upstreams:
        made.add(one)
    return made.all


class _Families:
    def __init__(self) -> None:
        self.durations = Family(
            DURATION,
            "histogram",
            "s",
            "Duration of attempts at destinations, from their start to the last byte.",
            (*_SERVER, "http.request.method", "http.response.status_code", "error.type"),
        )
        self.active = Family(
            "http.client.active_requests",
            "gauge",
            "{request}",
            "Attempts, tunnels and leases under way.",
            _SERVER,
        )
        self.connections = Family(
            "http.client.open_connections",
            "gauge",
            "{connection}",
            "Open connections to destinations, without those that tunnels have taken over.",
            (*_SERVER, "http.connection.state"),
        )
        self.attempts = Family(
            "proxy.attempts", "counter", "{attempt}", "Attempts at destinations.", _OURS
        )
        self.retries = Family(
            "proxy.retries",
            "counter",
            "{attempt}",
            "Attempts that repeated an earlier one.",
            (*_OURS, "proxy.retry.reason"),
        )
        self.failures = Family(
            "proxy.failures",
            "counter",
            "{failure}",
            "Failed attempts, and requests that failed without an attempt.",
            (*_OURS, "error.type"),
        )
        self.ejections = Family(
            "proxy.ejections",
            "counter",
            "{ejection}",
            "Ejections of destinations.",
            (*_OURS, "proxy.ejection.reason"),
        )
        self.refusals = Family(
            "proxy.refusals",
            "counter",
            "{request}",
            "Requests that a limit refused.",
            ("proxy.upstream", "proxy.limit.name"),
        )
        self.unread_taps = Family(
            "proxy.tap.unread",
            "counter",
            "{response}",
            "Responses that their tap could not read, at all or to the end.",
            ("proxy.upstream", "proxy.tap.reason"),
        )
        self.tunnel_ends = Family(
            "proxy.tunnel.ends",
            "counter",
            "{tunnel}",
            "WebSocket tunnels that ended.",
            (*_OURS, "proxy.tunnel.end.reason"),
        )
        self.messages = Family(
            "proxy.tunnel.messages",
            "counter",
            "{message}",
            "Messages of tunnels that ended.",
            (*_OURS, "proxy.direction"),
        )
        self.destinations = Family(
            "proxy.destination.count",
            "gauge",
            "{destination}",
            "Destinations in each state.",
            ("proxy.upstream", "proxy.destination.state"),
        )
        self.tunnels = Family(
            "proxy.tunnel.count",
            "gauge",
            "{tunnel}",
            "Open WebSocket tunnels.",
            ("proxy.upstream",),
        )
        self.first_byte = Family(
            FIRST_BYTE,
            "histogram",
            "s",
            "Duration from the start of an attempt to the head of its response.",
            _OURS,
        )
        self.queue = Family(
            QUEUE,
            "histogram",
            "s",
            "Time that requests waited in the queue.",
            ("proxy.upstream",),
        )

    @property
    def all(self) -> list[Family]:
        return [value for value in vars(self).values() if isinstance(value, Family)]

    def add(self, readings: Readings) -> None:
        name, counts, gauges = readings.upstream, readings.counts, readings.gauges
        for state in _STATES:
            self.destinations.add(gauges.states.get(state, 0), name, state)
        for server, (in_flight, busy, idle) in gauges.servers:
            self.active.add(in_flight, name, *server)
            self.connections.add(busy, name, *server, "active")
            self.connections.add(idle, name, *server, "idle")
        self.tunnels.add(gauges.tunnels, name)
        self.queue.add_durations(counts.queue)
        for limit, count in counts.refusals.copy().items():
            self.refusals.add(count, name, limit)
        for error, count in counts.failures.copy().items():
            self.failures.add(count, name, None, error)
        for reason, count in counts.unread_taps.copy().items():
            self.unread_taps.add(count, name, reason)
        for one in counts.all():
            self._read_counts(name, one)

    def _read_counts(self, name: str, counts: DestinationCounts) -> None:
        self.attempts.add(counts.attempts, name, counts.url)
        self.first_byte.add_durations(counts.first_byte)
        for family, by_name in (
            (self.retries, counts.retries),
            (self.failures, counts.failures),
            (self.ejections, counts.ejections),
            (self.tunnel_ends, counts.tunnels),
        ):
            for label, count in by_name.copy().items():
                family.add(count, name, counts.url, label)
        for direction, count in zip(("up", "down"), counts.messages, strict=True):
            self.messages.add(count, name, counts.url, direction)
        for durations in counts.durations.copy().values():
            self.durations.add_durations(durations)
