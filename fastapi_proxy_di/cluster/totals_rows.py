"""Rows of totals: what one process has counted for one destination, or all of them together. Pure.

A row is JSON with counts, which never fall, and gauges. Both are names with whole numbers, or with
such names again, so that rows are added and subtracted without knowing what they count. What is 0
is left out. The row `WHOLE` has what belongs to no destination.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

from fastapi_proxy_di.observability.attributes import OTHER, server_of
from fastapi_proxy_di.observability.counts import GONE, DestinationCounts
from fastapi_proxy_di.observability.families import Gauges, Numbers, Readings
from fastapi_proxy_di.observability.histogram import BOUNDS, Durations, Histogram

__all__ = ["WHOLE", "Row", "Rows", "Totals", "added", "merged", "readings_of", "rows_of", "sum_of"]

Row: TypeAlias = dict[str, Any]
"""``{"counts": {…}, "gauges": {…}, "server": [address, port]}``."""

Rows: TypeAlias = dict[str, Row]
"""Rows by the address of their destination."""

WHOLE: Final = ""
"""Name of the row of the whole upstream."""

MAX_RESULTS: Final = 64
"""Pairs of method and result of a destination in the sum of what has ended. Those beyond are
counted by the class of the status, with `OTHER` as method and error."""

_MICRO: Final = 1000000
_SECONDS: Final = "us"
"""Whole microseconds, because sums of fractions depend on their order, and could fall."""


def rows_of(numbers: Numbers, *, ended: bool = False) -> Rows:
    """Give the rows of one upstream in this process; in any thread.

    Args:
        numbers: What its metrics are read from.
        ended: Whether the upstream has ended, and so has no gauges.
    """
    metrics = numbers.metrics
    whole = {
        "requests": metrics.requests,
        "refusals": metrics.refusals.copy(),
        "failures": metrics.failures.copy(),
        "unread": metrics.unread_taps.copy(),
        "queue": _packed(metrics.queue),
    }
    rows = {one.url: _row(one) for one in metrics.all()}
    rows[WHOLE] = {"counts": added({}, whole), "gauges": {}}
    if not ended:
        _add_gauges(rows, numbers)
    return rows


def _row(one: DestinationCounts) -> Row:
    counts = {
        "attempts": one.attempts,
        "up": one.messages[0],
        "down": one.messages[1],
        "retries": one.retries.copy(),
        "failures": one.failures.copy(),
        "ejections": one.ejections.copy(),
        "tunnels": one.tunnels.copy(),
        "first": _packed(one.first_byte),
        "durations": {
            f"{method} {status or ''} {error or ''}": _packed(durations)
            for (method, status, error), durations in one.durations.copy().items()
        },
    }
    return {"counts": added({}, counts), "gauges": {}, "server": list(one.server)}


def _add_gauges(rows: Rows, numbers: Numbers) -> None:
    destinations = tuple(numbers.destinations())
    for one in (*destinations, *numbers.metrics.leaving()):
        busy, idle = numbers.connections(one)
        now: Row = {"active": one.in_flight, "busy": busy, "idle": idle}
        if not one.removed:
            now["states"] = {one.state: 1}
        empty: Row = {"counts": {}, "gauges": {}, "server": list(server_of(one))}
        row = rows.setdefault(one.url, empty)
        row["gauges"] = added(row["gauges"], now)
    dynamic = numbers.dynamic()
    if dynamic is not None:
        active, busy, idle = dynamic
        counts = numbers.metrics.dynamic
        row = rows.setdefault(counts.url, _row(counts))
        row["gauges"] = added({}, {"active": active, "busy": busy, "idle": idle})
    rows[WHOLE]["gauges"] = added({}, {"tunnels": numbers.tunnels()})


def added(one: Mapping[str, Any], other: Mapping[str, Any], sign: int = 1) -> dict[str, Any]:
    """Add numbers by their names, or subtract them, and leave out what is 0."""
    found = dict(one)
    for name, value in other.items():
        if isinstance(value, Mapping):
            total: Any = added(found.get(name, {}), value, sign)
        else:
            total = found.get(name, 0) + sign * value
        if total:
            found[name] = total
        else:
            found.pop(name, None)
    return found


def sum_of(many: Iterable[tuple[Rows, bool]]) -> Rows:
    """Add the rows of several series.

    Args:
        many: Rows, and whether their gauges count: whether their process is alive.
    """
    total: Rows = {}
    for rows, alive in many:
        for url, row in rows.items():
            before = total.get(url) or {"counts": {}, "gauges": {}, "server": _server(row)}
            total[url] = {
                **before,
                "counts": added(before["counts"], row["counts"]),
                "gauges": added(before["gauges"], row.get("gauges", {}) if alive else {}),
            }
    return total


def merged(gone: Rows, ended: Rows, known: Iterable[str]) -> Rows:
    """Add the counts of a series that has ended to the sum of all that have.

    Args:
        gone: The sum.
        ended: The rows of the series.
        known: Addresses that keep a row of their own; the counts of others go to the row `GONE`.
    """
    kept = {*known, WHOLE, GONE}
    total: Rows = {}
    for rows in (gone, ended):
        for url, row in rows.items():
            name = url if url in kept else GONE
            server = _server(row) if name == url else [GONE, None]
            before = total.get(name) or {"counts": {}, "server": server}
            total[name] = {**before, "counts": _bounded(before["counts"], row["counts"])}
    return total


def _bounded(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Add counts, so that no more than `MAX_RESULTS` pairs have durations of their own."""
    known = one.get("durations", {})
    places = MAX_RESULTS - len(known)
    durations: dict[str, Any] = {}
    for result, packed in other.get("durations", {}).items():
        name = result
        if result not in known and result not in durations:
            name = result if places > 0 else _class_of(result)
            places -= 1
        durations[name] = added(durations.get(name, {}), packed)
    return added(one, {**other, "durations": durations})


