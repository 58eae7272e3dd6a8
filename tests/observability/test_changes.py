"""Since when a destination is in its state, and why."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from fastapi_proxy_di.observability.changes import Change, Changes
from fastapi_proxy_di.pools.pool import Pool
from fastapi_proxy_di.supervision.events import (
    DestinationDown,
    DestinationEjected,
    DestinationReadmitted,
    DestinationUp,
    LimitHit,
)
from tests.pools.samples import pool_of

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(second: int) -> datetime:
    """Give a time of day, in seconds after the start."""
    return START + timedelta(seconds=second)


@pytest.fixture
def seconds() -> Iterator[datetime]:
    """Give a clock that advances by a second each time it is read."""
    return (at(second) for second in range(100))


@pytest.fixture
def changes(seconds: Iterator[datetime]) -> Changes:
    """Give the changes of an upstream that has just started."""
    return Changes("billing", lambda: next(seconds))


@pytest.fixture
def pool() -> Pool:
    """Give a pool of two destinations."""
    return pool_of(2)


def test_no_change_yet(changes: Changes, pool: Pool) -> None:
    """A destination is in its state since the start of the upstream."""
    assert changes.of(pool.destinations[0]) == Change(at(0))


def test_down_and_up_again(changes: Changes, pool: Pool) -> None:
    """The reason is the one of the probe; a recovery has none."""
    one, other = pool.destinations
    changes.listen(DestinationDown("billing", one.url, "status 503"))
    pool.set_health(one, False)
    down = changes.of(one)
    changes.listen(DestinationUp("billing", one.url))
    pool.set_health(one, True)

    assert down == Change(at(1), "status 503")
    assert changes.of(one) == Change(at(2))
    assert changes.of(other) == Change(at(0))


def test_ejected_while_down(changes: Changes, pool: Pool) -> None:
    """When the ejection ends, the state is unhealthy, since the probe that failed."""
    one = pool.destinations[0]
    changes.listen(DestinationDown("billing", one.url, "connect"))
    pool.set_health(one, False)
    changes.listen(DestinationEjected("billing", one.url, 30.0, "response_head"))
    pool.eject(one, 30.0)
    ejected = changes.of(one)
    changes.listen(DestinationReadmitted("billing", one.url))
    pool.readmit(one)

    assert ejected == Change(at(2), "response_head")
    assert changes.of(one) == Change(at(1), "connect")


def test_other_events(changes: Changes, pool: Pool) -> None:
    """Events of other upstreams and of the whole upstream change nothing."""
    one = pool.destinations[0]
    changes.listen(DestinationUp("orders", one.url))
    changes.listen(LimitHit("billing", None, "max_requests"))
    changes.listen(LimitHit("billing", one.url, "max_requests"))

    assert changes.of(one) == Change(at(0))


def test_replaced_destinations(changes: Changes, pool: Pool) -> None:
    """An added destination begins with its addition, also if its address was there before."""
    one, other = pool.destinations
    changes.listen(DestinationUp("billing", one.url))
    changes.listen(DestinationUp("billing", other.url))
    changes.replaced((), (one,))
    changes.replaced((one,), ())

    assert changes.of(one) == Change(at(4))
    assert changes.of(other) == Change(at(2))


def test_removed_destinations(changes: Changes, pool: Pool) -> None:
    """A destination that finishes its requests was removed at a time; others are forgotten."""
    busy, idle = pool.destinations
    busy.in_flight = 1
    for one in (busy, idle):
        changes.replaced((), (one,))
        one.removed = True
    changes.replaced((), ())

    assert changes.of(busy) == Change(at(1), "removed")
    assert changes.of(idle) == Change(at(0))
