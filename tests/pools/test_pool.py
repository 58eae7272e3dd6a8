"""Pool: snapshots replaced whole on change, tiers, panic, replacement."""

import pytest

from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.pools.pool import Pool
from tests.pools.samples import pool_of, settings_of
from tests.support.requests_in_flight import begin


def test_pool_begins_with_all_available() -> None:
    """In the order of the settings; none is known to be unhealthy."""
    pool = pool_of(3)

    assert pool.destinations == pool.available == pool.candidates
    assert not pool.panic
    assert repr(pool) == "<Pool billing 3/3 available>"


def test_pool_replaces_its_snapshot_only_on_a_change() -> None:
    """A reader keeps the tuple that it has."""
    pool = pool_of(3)
    one = pool.destinations[1]
    before = pool.candidates

    assert not pool.set_health(one, True)
    assert before is pool.candidates

    assert pool.set_health(one, False)
    assert len(before) == 3
    assert (pool.destinations[0], pool.destinations[2]) == pool.candidates == pool.available

    assert pool.set_health(one, True)
    assert before == pool.candidates
    assert before is not pool.candidates
    assert one.returns == 1


def test_pool_ejects_and_readmits() -> None:
    """Both are counted; exchanges are counted from zero after a readmission."""
    pool = pool_of(2)
    one = pool.destinations[0]
    one.failures = one.successes = 5

    assert pool.eject(one, 30.0)
    assert not pool.eject(one, 60.0)
    assert (one.ejected_until, one.ejections) == (30.0, 1)
    assert (pool.destinations[1],) == pool.available

    assert pool.readmit(one)
    assert not pool.readmit(one)
    assert (one.failures, one.successes, one.ejections, one.returns) == (0, 0, 1, 1)
    assert len(pool.available) == 2


def test_pool_drains_and_undrains() -> None:
    """A draining destination is no candidate."""
    pool = pool_of(2)
    one = pool.destinations[0]

    assert pool.drain(one)
    assert not pool.drain(one)
    assert one not in pool.candidates

    assert pool.undrain(one)
    assert not pool.undrain(one)
    assert one in pool.candidates


def test_pool_in_panic_uses_all_but_draining_destinations() -> None:
    """Unhealthy and ejected ones are used again when none is available."""
    pool = pool_of(3)
    down, ejected, draining = pool.destinations
    pool.drain(draining)
    pool.eject(ejected, 1.0)
    pool.set_health(down, False)

    assert pool.panic
    assert pool.available == ()
    assert (down, ejected) == pool.candidates

    pool.readmit(ejected)

    assert not pool.panic
    assert (ejected,) == pool.candidates


def test_pool_does_not_panic_when_all_drain() -> None:
    """A draining destination is never used."""
    pool = pool_of(1)
    pool.drain(pool.destinations[0])

    assert not pool.panic
    assert () == pool.candidates == pool.tiers


def test_pool_without_panic_has_no_candidates() -> None:
    """``when_none_available="fail"``."""
    pool = pool_of(1, panic=False)
    pool.set_health(pool.destinations[0], False)

    assert not pool.panic
    assert pool.candidates == ()


def test_pool_candidates_are_the_lowest_tier() -> None:
    """A higher tier serves when the lower one has none available."""
    pool = Pool(
        "billing", [settings_of(at, tier=tier) for at, tier in enumerate((2, 0, 2))], panic=True
    )
    a, b, c = pool.destinations

    assert (b,) == pool.candidates
    assert ((b,), (a, c)) == pool.tiers

    pool.set_health(b, False)

    assert (a, c) == pool.candidates


def test_pool_finds_any_spelling_of_an_address() -> None:
    """As written and as normalised; other addresses and invalid ones give none."""
    pool = pool_of(2)
    one = pool.destinations[0]

    assert one is pool.find("http://10.0.0.1")
    assert one is pool.find("HTTP://10.0.0.1:80/")
    assert pool.find("http://10.9.9.9") is None
    assert pool.find("not an address") is None


