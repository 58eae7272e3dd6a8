"""Affinity: a client stays on its destination while that can serve."""

from __future__ import annotations

from typing import Any

import pytest

from fastapi_proxy_di.balancing.hash_key import RequestKey, Scope
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.pools.pool import Pool
from tests.balancing.affinities import COOKIE, Bound, scope_of
from tests.pools.samples import pool_of, settings_of
from tests.support.requests_in_flight import begin


def test_affinity_keeps_the_client_on_its_destination() -> None:
    """With a cookie always on the same one, without a cookie by the policy."""
    bound = Bound(pool_of(3))
    second = bound.pool.destinations[1]

    assert bound.picks(scope_of(bound.pair(second))) == {second}
    assert bound.picks(scope_of()) == set(bound.pool.destinations)


def test_affinity_leaves_picks_without_a_request_to_the_policy() -> None:
    """``Balancer.pick`` has no client to keep."""
    bound = Bound(pool_of(3))

    picked = {bound.affinity.select(bound.policy, bound.pool)[0] for _ in range(3)}

    assert picked == set(bound.pool.destinations)


def _take_out(pool: Pool, destination: Destination, how: str) -> None:
    if how == "down":
        pool.set_health(destination, False)
    elif how == "ejected":
        pool.eject(destination, 1e9)
    elif how == "draining":
        pool.drain(destination)
    elif how == "removed":
        pool.replace([one.settings for one in pool.destinations if one is not destination])
    else:
        destination.configure(destination.settings.model_copy(update={"max_in_flight": 1}))
        begin(destination)


WAYS = ["down", "ejected", "draining", "removed", "full"]


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("mode", [COOKIE, {"header": "x-tenant"}], ids=["cookie", "header"])
def test_affinity_picks_another_destination_when_its_own_cannot_serve(
    how: str, mode: dict[str, Any]
) -> None:
    """By cookie the policy picks among the others; by header it is always the same one."""
    bound = Bound(pool_of(4), **mode)
    scope: Scope = {"headers": [(b"x-tenant", b"acme")]}
    own = bound.pick(scope)
    assert own is not None
    if "cookie" in mode:
        scope = scope_of(bound.pair(own))
    _take_out(bound.pool, own, how)
    picks = bound.picks(scope)

    assert own not in picks
    assert len(picks) == (3 if "cookie" in mode else 1)


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("mode", [COOKIE, {"header": "x-tenant"}], ids=["cookie", "header"])
def test_affinity_picks_none_when_its_own_cannot_serve_and_missing_fails(
    how: str, mode: dict[str, Any]
) -> None:
    """Except that a header is hashed onto another destination after a removal."""
    bound = Bound(pool_of(4), **mode, on_missing="fail")
    scope: Scope = {"headers": [(b"x-tenant", b"acme")]}
    own = bound.pick(scope)
    assert own is not None
    if "cookie" in mode:
        scope = scope_of(bound.pair(own))
    _take_out(bound.pool, own, how)
    if how == "removed" and "header" in mode:
        assert bound.pick(scope) in bound.pool.destinations
        return

    assert bound.pick(scope) is None


@pytest.mark.parametrize("on_missing", ["redistribute", "fail"])
def test_affinity_gives_the_clients_own_destination_as_full(on_missing: str) -> None:
    """The caller reports it, whether another one serves or none."""
    bound = Bound(pool_of(2), **COOKIE, on_missing=on_missing)
    first, second = bound.pool.destinations
    scope = scope_of(bound.pair(first))
    _take_out(bound.pool, first, "full")
    request = RequestKey(scope, lambda scope: None)
    bound.policy.pick(bound.pool.available)  # the second one's turn, or the first one's
    picked, full = bound.affinity.select(bound.policy, bound.pool, request)

    assert picked is (second if on_missing == "redistribute" else None)
    assert tuple(full) == (first,)


@pytest.mark.parametrize("on_missing", ["redistribute", "fail"])
def test_affinity_by_header_leaves_out_what_was_added_until_its_probe(on_missing: str) -> None:
    """Until then each value stays where it was; afterwards the added one serves its values."""
    bound = Bound(pool_of(3), header="x-tenant", on_missing=on_missing)
    pool = bound.pool
    scopes: list[Scope] = [{"headers": [(b"x-tenant", b"%d" % n)]} for n in range(200)]
    before = [bound.pick(scope) for scope in scopes]
    (added,), _ = pool.replace([settings_of(at) for at in range(4)], await_probe=True)
    unprobed = [bound.pick(scope) for scope in scopes]
    pool.probed(added)
    probed = [bound.pick(scope) for scope in scopes]

    assert unprobed == before
    assert probed.count(added) > 20


def test_affinity_by_cookie_does_not_use_what_was_added_before_its_probe() -> None:
    """Such a cookie was set earlier, or by another worker that has the destination already."""
    moving = Bound(pool_of(2))
    fixed = Bound(pool_of(2), **COOKIE, on_missing="fail")
    picks: dict[str, set[Destination | None]] = {}
    for name, bound in (("moving", moving), ("fixed", fixed)):
        (added,), _ = bound.pool.replace([settings_of(0), settings_of(2)], await_probe=True)
        picks[name] = bound.picks(scope_of(bound.pair(added)))
        bound.pool.drain(bound.pool.destinations[0])

        assert bound.picks(scope_of(bound.pair(added))) == {added}  # nothing else is available

    assert picks == {"moving": {moving.pool.destinations[0]}, "fixed": {None}}


def test_affinity_stays_in_panic() -> None:
    """When no destination is available the client keeps its own."""
    bound = Bound(pool_of(2), **COOKIE, on_missing="fail")
    first = bound.pool.destinations[0]
    for destination in bound.pool.destinations:
        bound.pool.set_health(destination, False)

    assert bound.picks(scope_of(bound.pair(first))) == {first}


def test_affinity_picks_for_a_retry() -> None:
    """With ``redistribute`` another one, with ``fail`` none."""
    moving = Bound(pool_of(2))
    fixed = Bound(pool_of(2), **COOKIE, on_missing="fail")
    first, second = moving.pool.destinations
    own = fixed.pool.destinations[0]

    assert moving.pick(scope_of(moving.pair(first)), (first,)) is second
    assert fixed.pick(scope_of(fixed.pair(own)), (own,)) is None
