"""power_of_two_choices: two distinct draws, the less loaded wins."""

from random import Random

import pytest

from fastapi_proxy_di.balancing.two_choices import TwoChoices
from tests.balancing.drawing import picked
from tests.pools.samples import destinations_of


@pytest.mark.parametrize("weights", [[1.0, 1.0], [1.0, 4.0]])
def test_two_choices_never_draws_one_twice(weights: list[float]) -> None:
    """Of two destinations the busy one is never picked, so both were always looked at."""
    available = destinations_of(2, weights)
    available[1].in_flight = 10
    policy = TwoChoices(random=Random(1))

    assert {picked(policy, available) for _ in range(500)} == {available[0]}


def test_two_choices_compares_load_by_weight() -> None:
    """Three in flight at weight four are less than one at weight one."""
    available = destinations_of(2, [1, 4])
    available[0].in_flight, available[1].in_flight = 1, 3
    policy = TwoChoices(random=Random(1))

    assert {picked(policy, available) for _ in range(200)} == {available[1]}


def test_two_choices_weighted_draws_are_distinct_at_both_ends() -> None:
    """A second draw that hits the first is replaced by any other, before it or behind it."""
    available = destinations_of(3, [1, 100, 1])
    available[1].in_flight = 10_000
    policy = TwoChoices(random=Random(1))

    assert {picked(policy, available) for _ in range(500)} == {available[0], available[2]}


def test_two_choices_keeps_a_big_pool_level() -> None:
    """10,000 requests on 1,000 destinations: nobody holds much over the mean of ten."""
    available = destinations_of(1000)
    policy = TwoChoices(random=Random(3))
    for _ in range(10_000):
        picked(policy, available).begin()

    assert max(destination.in_flight for destination in available) <= 14
