"""Policy round_robin: exact turns, smooth by weight."""

from collections import Counter
from copy import copy
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_proxy_di.balancing.round_robin import RoundRobin
from tests.balancing.drawing import picked
from tests.pools.samples import destinations_of


def test_round_robin_picks_equal_weights_strictly_in_turn() -> None:
    """Each run of n picks has every destination once, in the same order."""
    available = destinations_of(4)
    policy = RoundRobin(random=Random(5))
    run = [picked(policy, available) for _ in range(8)]

    assert set(run[:4]) == set(available)
    assert run[:4] == run[4:]


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [3.0, 2.0, 1.0]])
def test_round_robin_copied_takes_no_turn_of_the_original(weights: list[float]) -> None:
    """The copy gives the next picks of the original, which gives them again."""
    available = destinations_of(3, weights)
    policy = RoundRobin(random=Random(5))
    picked(policy, available)
    twin = copy(policy)

    ahead = [picked(twin, available) for _ in range(5)]

    assert [picked(policy, available) for _ in range(5)] == ahead


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=8), st.integers(0, 1000))
def test_round_robin_is_smooth(weights: list[float], seed: int) -> None:
    """In any run of picks each destination gets its share, within rounding."""
    available = destinations_of(len(weights), weights)
    policy = RoundRobin(random=Random(seed))
    total = sum(weights)
    counts: Counter[str] = Counter()
    for number in range(1, 200):
        counts[picked(policy, available).url] += 1
        for destination in available:
            due = number * destination.weight / total

            # The virtual time of n picks is known within one pick of each destination.
            assert abs(counts[destination.url] - due) <= 1 + len(weights) * (
                destination.weight / total
            )


def test_round_robin_does_not_favour_the_first_when_the_pool_keeps_changing() -> None:
    """With one pick per snapshot the random beginning spreads them."""
    available = destinations_of(4)
    policy = RoundRobin(random=Random(5))
    counts = Counter(picked(policy, (*available,)).url for _ in range(4000))

    assert max(counts.values()) < 1.2 * min(counts.values())
