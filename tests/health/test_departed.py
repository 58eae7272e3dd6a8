"""What an address has when it comes back to its pool."""

from __future__ import annotations

import pytest

from fastapi_proxy_di.health.departed import REMEMBERED, Departed
from fastapi_proxy_di.health.ejection import Ejector
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.settings import DestinationSettings, EjectionSettings
from tests.pools.samples import pool_of


def departed() -> tuple[Departed, Ejector, Destination]:
    """Give an empty memory of five minutes, its ejector, and a destination of the pool."""
    pool = pool_of(3)
    ejector = Ejector(pool, EjectionSettings())
    return Departed(ejector, 300), ejector, pool.destinations[0]


def again(destination: Destination, *, awaits_probe: bool = False) -> Destination:
    """Give a new destination with the same address."""
    fresh = Destination(destination.settings)
    fresh.awaits_probe = awaits_probe
    return fresh


def test_ejection_stays_with_the_address() -> None:
    """With its counts; one that is over is not restored."""
    memory, _, one = departed()
    one.ejected_until, one.cooling, one.ejections, one.successes = 130.0, True, 2, 7
    memory.note([one], (), 100)
    fresh = again(one)
    memory.restore(fresh, 110, found=True)
    memory.note([fresh], (), 120)
    late = again(one)
    memory.restore(late, 130, found=True)

    assert (fresh.ejected_until, fresh.cooling, fresh.ejections, fresh.successes) == (
        130,
        True,
        2,
        7,
    )
    assert (late.ejected_until, late.cooling, late.ejections) == (None, False, 2)


def test_health_is_restored_where_probes_are_sent() -> None:
    """Else nothing would ever make the destination healthy."""
    memory, _, one = departed()
    one.healthy = False
    probed, unprobed = again(one, awaits_probe=True), again(one)
    for fresh in (probed, unprobed):
        memory.note([one], (), 0)
        memory.restore(fresh, 1, found=True)

    assert (probed.healthy, unprobed.healthy) == (False, True)


@pytest.mark.parametrize(
    ("drained", "found", "expected"),
    [(True, True, True), (True, False, False), (False, True, False)],
)
def test_drain_is_restored_where_a_source_finds_the_address(
    drained: bool, found: bool, expected: bool
) -> None:
    """The pool marks all that leave as draining; code that adds an address wants requests there."""
    memory, _, one = departed()
    one.draining = True
    memory.note([one], [one] if drained else [], 0)
    fresh = again(one)
    memory.restore(fresh, 1, found=found)

    assert fresh.draining is expected


def test_the_length_of_ejections_goes_on() -> None:
    """The second ejection is twice as long, also after the address was away."""
    memory, ejector, one = departed()
    for _ in range(5):
        until = ejector.failed(one, 0)
    assert until == 30
    memory.note([one], (), 1)
    fresh = again(one)
    memory.restore(fresh, 2, found=True)
    record = ejector.release(fresh)

    assert record is not None
    assert record.level == 1


def test_address_is_forgotten_after_a_time() -> None:
    """Its ejection level as well."""
    memory, ejector, one = departed()
    one.ejections = 3
    _ = ejector.failed(one, 0)
    memory.note([one], (), 0)
    fresh = again(one)
    memory.restore(fresh, 300, found=True)

    assert fresh.ejections == 0
    assert ejector.release(fresh) is None


def test_memory_is_bounded() -> None:
    """By time and by number: the address that left first goes first."""
    memory, _, one = departed()
    one.ejections = 1
    memory.note([one], (), 0)
    others = [Destination(DestinationSettings(url=f"http://h{n}")) for n in range(REMEMBERED)]
    memory.note(others, (), 1)
    fresh = again(one)
    memory.restore(fresh, 2, found=True)
    assert fresh.ejections == 0
    memory.note((), (), 301)

    assert memory._left == {}
