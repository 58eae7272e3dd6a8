"""Policy latency: the fastest by probe, and those about as fast."""

from random import Random

from fastapi_proxy_di.balancing.latency import Latency
from tests.balancing.drawing import picked, shares
from tests.pools.samples import destinations_of


def test_latency_picks_the_fastest() -> None:
    """A clearly faster destination gets all picks."""
    available = destinations_of(3)
    for destination, latency in zip(available, (80.0, 10.0, 40.0), strict=True):
        destination.latency_ms = latency

    assert shares(Latency(random=Random(1)), available, 300) == [0, 1, 0]


def test_latency_shares_among_near_ties() -> None:
    """10 and 12 ms share; 40 ms and an unknown latency get none."""
    available = destinations_of(4)
    for destination, latency in zip(available, (10.0, 12.0, 40.0, None), strict=True):
        destination.latency_ms = latency
    spread = shares(Latency(random=Random(1)), available, 2000)

    assert abs(spread[0] - 0.5) < 0.05
    assert abs(spread[1] - 0.5) < 0.05


def test_latency_prefers_the_less_loaded_of_near_ties() -> None:
    """No herding: requests in flight send the next one elsewhere."""
    available = destinations_of(2)
    for destination in available:
        destination.latency_ms = 10.0
    available[0].in_flight = 5

    assert picked(Latency(random=Random(1)), available) is available[1]


def test_latency_notices_new_probe_results_within_n_picks() -> None:
    """Also without a new snapshot."""
    available = destinations_of(3)
    for destination, latency in zip(available, (10.0, 50.0, 50.0), strict=True):
        destination.latency_ms = latency
    policy = Latency(random=Random(1))

    assert picked(policy, available) is available[0]

    available[0].latency_ms = 200.0
    for _ in range(3):
        picked(policy, available)

    assert picked(policy, available) is not available[0]


def test_latency_orders_fastest_first() -> None:
    """Unknown latencies come last."""
    available = destinations_of(3)
    available[1].latency_ms, available[2].latency_ms = 20.0, 10.0
    order = list(Latency(random=Random(1)).order(available))

    assert order == [available[2], available[1], available[0]]
