"""The affinity cookie: which values count, what it looks like, when it is set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fastapi_proxy_di.pools.pool import Pool
from tests.balancing.affinities import COOKIE, KEY, Bound, scope_of
from tests.pools.samples import pool_of, settings_of


def test_cookie_is_found_among_others() -> None:
    """In one header or several (HTTP/2), and behind a forged one of the same name."""
    bound = Bound(pool_of(3))
    second = bound.pool.destinations[1]
    pair = bound.pair(second)

    assert bound.picks(scope_of(b"a=1; " + pair + b";b=2")) == {second}
    assert bound.picks(scope_of(b"a=1", b"b=2", pair)) == {second}
    assert bound.picks(scope_of(b"stay=forged; " + pair)) == {second}


def test_cookie_is_the_same_in_all_workers_and_after_restarts() -> None:
    """The same key makes the same cookies, in any order of destinations."""
    one = Bound(pool_of(3))
    other = Bound(Pool("billing", [settings_of(at) for at in (2, 1, 0)], panic=True))
    pair = one.pair(one.pool.destinations[0])

    assert {picked.url for picked in other.picks(scope_of(pair)) if picked} == {
        one.pool.destinations[0].url
    }


def _forgeries() -> Iterator[bytes]:
    bound = Bound(pool_of(3))
    pair = bound.pair(bound.pool.destinations[0])
    yield b"stay="
    yield b"stay"
    yield b"stay=1"
    yield b"stay=http://10.0.0.1"
    yield pair[:-1]
    yield pair[:-1] + (b"A" if pair[-1:] != b"A" else b"B")
    yield pair.partition(b".")[0] + b"."
    yield b"stay=." + pair.partition(b".")[2]
    yield pair.replace(b"stay", b"stays")
    yield b"stay=\xff.\xff"


@pytest.mark.parametrize("forged", list(_forgeries()))
@pytest.mark.parametrize("on_missing", ["redistribute", "fail"])
def test_cookie_that_is_not_signed_is_ignored(forged: bytes, on_missing: str) -> None:
    """It neither chooses a destination nor fails the request; a new cookie replaces it."""
    bound = Bound(pool_of(3), **COOKIE, on_missing=on_missing)

    assert bound.picks(scope_of(forged)) == set(bound.pool.destinations)
    assert bound.cookie(bound.pool.destinations[0], scope_of(forged))


@pytest.mark.parametrize(
    "other",
    [
        Bound(pool_of(3), cookie="stay", key="another long random text"),
        Bound(Pool("other", [settings_of(at) for at in range(3)], panic=True)),
    ],
    ids=["key", "upstream"],
)
def test_cookie_of_another_key_or_upstream_is_ignored(other: Bound) -> None:
    """Also where both upstreams share the key."""
    bound = Bound(pool_of(3), **COOKIE, on_missing="fail")
    foreign = scope_of(other.pair(other.pool.destinations[0]))

    assert bound.picks(foreign) == set(bound.pool.destinations)


def test_cookie_does_not_reveal_the_address() -> None:
    """Two cookies of one upstream differ, and have the same length."""
    bound = Bound(pool_of(2))
    one, other = (bound.pair(destination) for destination in bound.pool.destinations)

    assert b"10.0" not in one
    assert one != other
    assert len(one) == len(other)


@pytest.mark.parametrize(
    ("more", "prefix", "name", "expected"),
    [
        ({"scheme": "http"}, b"/billing", "stay", b"; Path=/billing; HttpOnly; SameSite=Lax"),
        (
            {"scheme": "https"},
            b"/billing",
            "stay",
            b"; Path=/billing; HttpOnly; SameSite=Lax; Secure",
        ),
        ({"scheme": "wss"}, b"", "stay", b"; Path=/; HttpOnly; SameSite=Lax; Secure"),
        ({"scheme": "ws"}, b"/a;Domain=b", "stay", b"; Path=/; HttpOnly; SameSite=Lax"),
        (
            {"scheme": "https"},
            b"/billing",
            "__Host-stay",
            b"; Path=/; HttpOnly; SameSite=Lax; Secure",
        ),
    ],
)
def test_cookie_has_its_attributes(
    more: dict[str, Any], prefix: bytes, name: str, expected: bytes
) -> None:
    """Secure as the request, HttpOnly, Lax, below the mount."""
    bound = Bound(pool_of(1), cookie=name, key=KEY)
    ((_, cookie),) = bound.affinity.binding.remember(
        [], scope_of(**more), prefix, bound.pool.destinations[0]
    )

    assert cookie[cookie.index(b";") :] == expected


@pytest.mark.parametrize(
    ("settings", "scheme", "expected"),
    [
        ({"same_site": "strict"}, "http", b"SameSite=Strict"),
        ({"same_site": "none"}, "http", b"SameSite=None; Secure"),
        ({"same_site": "none"}, "https", b"SameSite=None; Secure"),
        ({"max_age": 90.5}, "http", b"SameSite=Lax; Max-Age=91"),
        ({"max_age": "1h"}, "https", b"SameSite=Lax; Max-Age=3600; Secure"),
        ({"domain": ".example.com"}, "http", b"SameSite=Lax; Domain=example.com"),
    ],
)
def test_cookie_has_the_attributes_of_the_settings(
    settings: dict[str, Any], scheme: str, expected: bytes
) -> None:
    """SameSite=None is Secure also over http; browsers refuse the cookie otherwise."""
    bound = Bound(pool_of(1), **COOKIE, **settings)
    cookie = bound.cookie(bound.pool.destinations[0], scope_of(scheme=scheme))

    assert cookie.partition(b"; HttpOnly; ")[2] == expected


def test_cookie_is_set_only_when_it_changes() -> None:
    """And never for a destination that has left the pool."""
    bound = Bound(pool_of(2))
    first, second = bound.pool.destinations
    scope = scope_of(bound.pair(first))
    right = bound.affinity.binding.remember([], scope, b"", first)
    moved = bound.affinity.binding.remember([], scope, b"", second)
    bound.pool.replace([settings_of(0)])
    removed = bound.affinity.binding.remember([], scope_of(), b"", second)

    assert (right, len(moved), removed) == ([], 1, [])


def test_cookie_is_removed_from_the_request() -> None:
    """All others stay as they are."""
    strip = Bound(pool_of(1)).affinity.binding.strip
    headers = [
        (b"cookie", b"a=1; stay=x.y;b=2"),
        (b"cookie", b"stay=x.y"),
        (b"cookie", b"c=stay"),
        (b"x", b"stay=1"),
    ]

    assert strip(headers) == [
        (b"cookie", b"a=1;b=2"),
        (b"cookie", b"c=stay"),
        (b"x", b"stay=1"),
    ]
