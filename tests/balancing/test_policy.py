"""The protocols of policies, and what all built-in policies have in common."""

from copy import copy
from random import Random

import pytest

from fastapi_proxy_di.balancing.first import First
from fastapi_proxy_di.balancing.hash import Hash
from fastapi_proxy_di.balancing.latency import Latency
from fastapi_proxy_di.balancing.least_requests import LeastRequests
from fastapi_proxy_di.balancing.peak_ewma import PeakEwma
from fastapi_proxy_di.balancing.policy import BalancingPolicy, ObservingPolicy, OrderingPolicy
from fastapi_proxy_di.balancing.prefix import Prefix
from fastapi_proxy_di.balancing.random_choice import RandomChoice
from fastapi_proxy_di.balancing.registry import POLICIES
from fastapi_proxy_di.balancing.round_robin import RoundRobin
from fastapi_proxy_di.balancing.two_choices import TwoChoices
from fastapi_proxy_di.pools.destination import Destination
from tests.balancing.drawing import Keyed, picked, shares
from tests.pools.samples import destinations_of
from tests.support.requests_in_flight import begin

ALL = sorted(POLICIES)
SPREADING = sorted(set(ALL) - {"first"})


# mypy checks that the built-in policies implement the protocols.
BUILT_IN: list[BalancingPolicy] = [
    RandomChoice(random=Random()),
    RoundRobin(random=Random()),
    TwoChoices(random=Random()),
]
ORDERING: list[OrderingPolicy] = [
    First(),
    Hash(random=Random()),
    Prefix(random=Random()),
    Latency(random=Random()),
    LeastRequests(random=Random()),
]
OBSERVING: list[ObservingPolicy] = [PeakEwma(random=Random())]


def test_policy_implements_its_protocol() -> None:
    """Each built-in policy is in one of the lists above, and has all that its protocol asks for."""
    policies = [*BUILT_IN, *ORDERING, *OBSERVING]

    assert sorted(policy.name for policy in policies) == ALL
    assert all(isinstance(policy, BalancingPolicy) for policy in policies)
    assert [policy for policy in policies if isinstance(policy, OrderingPolicy)] == ORDERING
    assert [policy for policy in policies if isinstance(policy, ObservingPolicy)] == OBSERVING


def built(name: str) -> BalancingPolicy:
    """Build the policy with seeded draws."""
    return POLICIES[name](Random(7))


@pytest.mark.parametrize("name", ALL)
def test_policy_has_the_name_it_is_registered_by(name: str) -> None:
    """Settings and status use the same name."""
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
    """The place in the snapshot gives no advantage."""
    spread = shares(built(name), destinations_of(5), 5000)

    assert spread == pytest.approx([0.2] * 5, abs=0.03)


@pytest.mark.parametrize("name", SPREADING)
def test_policy_spreads_load_by_weight(name: str) -> None:
    """While requests pile up, each destination holds its share."""
    spread = shares(built(name), destinations_of(3, [1, 2, 5]), 4000, busy=True)

    assert spread == pytest.approx([0.125, 0.25, 0.625], abs=0.03)


@pytest.mark.parametrize("name", SPREADING)
@pytest.mark.parametrize("weights", [[1.0, 3.0], [0.1, 1.0, 1.0]])
def test_policy_spreads_idle_picks_by_weight(name: str, weights: list[float]) -> None:
    """Also small weights, as slow start sets them, get picks when nothing is in flight."""
    spread = shares(built(name), destinations_of(len(weights), weights), 4000)
    due = [weight / sum(weights) for weight in weights]

    assert spread == pytest.approx(due, abs=0.03)
    assert min(spread) > min(due) / 2


@pytest.mark.parametrize("name", ALL)
def test_policy_follows_a_new_snapshot(name: str) -> None:
    """A destination that has left the snapshot is never picked."""
    policy = built(name)
    destinations = destinations_of(4, [1, 1, 2, 3])
    for available in (destinations, destinations[1:], destinations[2:], destinations[:2]):
        for _ in range(50):
            assert picked(policy, available) in available


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 5.0, 0.5]])
def test_policy_copy_gives_the_next_pick_and_takes_no_turn(name: str, weights: list[float]) -> None:
    """``Balancer.peek`` relies on it: the original picks the same afterwards."""
    random = Random(7)
    policy, available = POLICIES[name](random), destinations_of(4, weights)
    running: list[Destination] = []
    for _ in range(200):
        state = random.getstate()
        ahead = picked(copy(policy), available)
        random.setstate(state)
        now = picked(policy, available)

        assert ahead is now

        begin(now)
        running.append(now)
        if len(running) > 6:
            running.pop(0).end()
