"""Buckets, sums and percentiles of durations."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_proxy_di.observability.histogram import BOUNDS, Histogram


def histogram(*seconds: float) -> Histogram:
    """Give a histogram of these durations."""
    made = Histogram()
    for one in seconds:
        made.observe(one)
    return made


def test_bounds_belong_to_their_bucket() -> None:
    """As ``le`` in Prometheus says; what is over all bounds is in the last bucket."""
    made = histogram(0.005, 0.0051, 10.0, 10.1)

    assert [*made.buckets] == [1, 1, *[0] * 11, 1, 1]
    assert made.seconds == pytest.approx(20.1101)
    assert made.count == 4


def test_empty_histogram_has_no_quantile() -> None:
    """A page shows nothing rather than zero."""
    assert Histogram().quantile(0.5) is None


def test_quantile_is_a_line_through_its_bucket() -> None:
    """Four durations between 25 and 50 ms: the median is in the middle."""
    made = histogram(0.03, 0.03, 0.04, 0.04)

    assert made.quantile(0.5) == pytest.approx(0.0375)
    assert made.quantile(1.0) == pytest.approx(0.05)
    assert histogram(60.0).quantile(0.99) == BOUNDS[-1]


@given(st.lists(st.floats(0, 9.99), min_size=1))
def test_quantiles_are_within_a_bucket_of_the_truth(durations: list[float]) -> None:
    """The estimate is between the bounds of the bucket that has the duration."""
    made = histogram(*durations)
    ordered = sorted(durations)
    for share in (0.01, 0.5, 0.99, 1.0):
        rank = share * len(ordered)
        truth = ordered[min(len(ordered) - 1, max(0, math.ceil(rank) - 1))]
        upper = next(bound for bound in BOUNDS if truth <= bound)
        lower = max((bound for bound in BOUNDS if bound < upper), default=0.0)
        estimate = made.quantile(share)
        assert estimate is not None
        assert lower <= estimate <= upper


@given(st.lists(st.floats(0, 100)), st.lists(st.floats(0, 100)))
def test_sum_of_histograms_counts_both(first: list[float], second: list[float]) -> None:
    """As one histogram of all durations."""
    made = histogram(*first)
    made.add(histogram(*second))

    assert made.buckets == histogram(*first, *second).buckets
    assert made.seconds == pytest.approx(sum(first) + sum(second))
