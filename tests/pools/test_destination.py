"""Destination: counts, limits, predicates."""

import pytest

from fastapi_proxy_di.pools.destination import Destination
from tests.pools.samples import destinations_of, settings_of
from tests.support.requests_in_flight import begin


def test_destination_begins_available_and_empty() -> None:
    """A new destination may be picked at once, and has the values of its settings."""
    destination = Destination(settings_of(0, weight=2, tier=1, metadata={"zone": "a"}))

    assert destination.available
    assert not destination.full
    assert (destination.weight, destination.tier, destination.metadata) == (2, 1, {"zone": "a"})
    assert destination.settings.address is destination.address


@pytest.mark.parametrize(
    ("field", "value"), [("healthy", False), ("ejected_until", 5.0), ("draining", True)]
)
def test_destination_is_unavailable_for_each_reason(field: str, value: object) -> None:
    """Unhealthy, ejected or draining: each alone is enough."""
    destination = Destination(settings_of(0))
    setattr(destination, field, value)

    assert not destination.available


def test_destination_is_full_at_max_in_flight() -> None:
    """At the limit it is full; the end of a request makes room."""
    destination = Destination(settings_of(0, max_in_flight=2))
    begin(destination)

    assert not destination.full

    begin(destination)

    assert destination.full

    destination.end()

    assert not destination.full


def test_destination_is_full_at_max_requests_even_when_idle() -> None:
    """Requests of the window count also after their end."""
    destination = Destination(settings_of(0, max_requests=1))
    begin(destination)
    destination.end()

    assert destination.in_flight == 0
    assert destination.full


def test_destination_reports_each_fall_of_its_load() -> None:
    """To the last given set; also when a new window begins."""
    destination = Destination(settings_of(0))
    old: set[Destination] = set()
    fallen: set[Destination] = set()
    destination.report_falls(old)
    destination.report_falls(fallen)
    begin(destination)
    begin(destination)

    assert fallen == set()

    destination.end()

    assert fallen == {destination}

    fallen.clear()
    destination.turn_window()

    assert (fallen, old) == ({destination}, set())


def test_destination_repr_is_short() -> None:
    """It has the address, the load, and why it is not available."""
    destination = Destination(settings_of(0))

    assert repr(destination) == "<Destination http://10.0.0.1 in_flight=0>"

    destination.healthy = False
    destination.ejected_until = 1.0
    destination.draining = destination.removed = True

    assert repr(destination).endswith(" in_flight=0 unhealthy ejected draining removed>")


def test_destination_reports_falls_and_room() -> None:
    """To a policy and to the queue at once, at each end and each turn of the window."""
    (destination,) = destinations_of(1)
    fallen: set[Destination] = set()
    woken: list[str] = []
    destination.report_falls(fallen)
    destination.end()
    alone = set(fallen)
    fallen.clear()
    destination.report_room(lambda: woken.append("room"))
    destination.end()
    destination.turn_window()

    assert alone == fallen == {destination}
    assert woken == ["room", "room"]
