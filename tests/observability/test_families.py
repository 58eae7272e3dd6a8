"""What exporters read: names and attributes of servers, and the states of destinations."""

from __future__ import annotations

from fastapi_proxy_di.observability.counts import DYNAMIC, GONE
from fastapi_proxy_di.observability.families import Numbers, families
from fastapi_proxy_di.observability.metrics import KEEP_SECONDS, Metrics
from fastapi_proxy_di.pools.destination import Destination, DynamicDestination
from fastapi_proxy_di.settings import DestinationSettings
from tests.pools.samples import pool_of


def destination(url: str) -> Destination:
    """Give a destination with this address."""
    return Destination(DestinationSettings(url=url))


def test_state_is_the_one_that_decides() -> None:
    """Draining before ejected before unhealthy before unprobed."""
    (one,) = pool_of(1).destinations
    states = [one.state]
    one.awaits_probe = True
    states.append(one.state)
    one.healthy = False
    states.append(one.state)
    one.ejected_until = 1.0
    states.append(one.state)
    one.draining = True
    states.append(one.state)

    assert states == ["available", "unprobed", "unhealthy", "ejected", "draining"]


def test_destinations_of_one_server_share_a_series() -> None:
    """Two base paths of one host have the same address and port: their values are added."""
    first, second = destination("http://a/one"), destination("http://a/two")
    metrics = Metrics("billing", (first, second))
    for one in (first, second):
        one.in_flight = 2
        metrics.of(one).series("GET", 200, None).observe(0.1)
    numbers = Numbers("billing", metrics, lambda: (first, second), lambda one: (2, 1), lambda: 0)

    by_name = {one.name: one for one in families([numbers])}

    assert by_name["http.client.active_requests"].values == {("billing", "a", 80): 4}
    assert by_name["http.client.open_connections"].values == {
        ("billing", "a", 80, "active"): 4,
        ("billing", "a", 80, "idle"): 2,
    }
    (histogram,) = by_name["http.client.request.duration"].histograms.values()
    assert histogram.count == 2
    assert by_name["proxy.attempts"].values == {
        ("billing", "http://a/one"): 0,
        ("billing", "http://a/two"): 0,
    }


def test_destinations_that_left_long_ago_are_gone() -> None:
    """Their counts have `gone` as the destination and as the server."""
    now = 0.0
    one = destination("http://a")
    metrics = Metrics("billing", (one,), lambda: now)
    metrics.of(one).series("GET", 200, None).observe(0.1)
    metrics.replaced((), [one])
    now = KEEP_SECONDS
    metrics.move_gone()
    numbers = Numbers("billing", metrics, lambda: (), lambda one: (0, 0), lambda: 0)

    by_name = {one.name: one for one in families([numbers])}

    assert [*by_name["proxy.attempts"].values] == [("billing", GONE)]
    assert [*by_name["http.client.request.duration"].histograms] == [
        ("billing", GONE, None, "GET", 200, None)
    ]


def test_destination_that_leaves_shows_its_requests_under_way() -> None:
    """Until they have ended; it is not counted among the destinations."""
    one = destination("http://a")
    one.in_flight = 2
    metrics = Metrics("billing", (one,))
    metrics.replaced((), (one,))
    numbers = Numbers("billing", metrics, lambda: (), lambda one: (2, 0), lambda: 0)

    by_name = {one.name: one for one in families([numbers])}

    assert by_name["http.client.active_requests"].values == {("billing", "a", 80): 2}
    assert by_name["http.client.open_connections"].values["billing", "a", 80, "active"] == 2
    assert sum(by_name["proxy.destination.count"].values.values()) == 0


def test_dynamic_destinations_share_one_series() -> None:
    """Their addresses are no labels, and there is no series before the first one."""
    metrics = Metrics("billing")
    numbers = Numbers("billing", metrics, tuple, lambda one: (0, 0), lambda: 0, lambda: (3, 2, 1))
    assert metrics.all() == ()
    for host in ("a", "b"):
        one = DynamicDestination(DestinationSettings(url=f"http://{host}"))
        metrics.of(one).attempts += 1
        metrics.of(one).series("GET", 200, None).observe(0.1)

    by_name = {one.name: one for one in families([numbers])}

    assert by_name["proxy.attempts"].values == {("billing", DYNAMIC): 2}
    assert by_name["http.client.active_requests"].values == {("billing", DYNAMIC, None): 3}
    assert by_name["http.client.open_connections"].values == {
        ("billing", DYNAMIC, None, "active"): 2,
        ("billing", DYNAMIC, None, "idle"): 1,
    }
    (labels,) = by_name["http.client.request.duration"].histograms
    assert labels == ("billing", DYNAMIC, None, "GET", 200, None)