def test_pool_replacement_keeps_unchanged_destinations() -> None:
    """It is the same object with its counts and health, and gets the new settings."""
    pool = pool_of(3)
    first, second, third = pool.destinations
    begin(first)
    pool.set_health(second, False)
    before = pool.candidates

    added, removed = pool.replace([settings_of(1, weight=5), settings_of(0), settings_of(9)])

    assert (pool.destinations[2],) == added
    assert (third,) == removed
    assert (second, first, added[0]) == pool.destinations
    assert (first.in_flight, second.weight, second.healthy) == (1, 5, False)
    assert before is not pool.candidates
    assert pool.find(third.url) is None


def test_pool_never_uses_a_removed_destination_again() -> None:
    """It finishes its requests; late probe results change nothing."""
    pool = pool_of(2)
    gone = pool.destinations[1]
    begin(gone)
    pool.replace([settings_of(0)])

    assert gone.removed
    assert gone.draining
    assert gone.in_flight == 1
    assert not pool.undrain(gone)
    assert not pool.set_health(gone, False)


def test_pool_turns_the_window_of_all() -> None:
    """All have room again, and add themselves to ``fallen``."""
    pool = pool_of(2, max_requests=1)
    for destination in pool.destinations:
        begin(destination)
    fallen: set[Destination] = set()
    pool.destinations[0].report_falls(fallen)
    pool.turn_window()

    assert not any(destination.full for destination in pool.destinations)
    assert {pool.destinations[0]} == fallen


def test_pool_sets_a_weight_for_a_while() -> None:
    """A new weight makes a new snapshot, so that policies notice it."""
    pool = pool_of(2)
    before = pool.candidates

    assert pool.set_weight(pool.destinations[0], 0.1)
    assert not pool.set_weight(pool.destinations[0], 0.1)
    assert before is not pool.candidates
    assert pytest.approx(pool.destinations[0].settings.weight) == 1


def test_pool_does_not_use_a_cooling_destination_in_panic() -> None:
    """It has asked for time without requests; the others are used."""
    pool = pool_of(2)
    cooling, other = pool.destinations
    pool.set_health(other, False)

    assert pool.cool_down(cooling, 10.0)
    assert (cooling.ejected_until, cooling.ejections) == (10.0, 1)
    assert (pool.panic, pool.candidates) == (True, (other,))

    pool.cool_down(other, 5.0)

    assert (pool.panic, pool.candidates) == (False, ())


def test_pool_keeps_the_later_end_of_a_cool_down() -> None:
    """A shorter Retry-After, or one on a destination that is ejected for longer, changes no end."""
    pool = pool_of(2)
    first, second = pool.destinations
    pool.cool_down(first, 10.0)

    assert not pool.cool_down(first, 7.0)
    assert pool.cool_down(first, 12.0)
    assert (first.ejected_until, first.ejections) == (12.0, 1)

    pool.eject(second, 30.0)

    assert pool.cool_down(second, 20.0)
    assert (second.cooling, second.ejected_until) == (True, 30.0)

    pool.readmit(second)

    assert (second.cooling, second.available) == (False, True)


def test_pool_uses_an_added_destination_only_after_its_probe() -> None:
    """Unless nothing else is available, which is no panic."""
    pool = pool_of(1)
    (first,) = pool.destinations
    (added,), _ = pool.replace([settings_of(0), settings_of(1)], await_probe=True)

    assert pool.candidates == (first,)
    assert (pool.unprobed(first), pool.unprobed(added)) == (False, True)

    pool.drain(first)

    assert (pool.panic, pool.candidates) == (False, (added,))
    assert not pool.unprobed(added)

    pool.undrain(first)
    pool.probed(added)

    assert pool.candidates == (first, added)
    assert not pool.unprobed(added)
