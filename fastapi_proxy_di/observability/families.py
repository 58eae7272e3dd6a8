"""Reads the counts of upstreams as families of metrics, for every exporter alike.

Names and attributes are those of OpenTelemetry's conventions for HTTP clients, and ``proxy.*`` for
what they do not name. No attribute has a value that a client chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, get_args

from fastapi_proxy_di.observability.attributes import server_of
from fastapi_proxy_di.observability.counts import DYNAMIC, DestinationCounts
from fastapi_proxy_di.observability.histogram import Durations, Histogram, Label
from fastapi_proxy_di.observability.metrics import DURATION, FIRST_BYTE, QUEUE, Metrics
from fastapi_proxy_di.pools.destination import Destination, DestinationState

__all__ = ["Family", "Labels", "Numbers", "families"]

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


_SERVER: Final = ("proxy.upstream", "server.address", "server.port")
_OURS: Final = ("proxy.upstream", "proxy.destination")
_STATES: Final = get_args(DestinationState)


def families(upstreams: Iterable[Numbers]) -> list[Family]:
    """Read all metrics of the given upstreams."""
    made = _Families()
    for numbers in upstreams:
        made.read(numbers)
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

    def read(self, numbers: Numbers) -> None:
        name, metrics = numbers.upstream, numbers.metrics
        for state in _STATES:
            self.destinations.add(0, name, state)
        destinations = tuple(numbers.destinations())
        for one in destinations:
            self.destinations.add(1, name, one.state)
        for one in (*destinations, *metrics.leaving()):
            server = server_of(one)
            self.active.add(one.in_flight, name, *server)
            busy, idle = numbers.connections(one)
            self.connections.add(busy, name, *server, "active")
            self.connections.add(idle, name, *server, "idle")
        dynamic = numbers.dynamic()
        if dynamic is not None:
            in_flight, busy, idle = dynamic
            self.active.add(in_flight, name, DYNAMIC, None)
            self.connections.add(busy, name, DYNAMIC, None, "active")
            self.connections.add(idle, name, DYNAMIC, None, "idle")
        self.tunnels.add(numbers.tunnels(), name)
        self.queue.add_durations(metrics.queue)
        for limit, count in metrics.refusals.copy().items():
            self.refusals.add(count, name, limit)
        for error, count in metrics.failures.copy().items():
            self.failures.add(count, name, None, error)
        for counts in metrics.all():
            self._read_counts(name, counts)

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
