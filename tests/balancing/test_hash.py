"""Policy hash: one destination per key, few keys move, bounded load."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastapi_proxy_di.balancing.hash import LOAD_FACTOR, Hash
from fastapi_proxy_di.pools.destination import Destination
from tests.balancing.drawing import Keyed
from tests.pools.samples import destinations_of
from tests.support.requests_in_flight import begin

KEYS = [b"key-%d" % number for number in range(2000)]


def owner(policy: Hash, available: tuple[Destination, ...], key: bytes) -> Destination:
    """Give the destination of ``key``."""
    destination = policy.pick(available, Keyed(key))
    assert destination is not None
    return destination


def owners(policy: Hash, available: tuple[Destination, ...]) -> dict[bytes, Destination]:
    """Give the destination of each key."""
    return {key: owner(policy, available, key) for key in KEYS}


def test_hash_is_the_same_in_all_workers() -> None:
    """Another process with other random draws sends a key to the same address."""
    first = owners(Hash(random=Random(1)), destinations_of(5))
    second = owners(Hash(random=Random(2)), destinations_of(5))

    assert [one.url for one in first.values()] == [one.url for one in second.values()]


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 12), st.data())
def test_hash_moves_only_the_keys_of_a_removed_destination(count: int, data: st.DataObject) -> None:
    """And when it returns only they come back."""
    available = destinations_of(count)
    gone = data.draw(st.sampled_from(available))
    rest = tuple(destination for destination in available if destination is not gone)
    policy = Hash(random=Random(1))
    before, after = owners(policy, available), owners(policy, rest)

    assert [key for key in KEYS if before[key] is not after[key] and before[key] is not gone] == []
    assert owners(policy, (*available,)) == before


def test_hash_spreads_keys_by_weight() -> None:
    """The points on the ring are in proportion."""
    counts = Counter(owners(Hash(random=Random(1)), destinations_of(3, [1, 2, 5])).values())
    spread = [counts[one] / len(KEYS) for one in sorted(counts, key=lambda one: one.weight)]

    assert spread == pytest.approx([0.125, 0.25, 0.625], abs=0.08)


def test_hash_bounds_the_load_of_a_popular_key() -> None:
    """One key for all requests: none holds over 1.25 times the mean, plus n for the stale sum."""
    available = destinations_of(10)
    policy = Hash(random=Random(1))
    for total in range(1, 2001):
        begin(owner(policy, available, b"popular"))
        if total > 100:
            bound = LOAD_FACTOR * (total + len(available)) / len(available) + 1

            assert max(destination.in_flight for destination in available) <= bound


def test_hash_keeps_a_key_together_at_low_load() -> None:
    """A few requests in flight move no key."""
    available = destinations_of(5)
    policy = Hash(random=Random(1))
    picks = []
    for _ in range(8):
        picks.append(owner(policy, available, b"popular"))
        begin(picks[-1])

    assert set(picks) == {picks[0]}


def test_hash_picks_none_when_all_are_over_a_stale_bound() -> None:
    """After requests that it did not pick; the selection decides then."""
    available = destinations_of(3)
    policy = Hash(random=Random(1))
    owner(policy, available, b"k")
    for destination in available:
        destination.in_flight = 100

    assert policy.pick(available, Keyed(b"k")) is None


def test_hash_without_key_picks_the_less_loaded() -> None:
    """By two choices."""
    available = destinations_of(2)
    available[0].in_flight = 3
    policy = Hash(random=Random(1))

    assert policy.pick(available, None) is available[1]
    assert policy.pick(available, Keyed(None)) is available[1]
    assert list(policy.order(available, Keyed(None))) == [available[1], available[0]]
    assert list(policy.order(available, None)) == [available[1], available[0]]


def test_hash_orders_all_destinations_from_the_key_on() -> None:
    """The first is the pick, the second gets the key when the first has left."""
    available = destinations_of(6)
    policy = Hash(random=Random(1))
    for key in KEYS[:50]:
        order = list(policy.order(available, Keyed(key)))
        rest = tuple(destination for destination in available if destination is not order[0])

        assert sorted(order, key=id) == sorted(available, key=id)
        assert order[0] is owner(policy, available, key)
        assert order[1] is owner(policy, rest, key)


def test_hash_ring_stays_small_for_heavy_weights() -> None:
    """Weights in the thousands reduce the points per weight; the shares hold."""
    available = destinations_of(3, [65535, 65535, 1])
    policy = Hash(random=Random(1))
    counts = Counter(owners(policy, available).values())

    assert len(policy._snapshots.get(available)._points) <= 65_536 + 1
    assert counts[available[0]] / len(KEYS) == pytest.approx(0.5, abs=0.05)


def test_hash_drops_the_digests_of_removed_destinations() -> None:
    """A pool whose addresses keep changing needs no more memory."""
    policy = Hash(random=Random(1))
    everyone = destinations_of(200)
    for start in range(198):
        owner(policy, everyone[start : start + 2], b"k")

    assert len(policy._points) <= 2 * 2 + 16 + 2
