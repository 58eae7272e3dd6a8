"""select: what happens when the policy's pick cannot be used."""

from collections import Counter
from collections.abc import Collection, Sequence
from random import Random

import pytest

from fastapi_proxy_di.balancing.policy import BalancingPolicy, PickRequest
from fastapi_proxy_di.balancing.registry import POLICIES
from fastapi_proxy_di.balancing.selection import select
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.pools.pool import Pool
from tests.pools.samples import pool_of, settings_of
from tests.support.requests_in_flight import begin


def chosen(
    policy: BalancingPolicy, pool: Pool, tried: Collection[Destination] = ()
) -> Destination | None:
    """Give the destination that ``select`` chooses."""
    return select(policy, pool, None, tried)[0]


class Scripted:
    """Picks the given places in order, and counts its calls."""

    name = "scripted"

    def __init__(self, *places: int | None) -> None:
        self.places = list(places)
        self.asked = 0

    def pick(
        self, available: Sequence[Destination], request: PickRequest | None
    ) -> Destination | None:
        """Pick the next of the given places."""
        self.asked += 1
        place = self.places.pop(0)
        return None if place is None else available[place]


def test_select_calls_the_policy_once_when_its_pick_can_be_used() -> None:
    """This is the hot path."""
    pool, policy = pool_of(3), Scripted(1)

    assert select(policy, pool) == (pool.destinations[1], ())
    assert policy.asked == 1


def test_select_gives_none_without_candidates() -> None:
    """All are draining, so the policy has none to pick."""
    pool = pool_of(1)
    pool.drain(pool.destinations[0])

    assert select(Scripted(None), pool) == (None, ())


def test_select_draws_again_twice() -> None:
    """The first pick is full, the second was tried before, the third is used."""
    pool, policy = pool_of(3, max_in_flight=1), Scripted(0, 1, 2)
    begin(pool.destinations[0])

    assert chosen(policy, pool, {pool.destinations[1]}) is pool.destinations[2]
    assert policy.asked == 3


def test_select_then_gives_the_least_loaded() -> None:
    """Those with room share evenly, also with one request at a time."""
    pool = pool_of(5, max_in_flight=1000)
    for destination in pool.destinations[:3]:
        destination.in_flight = 1000
    counts: Counter[Destination | None] = Counter()
    for _ in range(100):
        policy = Scripted(0, 1, None)
        found = chosen(policy, pool)
        assert found is not None
        begin(found)
        found.end()
        counts[found] += 1

        assert policy.asked == 3

    assert counts == {pool.destinations[3]: 50, pool.destinations[4]: 50}


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_select_finds_the_only_one_with_room(name: str) -> None:
    """Of fifty; then it gives none."""
    pool, policy = pool_of(50, max_requests=1), POLICIES[name](Random(1))
    for destination in pool.destinations[:-1]:
        begin(destination)

    assert chosen(policy, pool) is pool.destinations[-1]
    assert chosen(policy, pool, [pool.destinations[-1]]) is None


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_select_never_repeats_what_was_tried(name: str) -> None:
    """Each attempt gets another destination, until there is none."""
    pool, policy = pool_of(5), POLICIES[name](Random(1))
    tried: list[Destination] = []
    while (found := chosen(policy, pool, tried)) is not None:
        tried.append(found)

    assert len(tried) == 5
    assert set(tried) == set(pool.destinations)


def test_select_uses_the_order_of_the_policy() -> None:
    """With ``first`` the second always serves for a full first."""
    pool, policy = pool_of(4, max_in_flight=1), POLICIES["first"](Random(1))
    begin(pool.destinations[0])

    assert {chosen(policy, pool) for _ in range(20)} == {pool.destinations[1]}


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_select_spills_over_to_the_next_tier(name: str) -> None:
    """While all of a tier are full; it uses the tier again when it has room."""
    tiers = (0, 0, 1, 1, 2)
    pool = Pool(
        "billing",
        [settings_of(at, tier=tier, max_in_flight=1) for at, tier in enumerate(tiers)],
        panic=True,
    )
    policy = POLICIES[name](Random(1))
    picks = []
    while (found := chosen(policy, pool)) is not None:
        begin(found)
        picks.append(found)

    assert [destination.tier for destination in picks] == list(tiers)

    picks[0].end()

    assert chosen(policy, pool) is picks[0]


def test_select_in_panic_gives_no_full_destination() -> None:
    """Unhealthy ones are used, full ones are not."""
    pool, policy = pool_of(2, max_in_flight=1), POLICIES["random"](Random(1))
    for destination in pool.destinations:
        pool.set_health(destination, False)
    begin(pool.destinations[0])

    assert {chosen(policy, pool) for _ in range(20)} == {pool.destinations[1]}


def test_select_gives_the_full_destination_that_the_policy_chose() -> None:
    """The caller reports it; one that was only tried before is not full."""
    pool = pool_of(3, max_in_flight=1)
    first, second, third = pool.destinations
    begin(first)

    assert select(Scripted(0, 1), pool) == (second, (first,))
    assert select(Scripted(1, 2), pool, tried=[second]) == (third, ())


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_select_gives_the_full_destinations_of_each_tier_without_room(name: str) -> None:
    """Each once, whether the policy chose it or skipped it."""
    tiers = (0, 0, 1, 1)
    pool = Pool(
        "billing",
        [settings_of(at, tier=tier, max_in_flight=1) for at, tier in enumerate(tiers)],
        panic=True,
    )
    policy = POLICIES[name](Random(1))
    for destination in pool.destinations[:3]:
        begin(destination)
    found, full = select(policy, pool)

    assert (found, full) == (pool.destinations[3], pool.destinations[:2])

    begin(pool.destinations[3])
    found, full = select(policy, pool)

    assert (found, sorted(full, key=pool.destinations.index)) == (None, list(pool.destinations))
    assert len(full) == 4