def _class_of(result: str) -> str:
    _, status, error = result.split(" ")
    first = f"{int(status) // 100 * 100}" if status else ""
    return f"{OTHER} {first} {error and OTHER}"


class Totals:
    """The counts of one upstream, of all processes together; read as `Counts`.

    Args:
        upstream: Name of the upstream.
        rows: The sum of the rows.

    Attributes:
        requests: Requests that have ended.
        refusals: Refused requests, by the setting that refused them.
        failures: Requests that failed without an attempt, by value of the `Failure`.
        unread_taps: Responses that their tap could not read, by reason.
        queue: Seconds that requests waited in the queue.
        destinations: The counts of each destination, by address.
    """

    def __init__(self, upstream: str, rows: Rows) -> None:
        whole = rows.get(WHOLE, {"counts": {}})["counts"]
        self.requests: int = whole.get("requests", 0)
        self.refusals: dict[str, int] = whole.get("refusals", {})
        self.failures: dict[str, int] = whole.get("failures", {})
        self.unread_taps: dict[str, int] = whole.get("unread", {})
        self.queue: Durations = _unpacked(Durations((upstream,)), whole.get("queue", {}))
        self.destinations: dict[str, DestinationCounts] = {
            url: _counts(upstream, url, row) for url, row in rows.items() if url != WHOLE
        }

    def all(self) -> tuple[DestinationCounts, ...]:
        """Give the counts of each destination."""
        return tuple(self.destinations.values())


def readings_of(upstream: str, rows: Rows) -> Readings:
    """Give what the metrics of all processes together are made of."""
    states: dict[str, int] = {}
    servers = []
    for url, row in rows.items():
        gauges = row["gauges"]
        states = added(states, gauges.get("states", {}))
        if url not in {WHOLE, GONE} and gauges:
            address, port = row["server"]
            three = gauges.get("active", 0), gauges.get("busy", 0), gauges.get("idle", 0)
            servers.append(((address, port), three))
    tunnels = rows.get(WHOLE, {"gauges": {}})["gauges"].get("tunnels", 0)
    return Readings(upstream, Totals(upstream, rows), Gauges(states, servers, tunnels))


def _server(row: Row) -> list[Any]:
    return list(row.get("server", ("", None)))


def _counts(upstream: str, url: str, row: Row) -> DestinationCounts:
    address, port = _server(row)
    found, counts = DestinationCounts(upstream, url, (address, port)), row["counts"]
    found.attempts = counts.get("attempts", 0)
    found.messages = [counts.get("up", 0), counts.get("down", 0)]
    found.retries = counts.get("retries", {})
    found.failures = counts.get("failures", {})
    found.ejections = counts.get("ejections", {})
    found.tunnels = counts.get("tunnels", {})
    found.first_byte = _unpacked(found.first_byte, counts.get("first", {}))
    for name, packed in counts.get("durations", {}).items():
        method, status, error = name.split(" ")
        result = method, int(status) if status else None, error or None
        durations = Durations((upstream, address, port), result)
        found.durations[result] = _unpacked(durations, packed)
    return found


def _packed(histogram: Histogram) -> dict[str, int]:
    packed = {str(number): count for number, count in enumerate(histogram.buckets) if count}
    packed[_SECONDS] = round(histogram.seconds * _MICRO)
    return packed


def _unpacked(durations: Durations, packed: Mapping[str, int]) -> Durations:
    for name, count in packed.items():
        if name == _SECONDS:
            durations.seconds = count / _MICRO
        elif int(name) <= len(BOUNDS):
            durations.buckets[int(name)] = count
    return durations
