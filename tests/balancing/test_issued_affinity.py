"""Affinity by ids that the upstream issues: marks on the way down, removed on the way up."""

from __future__ import annotations

import re

import pytest

from fastapi_proxy_di.balancing.hash_key import Scope
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.pools.pool import Pool
from tests.balancing.affinities import KEY, Bound
from tests.pools.samples import pool_of, settings_of

ISSUED = {"header": "X-Session", "issue": True, "key": KEY}


def scope_with(*values: bytes) -> Scope:
    """Give the scope of a request with these ids."""
    return {"type": "http", "headers": [(b"x-session", value) for value in values]}


def marked(bound: Bound, destination: Destination, value: bytes = b"id") -> bytes:
    """Give the id as the client gets it."""
    headers = [(b"a", b"1"), (b"x-session", value)]
    first, (name, result) = bound.affinity.binding.remember(headers, {}, b"", destination)
    assert (first, name) == ((b"a", b"1"), b"x-session")
    return result


def stripped(bound: Bound, value: bytes) -> bytes:
    """Give the id as the destination gets it."""
    ((_, result),) = bound.affinity.binding.strip([(b"x-session", value)])
    return result


def test_mark_leads_to_the_destination_that_issued_the_id() -> None:
    """It is ``~`` and 12 characters, and the destination gets the id without it."""
    bound = Bound(pool_of(3), **ISSUED)
    for destination in bound.pool.destinations:
        value = marked(bound, destination)

        assert re.fullmatch(rb"id~[A-Za-z0-9_-]{12}", value)
        assert bound.picks(scope_with(value)) == {destination}
        assert stripped(bound, value) == b"id"


def test_mark_is_the_same_in_all_workers() -> None:
    """Whatever the order of destinations; another key or upstream makes others."""
    one = Bound(pool_of(3), **ISSUED)
    other = Bound(Pool("billing", [settings_of(at) for at in (2, 1, 0)], panic=True), **ISSUED)
    first = one.pool.destinations[0]
    same = next(each for each in other.pool.destinations if each.url == first.url)
    foreign = Bound(pool_of(3), **{**ISSUED, "key": "another random text"})
    named = Bound(Pool("orders", [settings_of(0)], panic=True), **ISSUED)

    assert marked(one, first) == marked(other, same)
    assert marked(foreign, foreign.pool.destinations[0]) != marked(one, first)
    assert marked(named, named.pool.destinations[0]) != marked(one, first)


def _wrong() -> list[bytes]:
    bound = Bound(pool_of(1), **ISSUED)
    right = marked(bound, bound.pool.destinations[0])
    last = b"A" if right[-1:] != b"A" else b"B"
    return [b"", b"id", b"~", b"id~" + b"a" * 12, right[:-1], right[:-1] + last, right + b"A",
            right[2:], right.replace(b"~", b"."), b"id~" + b"\xff" * 12]  # fmt: skip


@pytest.mark.parametrize("value", _wrong())
@pytest.mark.parametrize("on_missing", ["redistribute", "fail"])
def test_value_without_a_right_mark_passes_as_it_is(value: bytes, on_missing: str) -> None:
    """The policy picks, and the destination gets all of the value."""
    bound = Bound(pool_of(3), **ISSUED, on_missing=on_missing)

    assert bound.picks(scope_with(value)) == set(bound.pool.destinations)
    assert stripped(bound, value) == value


def test_mark_of_a_destination_that_left_is_removed() -> None:
    """The id is not known elsewhere; the destination that gets it says so in its own words."""
    bound = Bound(pool_of(3), **ISSUED)
    failing = Bound(bound.pool, **ISSUED, on_missing="fail")
    gone = bound.pool.destinations[2]
    value = marked(bound, gone)
    bound.pool.replace([one.settings for one in bound.pool.destinations[:2]])

    assert bound.picks(scope_with(value)) == set(bound.pool.destinations)
    assert failing.picks(scope_with(value)) == {None}
    assert stripped(bound, value) == b"id"
    assert marked_or_not(bound, gone) == b"id"


def marked_or_not(bound: Bound, destination: Destination) -> bytes:
    """Give the id as the client gets it from a destination that may have left."""
    return bound.affinity.binding.remember([(b"x-session", b"id")], {}, b"", destination)[0][1]


def test_id_with_a_mark_of_a_gateway_behind_keeps_it() -> None:
    """Each gateway adds and removes its own mark alone."""
    inner = Bound(pool_of(2), **{**ISSUED, "key": "another random text"})
    outer = Bound(pool_of(2), **ISSUED)
    issued = marked(inner, inner.pool.destinations[1])
    twice = marked(outer, outer.pool.destinations[0], issued)

    assert outer.picks(scope_with(twice)) == {outer.pool.destinations[0]}
    assert stripped(outer, twice) == issued
    assert stripped(inner, issued) == b"id"


def test_response_and_request_without_the_header_stay_as_they_are() -> None:
    """An empty value is no id."""
    bound = Bound(pool_of(2), **ISSUED)
    binding = bound.affinity.binding
    headers = [(b"x-other", b"1")]

    assert binding.remember(headers, {}, b"", bound.pool.destinations[0]) is headers
    assert binding.strip(headers) is headers
    assert marked(bound, bound.pool.destinations[0], b"") == b""
