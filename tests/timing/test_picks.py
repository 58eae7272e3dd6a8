"""The cost of a pick among a thousand destinations, compared with three."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from time import perf_counter

import pytest

from fastapi_proxy_di.balancing.policy import BalancingPolicy, PickRequest
from fastapi_proxy_di.balancing.registry import POLICIES
from fastapi_proxy_di.pools.destination import Destination
from tests.balancing.drawing import Keyed
from tests.pools.samples import destinations_of
from tests.support.requests_in_flight import begin

_PICKS = 3000


@pytest.mark.parametrize("name", sorted(POLICIES))
@pytest.mark.parametrize("weights", [[1.0], [1.0, 2.0, 5.0]])
def test_policy_costs_at_a_thousand_about_what_it_costs_at_three(
    name: str, weights: list[float]
) -> None:
    """Visiting all of them would cost 300 times as much."""
    few = destinations_of(3, (weights * 3)[:3])
    many = destinations_of(1000, (weights * 1000)[:1000])
    keys = [Keyed(b"%d" % number) for number in range(_PICKS)]
    for snapshot in (few, many):
        for destination in snapshot:
            destination.latency_ms = 5.0

    cost_few = seconds_per_pick(POLICIES[name](Random(7)), few, keys.__getitem__)
    cost_many = seconds_per_pick(POLICIES[name](Random(7)), many, keys.__getitem__)

    assert cost_many < 8 * cost_few


def seconds_per_pick(
    policy: BalancingPolicy,
    available: Sequence[Destination],
    request: Callable[[int], PickRequest | None],
) -> float:
    """Measure a pick with its ``begin`` and the ``end`` of an earlier one; best of five."""
    best = float("inf")
    running: list[Destination] = []
    policy.pick(available, request(0))
    for _ in range(5):
        started = perf_counter()
        for number in range(_PICKS):
            destination = policy.pick(available, request(number))
            assert destination is not None
            begin(destination)
            running.append(destination)
            if len(running) > 50:
                running.pop(0).end()
        best = min(best, (perf_counter() - started) / _PICKS)
    return best
