"""Affinity by a header's value: one destination per value, in tiers."""

from __future__ import annotations

from fastapi_proxy_di.balancing.hash_key import Scope
from fastapi_proxy_di.pools.pool import Pool
from tests.balancing.affinities import Bound
from tests.pools.samples import pool_of, settings_of


def test_header_values_spread_and_stay() -> None:
    """Each destination gets values; when one drains only its values move."""
    bound = Bound(pool_of(5), header="X-Tenant")
    scopes: list[Scope] = [{"headers": [(b"x-tenant", b"%d" % n)]} for n in range(500)]
    before = [bound.pick(scope) for scope in scopes]
    gone = bound.pool.destinations[2]
    bound.pool.drain(gone)
    after = [bound.pick(scope) for scope in scopes]

    assert {before.count(one) > 40 for one in bound.pool.destinations} == {True}
    assert all((now is was) == (was is not gone) for was, now in zip(before, after, strict=True))
    assert bound.affinity.binding.strip([(b"x-tenant", b"1")]) == [(b"x-tenant", b"1")]
    assert bound.affinity.binding.remember([], scopes[0], b"", gone) == []


def test_header_values_use_the_lowest_tier_that_can_serve() -> None:
    """In the next tier too, each value stays on one destination."""
    pool = Pool("billing", [settings_of(at, tier=at // 2) for at in range(4)], panic=True)
    bound = Bound(pool, header="x-tenant")
    scopes: list[Scope] = [{"headers": [(b"x-tenant", b"%d" % n)]} for n in range(100)]
    first = {bound.pick(scope) for scope in scopes}
    for destination in pool.destinations[:2]:
        pool.drain(destination)
    spilled = [bound.pick(scope) for scope in scopes]

    assert first == set(pool.destinations[:2])
    assert set(spilled) == set(pool.destinations[2:])
    assert [bound.pick(scope) for scope in scopes] == spilled


def test_header_values_do_not_move_during_slow_start() -> None:
    """Not even when the pool changes meanwhile."""
    pool = pool_of(3)
    bound = Bound(pool, header="x-tenant")
    scopes: list[Scope] = [{"headers": [(b"x-tenant", b"%d" % n)]} for n in range(100)]
    before = [bound.pick(scope) for scope in scopes]
    pool.replace([one.settings for one in pool.destinations])
    pool.set_weight(pool.destinations[0], 0.1)

    assert [bound.pick(scope) for scope in scopes] == before


def test_request_without_the_header_goes_to_the_policy() -> None:
    """It may go to any destination."""
    bound = Bound(pool_of(3), header="x-tenant")

    assert bound.picks({"headers": [(b"x-other", b"1")]}) == set(bound.pool.destinations)
