"""Rows of totals are added, subtracted and read back as counts."""

from __future__ import annotations

import json
from typing import Any

from fastapi_proxy_di.cluster.totals_rows import (
    MAX_RESULTS,
    Rows,
    Totals,
    added,
    merged,
    readings_of,
    rows_of,
    sum_of,
)
from fastapi_proxy_di.observability.families import Family, Numbers, families, families_of
from tests.cluster.counting import A, B, numbers_of


def counted(*urls: str, number: int = 1) -> Numbers:
    """Give numbers of an upstream that has counted something of each kind."""
    numbers = numbers_of(*urls)
    metrics = numbers.metrics
    metrics.requests = number
    metrics.refusals["limits.queue"] = number
    metrics.failures["no_available_destination"] = number
    metrics.unread_taps["coding"] = number
    metrics.queue.observe(0.3)
    for counts in metrics.all():
        counts.attempts = number
        counts.messages = [number, 0]
        counts.first_byte.observe(20)
        for kind in (counts.retries, counts.failures, counts.ejections, counts.tunnels):
            kind["connect"] = number
        counts.series("GET", 200, None).observe(0.1)
        counts.series("GET", None, "connect").observe(0.2)
    return numbers


def shown(made: list[Family]) -> dict[str, Any]:
    """Give what is shown of families, which has no order."""
    return {
        one.name: one.values
        or {
            labels: (list(each.buckets), round(each.seconds, 6))
            for labels, each in one.histograms.items()
        }
        for one in made
    }


def test_rows_of_one_process_show_what_it_shows_itself() -> None:
    """All families have the same values, from rows that went through JSON."""
    numbers = counted(A, B)
    rows: Rows = json.loads(json.dumps(rows_of(numbers)))
    readings = readings_of("billing", sum_of([(rows, True)]))
    assert shown(families_of([readings])) == shown(families([numbers]))


def test_gauges_are_those_of_the_living() -> None:
    """Counts of a process that is no more stay."""
    rows = rows_of(counted(A, number=4))
    alone = readings_of("billing", sum_of([(rows, False)]))
    assert alone.gauges.tunnels == 0
    assert alone.gauges.servers == []
    both = readings_of("billing", sum_of([(rows, False), (rows, True)]))
    assert both.gauges.tunnels == 3
    assert both.gauges.states == {"available": 1}
    assert isinstance(both.counts, Totals)
    assert both.counts.requests == 8


def test_subtraction_undoes_addition() -> None:
    """And leaves out what is 0, also where one of the two has no such name."""
    one, other = {"a": 1, "b": {"x": 2}}, {"b": {"x": 1, "y": 5}, "c": 3}
    assert added(added(one, other), other, -1) == one
    assert added(one, one, -1) == {}


def test_sum_of_what_has_ended_is_bounded() -> None:
    """By addresses that are known still, and by pairs of method and result; nothing is lost."""
    ended = rows_of(counted(A, B))
    total = merged(merged({}, ended, [A, B]), ended, [A])
    assert total[A]["counts"]["attempts"] == 2
    assert total["gone"]["counts"]["attempts"] == 2
    assert total["gone"]["server"] == ["gone", None]
    assert set(total) == {A, "gone", ""}
    assert "gauges" not in total[A]

    total = {}
    for start in range(100, 600, 10):
        numbers = numbers_of(A)
        for status in range(start, start + 10):
            for counts in numbers.metrics.all():
                counts.series("GET", status, None).observe(0.1)
        total = merged(total, rows_of(numbers), [A])
    durations = total[A]["counts"]["durations"]
    assert MAX_RESULTS < len(durations) <= MAX_RESULTS + 10
    (counts,) = Totals("billing", total).all()
    assert sum(one.count for one in counts.durations.values()) == 500
    assert counts.durations["_OTHER", 500, "_OTHER"].count == 100
    assert len(json.dumps(total[A])) < 20000
