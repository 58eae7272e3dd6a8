"""Which list of a source holds now."""

from __future__ import annotations

from fastapi_proxy_di.discovery.holding import NOTHING_FOUND, Holding
from tests.discovery.samples import some


def test_list_holds_until_the_next_one() -> None:
    """Whatever the time."""
    holding = Holding(300, "keep")
    holding.found(some(1, 2), 0)
    assert holding.expires is None
    assert not holding.expire(1e9)
    holding.found(some(3), 1e9)

    assert holding.destinations == some(3)
    assert holding.reason == ""


def test_list_serves_for_a_time_while_the_source_fails() -> None:
    """Counted from the first failure, not from the last list, which may be old."""
    holding = Holding(300, "keep")
    holding.found(some(1), 0)
    holding.failed("SERVFAIL", 1000)
    holding.failed("no response", 1299)
    assert (holding.reason, holding.failures, holding.expires) == ("no response", 2, 1300)
    assert not holding.expire(1299)
    assert holding.destinations == some(1)
    assert holding.expire(1300)

    assert holding.destinations == ()
    assert holding.expires is None
    assert not holding.expire(1301)


def test_failure_after_the_time_drops_the_list() -> None:
    """Also if nobody asked in between."""
    holding = Holding(300, "keep")
    holding.found(some(1), 0)
    holding.failed("SERVFAIL", 10)
    holding.failed("SERVFAIL", 310)

    assert holding.destinations == ()


def test_a_new_list_ends_an_outage() -> None:
    """The next outage has its own time."""
    holding = Holding(300, "keep")
    holding.failed("SERVFAIL", 0)
    assert holding.expires is None
    holding.found(some(1), 299)
    assert (holding.reason, holding.failures) == ("", 0)
    holding.failed("SERVFAIL", 500)

    assert holding.expires == 800


def test_empty_list_is_kept_or_dropped() -> None:
    """By the setting; either way it is a failure, but no exception."""
    kept, dropped = Holding(300, "keep"), Holding(300, "drop")
    for holding in (kept, dropped):
        holding.found(some(1), 0)
        holding.found((), 10)

    assert (kept.destinations, kept.expires) == (some(1), 310)
    assert (dropped.destinations, dropped.expires) == ((), None)
    assert kept.reason == dropped.reason == NOTHING_FOUND
    assert kept.failures == 0


def test_without_keep_a_failure_drops_at_once() -> None:
    """``keep`` 0."""
    holding = Holding(0, "keep")
    holding.found(some(1), 0)
    holding.failed("SERVFAIL", 10)

    assert holding.destinations == ()
