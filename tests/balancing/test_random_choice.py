"""Policy random: independent draws by weight, whatever the load."""

from itertools import pairwise
from random import Random

import pytest

from fastapi_proxy_di.balancing.random_choice import RandomChoice
from tests.balancing.drawing import picked, shares
from tests.pools.samples import destinations_of


def test_random_draws_are_independent_of_the_load() -> None:
    """A loaded destination keeps its share."""
    available = destinations_of(2, [1, 3])
    available[1].in_flight = 1000

    assert shares(RandomChoice(random=Random(1)), available, 4000) == pytest.approx(
        [0.25, 0.75], abs=0.03
    )


def test_random_draws_may_repeat() -> None:
    """A draw does not depend on the one before."""
    policy, available = RandomChoice(random=Random(1)), destinations_of(2)
    picks = [picked(policy, available) for _ in range(100)]

    assert any(one is other for one, other in pairwise(picks))
