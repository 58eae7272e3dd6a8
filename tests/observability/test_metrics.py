"""The counts of an upstream equal what its destinations and clients saw."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from fastapi_proxy_di.errors import Attempt, Failure
from fastapi_proxy_di.observability.families import Family, families
from fastapi_proxy_di.observability.metrics import KEEP_SECONDS, MAX_SERIES, Metrics
from fastapi_proxy_di.testing import Step, close, echo, refuse, reply, reset, stand_in
from fastapi_proxy_di.upstream.running import RunningUpstream
from tests.pools.samples import pool_of
from tests.testing.apps import Billing, gateway_app

Read = Any


@contextmanager
def gateway(
    destinations: Step | dict[str, Step], **settings: Any
) -> Iterator[tuple[TestClient, Read]]:
    """Run the gateway; give its client, and a function that reads the values of one metric."""
    app = gateway_app()

    @app.post("/drain")
    async def drain(billing: Billing) -> None:
        _ = billing.drain(billing.destinations[0].url)

    with (
        stand_in(app, "billing", destinations, **settings) as billing,
        TestClient(app) as client,
    ):

        def read(name: str) -> dict[tuple[str | int | None, ...], float]:
            (running,) = billing._running.values()
            return values(running.upstream, name)

        yield client, read


def values(running: RunningUpstream, name: str) -> dict[tuple[str | int | None, ...], float]:
    """Give the values of a metric by its attributes, the count of a histogram as value."""
    (family,) = [one for one in families([running.numbers()]) if one.name == name]
    counts = {labels: one.count for labels, one in family.histograms.items()}
    return {key[1:]: value for key, value in {**family.values, **counts}.items() if value}


def test_response_is_one_attempt_with_its_durations() -> None:
    """By method and status; nothing failed, and nothing is under way any more."""
    with gateway(reply(status=201)) as (client, read):
        client.post("/billing/x", content=b"1")
        client.get("/billing/y")

        assert read("proxy.attempts") == {("http://billing",): 2}
        assert read("http.client.request.duration") == {
            ("billing", 80, "POST", 201, None): 1,
            ("billing", 80, "GET", 201, None): 1,
        }
        assert read("proxy.first_byte.duration") == {("http://billing",): 2}
        assert read("proxy.failures") == {}
        assert read("http.client.active_requests") == {}
        assert read("proxy.destination.count") == {("available",): 1}


def test_retry_counts_both_attempts_and_its_reason() -> None:
    """The failed attempt has an error and no status."""
    with gateway({"down": refuse(), "up": reply()}, policy="first") as (client, read):
        assert client.get("/billing/x").status_code == 200

        assert read("proxy.attempts") == {("http://down",): 1, ("http://up",): 1}
        assert read("proxy.retries") == {("http://up", "connect"): 1}
        assert read("proxy.failures") == {("http://down", "connect"): 1}
        assert read("http.client.request.duration") == {
            ("down", 80, "GET", None, "connect"): 1,
            ("up", 80, "GET", 200, None): 1,
        }


def test_retry_after_a_status_has_the_status_as_reason() -> None:
    """The first response is counted with its status, not as a failure."""
    with gateway(
        {"bad": reply(status=503), "good": reply()},
        policy="first",
        retries={"statuses": [503]},
    ) as (client, read):
        client.get("/billing/x")

        assert read("proxy.retries") == {("http://good", "status_503"): 1}
        assert read("proxy.failures") == {}
        assert read("http.client.request.duration") == {
            ("bad", 80, "GET", 503, None): 1,
            ("good", 80, "GET", 200, None): 1,
        }


def test_response_that_breaks_off_has_status_and_error() -> None:
    """One failure, at the destination."""
    with gateway(reset(b"123")) as (client, read):
        client.get("/billing/x")

        assert read("proxy.failures") == {("http://billing", "response_body"): 1}
        assert read("http.client.request.duration") == {
            ("billing", 80, "GET", 200, "response_body"): 1
        }


def test_unknown_method_is_other() -> None:
    """A client chooses the method, so it is no label."""
    with gateway(reply()) as (client, read):
        for number in range(50):
            client.request(f"X{number}", "/billing/x")

        assert read("http.client.request.duration") == {("billing", 80, "_OTHER", 200, None): 50}


def test_refusal_names_the_limit() -> None:
    """A refused request is no attempt."""
    with gateway(reply(), max_requests=1) as (client, read):
        client.get("/billing/x")
        assert client.get("/billing/x").status_code == 503

        assert read("proxy.refusals") == {("max_requests",): 1}
        assert read("proxy.attempts") == {("http://billing",): 1}


def test_request_without_an_attempt_is_a_failure_without_destination() -> None:
    """The only destination is draining."""
    with gateway(reply()) as (client, read):
        client.get("/billing/x")
        client.post("/drain")
        assert client.get("/billing/x").status_code == 503

        assert read("proxy.failures") == {(None, "no_available_destination"): 1}
        assert read("proxy.destination.count") == {("draining",): 1}


def test_ejection_is_counted_with_its_reason() -> None:
    """After two refused requests."""
    with gateway(
        {"down": refuse(), "up": reply()}, policy="first", ejection={"consecutive": 1}
    ) as (client, read):
        client.get("/billing/x")

        assert read("proxy.ejections") == {("http://down", "connect"): 1}
        assert read("proxy.destination.count") == {("available",): 1, ("ejected",): 1}


def test_tunnel_is_counted_with_its_messages_and_end() -> None:
    """A tunnel has no duration of a request."""
    with gateway(echo()) as (client, read):
        with client.websocket_connect("/billing/x") as websocket:
            websocket.send_text("1")
            websocket.receive_text()
            assert read("proxy.tunnel.count") == {(): 1}
            assert read("http.client.active_requests") == {("billing", 80): 1}

        assert read("proxy.tunnel.ends") == {("http://billing", "client_closed"): 1}
        assert read("proxy.tunnel.messages") == {
            ("http://billing", "up"): 1,
            ("http://billing", "down"): 1,
        }
        assert read("http.client.request.duration") == {}
        assert read("proxy.tunnel.count") == {}


def test_destination_closes_the_tunnel() -> None:
    """The end has a reason of its own."""
    with gateway(close(4001)) as (client, read):
        with (
            client.websocket_connect("/billing/x") as websocket,
            pytest.raises(WebSocketDisconnect),
        ):
            websocket.receive_text()

        assert read("proxy.tunnel.ends") == {("http://billing", "upstream_closed"): 1}


class Stub:
    """What `Metrics` reads of an exchange."""

    def __init__(self, destination: Any, status: int = 200) -> None:
        self.destination = destination
        self.attempts: tuple[Attempt, ...] = ()
        self.avoid: tuple[Any, ...] = ()
        self.method = b"GET"
        self.tunnel_end = None
        self.head_at = 0.0
        self.response = type("Response", (), {"status": status})


def one_attempt(metrics: Metrics, destination: Any, status: int = 200) -> None:
    """Count one attempt with a response."""
    exchange: Any = Stub(destination, status)
    metrics.attempt_began(exchange)
    metrics.head(exchange)
    metrics.attempt_ended(exchange, None)


def attempts(metrics: Metrics) -> dict[str | None, int]:
    """Give the attempts by address."""
    return {
        None if one is None else one.url: counts.attempts
        for one, counts in metrics.by_destination()
    }


def test_destination_that_left_moves_to_gone_after_an_hour() -> None:
    """The sum never falls, and the number of series does not grow with addresses."""
    now = 100.0
    metrics = Metrics("billing", lambda: now)
    for _ in range(5):
        pool = pool_of(2)
        for one in pool.destinations:
            one_attempt(metrics, one)
        metrics.removed(pool.destinations)
        assert sum(attempts(metrics).values()) % 2 == 0
        now += KEEP_SECONDS / 2

    counted = attempts(metrics)
    assert sum(counted.values()) == 10
    assert counted[None] == 8


def test_destination_with_requests_under_way_is_kept() -> None:
    """A stream may be longer than an hour; its end is counted where it began."""
    now = 100.0
    metrics = Metrics("billing", lambda: now)
    (one,) = pool_of(1).destinations
    one_attempt(metrics, one)
    one.in_flight = 1
    metrics.removed([one])
    now += 2 * KEEP_SECONDS

    assert attempts(metrics) == {one.url: 1}
    one.in_flight = 0
    assert attempts(metrics) == {None: 1}


def test_removed_destination_that_was_never_used_has_no_counts() -> None:
    """Nothing to keep."""
    metrics = Metrics("billing")
    metrics.removed(pool_of(3).destinations)

    assert attempts(metrics) == {}


def test_destination_cannot_make_series_without_bound() -> None:
    """Statuses beyond the bound are counted as the first of their class."""
    metrics = Metrics("billing")
    (one,) = pool_of(1).destinations
    for status in range(200, 600):
        one_attempt(metrics, one, status)

    series = metrics.of(one).durations
    assert len(series) <= MAX_SERIES + 5
    assert sum(histogram.count for histogram in series.values()) == 400


def test_gone_keeps_every_count() -> None:
    """Failures, retries, ejections, tunnels and messages move as well."""
    now = 0.0
    metrics = Metrics("billing", lambda: now)
    (one,) = pool_of(1).destinations
    counts = metrics.of(one)
    counts.retries["connect"] = counts.failures["connect"] = 2
    counts.ejections["connect"] = counts.tunnels["drained"] = 3
    counts.messages[:] = [4, 5]
    counts.ended("GET", (None, Failure.CONNECT.value), 0.1)
    metrics.removed([one])
    now = KEEP_SECONDS

    ((left, gone),) = metrics.by_destination()

    assert left is None
    assert (gone.retries, gone.failures) == ({"connect": 2}, {"connect": 2})
    assert (gone.ejections, gone.tunnels, gone.messages) == ({"connect": 3}, {"drained": 3}, [4, 5])
    assert [*gone.durations] == [("GET", (None, "connect"))]


def test_every_family_has_a_text_and_a_known_kind() -> None:
    """Names are those of the conventions, or begin with ``proxy.``."""
    made: list[Family] = families([])

    assert len({one.name for one in made}) == len(made) == 14
    for one in made:
        assert one.text.endswith(".")
        assert one.name.startswith(("http.client.", "proxy."))
