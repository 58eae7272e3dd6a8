"""Threshold: how many results in a row change a destination's health."""

from fastapi_proxy_di.health.thresholds import Threshold
from fastapi_proxy_di.pools.pool import Pool
from tests.pools.samples import pool_of


def probe(pool: Pool, threshold: Threshold, results: str) -> str:
    """Observe results (``+`` or ``-``); give the health after each."""
    destination = pool.destinations[0]
    healths = ""
    for result in results:
        if threshold.observe(destination, result == "+"):
            pool.set_health(destination, result == "+")
        healths += "+" if destination.healthy else "-"
    return healths


def test_threshold_changes_the_health_at_the_first_result() -> None:
    """Before it nothing is known, whatever ``fall`` is."""
    assert probe(pool_of(1), Threshold(fall=3, rise=2), "-") == "-"


def test_threshold_first_good_result_is_no_change() -> None:
    """A destination begins healthy."""
    assert not Threshold(fall=3, rise=2).observe(pool_of(1).destinations[0], True)


def test_threshold_needs_fall_failures_in_a_row() -> None:
    """A good one in between starts the count again."""
    assert probe(pool_of(1), Threshold(fall=3, rise=1), "+--+---") == "++++++-"


def test_threshold_needs_rise_good_ones_in_a_row() -> None:
    """A failed one in between starts the count again."""
    assert probe(pool_of(1), Threshold(fall=1, rise=2), "-+-+++-") == "----++-"


def test_threshold_keeps_its_counts_when_its_limits_change() -> None:
    """One more result is not taken for a first one."""
    pool, threshold = pool_of(1), Threshold(fall=2, rise=1)
    probe(pool, threshold, "+-")
    threshold.fall = 3

    assert probe(pool, threshold, "--") == "+-"


def test_threshold_forgets_destinations() -> None:
    """The next result is taken for a first one."""
    pool, threshold = pool_of(1), Threshold(fall=3, rise=1)
    probe(pool, threshold, "+")

    assert threshold.has_observed(pool.destinations[0])

    threshold.forget(pool.destinations)

    assert not threshold.has_observed(pool.destinations[0])
    assert probe(pool, threshold, "-") == "-"


def test_threshold_ignores_late_results_of_removed_destinations() -> None:
    """A probe may end after its destination has left the pool."""
    pool, threshold = pool_of(2), Threshold(fall=1, rise=1)
    gone = pool.destinations[0]
    pool.replace([pool.destinations[1].settings])

    assert not threshold.observe(gone, False)
    assert not threshold.has_observed(gone)


def test_threshold_takes_a_followed_result_as_observed() -> None:
    """The results of this process count from zero, and one failed probe is a beginning."""
    pool, threshold = pool_of(1), Threshold(fall=2, rise=1)
    (one,) = pool.destinations
    probe(pool, threshold, "+-")
    assert threshold.failing(one)

    threshold.follow(one)
    assert threshold.has_observed(one)
    assert not threshold.failing(one)
    assert probe(pool, threshold, "--") == "+-"
    assert threshold.failing(one)
