"""Pairs of destination and key that cool: how long, and how many."""

from __future__ import annotations

from fastapi_proxy_di.pools.cooled_pairs import CooledPairs


def test_pair_cools_until_its_end() -> None:
    """Each pair has its own; one that has ended is forgotten."""
    pairs = CooledPairs()
    pairs.cool("http://a", b"1", 10.0)
    pairs.cool("http://b", b"1", 20.0)
    pairs.cool("http://a", b"2", 30.0)

    assert pairs.left(b"1", 5.0) == {"http://a": 5.0, "http://b": 15.0}
    assert pairs.left(b"1", 10.0) == {"http://b": 10.0}
    assert len(pairs) == 2
    assert pairs.left(b"1", 20.0) == {}
    assert pairs.left(b"2", 20.0) == {"http://a": 10.0}
    assert pairs.left(b"3", 0.0) == {}
    assert len(pairs) == 1


def test_later_end_of_a_pair_stays() -> None:
    """Responses may come out of order."""
    pairs = CooledPairs()
    for until in (10.0, 20.0, 15.0):
        pairs.cool("http://a", b"1", until)

    assert pairs.left(b"1", 0.0) == {"http://a": 20.0}
    assert len(pairs) == 1


def test_pairs_are_bounded() -> None:
    """Of 10,000 invented keys and more, those that cooled longest ago are dropped."""
    pairs = CooledPairs()
    for number in range(10_000):
        pairs.cool("http://a", b"%d" % number, 100.0)
    pairs.cool("http://a", b"0", 100.0)
    for number in range(10_000, 10_005):
        pairs.cool("http://b", b"%d" % number, 100.0)
    kept = [number for number in range(10_005) if pairs.left(b"%d" % number, 0.0)]

    assert len(pairs) == 10_000
    assert kept == [0, *range(6, 10_005)]
