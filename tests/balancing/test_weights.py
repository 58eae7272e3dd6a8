"""Cumulative weights: running sums, or none if all weights are equal."""

from fastapi_proxy_di.balancing.weights import cumulative_weights
from tests.pools.samples import destinations_of


def test_cumulative_weights_are_running_sums() -> None:
    """In the order of the snapshot."""
    assert cumulative_weights(destinations_of(3, [1, 0.5, 2])) == [1, 1.5, 3.5]


def test_cumulative_weights_are_none_when_all_are_equal() -> None:
    """Also for an empty snapshot."""
    assert cumulative_weights(destinations_of(3, [2, 2, 2])) is None
    assert cumulative_weights(()) is None
