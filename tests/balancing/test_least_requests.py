"""Policy least_requests: the exact minimum, although loads change between picks."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from fastapi_proxy_di.balancing.least_requests import LeastRequests
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.pools.pool import Pool
from tests.balancing.drawing import picked
from tests.pools.samples import destinations_of, pool_of, settings_of
from tests.support.requests_in_flight import begin


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=6),
    st.lists(st.one_of(st.none(), st.integers(0, 50)), max_size=200),
)
def test_least_requests_picks_the_true_minimum(weights: list[int], steps: list[int | None]) -> None:
    """After any requests have begun and ended, the pick has the least load of all."""
    available = destinations_of(len(weights), weights)
    policy = LeastRequests(random=Random(1))
    running: list[Destination] = []
    for step in steps:
        if step is None or not running:
            least = picked(policy, available)

            assert least.in_flight / least.weight == min(
                one.in_flight / one.weight for one in available
            )

            begin(least)
            running.append(least)
        else:
            running.pop(step % len(running)).end()


def test_least_requests_picks_ties_in_turn() -> None:
    """Idle destinations of equal weight are picked one after the other."""
    available = destinations_of(4)
    policy = LeastRequests(random=Random(1))

    assert {picked(policy, available) for _ in range(4)} == set(available)


def test_least_requests_skips_full_destinations_until_they_have_room() -> None:
    """Full by requests in flight or in the window; when all are full it picks none."""
    pool = Pool(
        "billing", [settings_of(0, max_in_flight=1), settings_of(1, max_requests=1)], panic=True
    )
    first, second = pool.destinations
    policy = LeastRequests(random=Random(1))
    for _ in range(2):
        begin(picked(policy, pool.candidates))

    assert policy.pick(pool.candidates) is None

    first.end()

    assert policy.pick(pool.candidates) is first

    begin(first)
    second.end()

    assert policy.pick(pool.candidates) is None

    pool.turn_window()

    assert policy.pick(pool.candidates) is second


def test_least_requests_keeps_its_heap_small() -> None:
    """Obsolete entries are removed."""
    pool = pool_of(3)
    policy = LeastRequests(random=Random(1))
    for _ in range(1000):
        for destination in pool.destinations:
            begin(destination)
        for destination in pool.destinations:
            destination.end()
        picked(policy, pool.candidates)

    assert len(policy._snapshots.get(pool.candidates)._heap) <= 4 * 3 + 1


def test_least_requests_orders_by_load() -> None:
    """The second choice has the second least load."""
    available = destinations_of(3)
    for destination, load in zip(available, (2, 0, 1), strict=True):
        destination.in_flight = load
    order = list(LeastRequests(random=Random(1)).order(available))

    assert order == [available[1], available[2], available[0]]
