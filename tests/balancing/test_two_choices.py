"""Policy power_of_two_choices: the less loaded of two distinct draws."""

from random import Random

import pytest

from fastapi_proxy_di.balancing.two_choices import TwoChoices
from tests.balancing.drawing import picked
from tests.pools.samples import destinations_of
from tests.support.requests_in_flight import begin


@pytest.mark.parametrize("weights", [[1.0, 1.0], [1.0, 4.0]])
def test_two_choices_never_draws_one_twice(weights: list[float]) -> None:
    """Of two destinations the loaded one is never picked, so both are always compared."""
    available = destinations_of(2, weights)
    available[1].in_flight = 10
    policy = TwoChoices(random=Random(1))

    assert {picked(policy, available) for _ in range(500)} == {available[0]}


def test_two_choices_compares_load_by_weight() -> None:
    """Three requests at weight four are less than one at weight one."""
    available = destinations_of(2, [1, 4])
    available[0].in_flight, available[1].in_flight = 1, 3
    policy = TwoChoices(random=Random(1))

    assert {picked(policy, available) for _ in range(200)} == {available[1]}


def test_two_choices_weighted_draws_are_distinct_at_both_ends() -> None:
    """A second draw that equals the first is replaced by any other, before or behind it."""
    available = destinations_of(3, [1, 100, 1])
    available[1].in_flight = 10_000
    policy = TwoChoices(random=Random(1))

    assert {picked(policy, available) for _ in range(500)} == {available[0], available[2]}


def test_two_choices_spreads_over_a_big_pool() -> None:
    """10,000 requests on 1,000 destinations: none has many more than the mean of ten."""
    available = destinations_of(1000)
    policy = TwoChoices(random=Random(3))
    for _ in range(10_000):
        begin(picked(policy, available))

    assert max(destination.in_flight for destination in available) <= 14
