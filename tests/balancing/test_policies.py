"""What all built-in policies have in common: edges and shares by weight."""

from copy import copy
from random import Random

import pytest

from fastapi_proxy_di.balancing.policy import BalancingPolicy
from fastapi_proxy_di.balancing.registry import POLICIES
from fastapi_proxy_di.pools.destination import Destination
from tests.balancing.drawing import Keyed, picked, shares
from tests.pools.samples import destinations_of

ALL = sorted(POLICIES)
SPREADING = sorted(set(ALL) - {"first"})


def built(name: str) -> BalancingPolicy:
    """The policy with seeded draws."""
    return POLICIES[name](Random(7))


@pytest.mark.parametrize("name", ALL)
def test_policy_has_the_name_it_is_registered_by(name: str) -> None:
    """Settings and status use one word."""
    assert built(name).name == name


@pytest.mark.parametrize("name", ALL)
def test_policy_picks_none_of_none(name: str) -> None:
    """An empty snapshot is no error."""
    assert built(name).pick((), Keyed(b"k")) is None
    assert built(name).pick((), None) is None


@pytest.mark.parametrize("name", ALL)
def test_policy_picks_the_only_one(name: str) -> None:
    """With one destination there is no choice."""
    only = destinations_of(1)

    assert built(name).pick(only, None) is only[0]
    assert built(name).pick(only, Keyed(b"k")) is only[0]


@pytest.mark.parametrize("name", SPREADING)
def test_policy_spreads_idle_equals_evenly(name: str) -> None:
    """Nobody is favoured by its place."""
    spread = shares(built(name), destinations_of(5), 5000)

    assert spread == pytest.approx([0.2] * 5, abs=0.03)


@pytest.mark.parametrize("name", SPREADING)
def test_policy_spreads_load_by_weight(name: str) -> None:
    """With requests piling up, each holds its share."""
    spread = shares(built(name), destinations_of(3, [1, 2, 5]), 4000, busy=True)

    assert spread == pytest.approx([0.125, 0.25, 0.625], abs=0.03)


@pytest.mark.parametrize("name", SPREADING)
@pytest.mark.parametrize("weights", [[1.0, 3.0], [0.1, 1.0, 1.0]])
def test_policy_spreads_idle_picks_by_weight(name: str, weights: list[float]) -> None:
    """Weights hold when nothing is in flight, those of slow start too: few picks, not none."""
    spread = shares(built(name), destinations_of(len(weights), weights), 4000)
    due = [weight / sum(weights) for weight in weights]

    assert spread == pytest.approx(due, abs=0.03)
    assert min(spread) > min(due) / 2


@pytest.mark.parametrize("name", ALL)
def test_policy_follows_a_new_snapshot(name: str) -> None:
    """What was derived from the old tuple never gives a destination that left."""
    policy = built(name)
    destinations = destinations_of(4, [1, 1, 2, 3])
    for available in (destinations, destinations[1:], destinations[2:], destinations[:2]):
        for _ in range(50):
            assert picked(policy, available) in available


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 5.0, 0.5]])
def test_policy_copied_looks_ahead_and_takes_no_turn(name: str, weights: list[float]) -> None:
    """What ``peek`` does: a copy with the same draws sees the next pick, and leaves it there."""
    random = Random(7)
    policy, available = POLICIES[name](random), destinations_of(4, weights)
    running: list[Destination] = []
    for _ in range(200):
        state = random.getstate()
        ahead = picked(copy(policy), available)
        random.setstate(state)
        now = picked(policy, available)

        assert ahead is now

        now.begin()
        running.append(now)
        if len(running) > 6:
            running.pop(0).end()
