"""The counts of an upstream equal what its destinations and clients saw.

Long because each kind of count has an exchange of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from fastapi_proxy_di.errors import Attempt, ClientDisconnected, LimitExceeded
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.observability.counts import GONE
from fastapi_proxy_di.observability.families import Family, families
from fastapi_proxy_di.observability.histogram import Durations
from fastapi_proxy_di.observability.metrics import (
    DURATION,
    FIRST_BYTE,
    KEEP_SECONDS,
    QUEUE,
    Metrics,
)
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.settings import DestinationSettings
from fastapi_proxy_di.supervision.events import DestinationEjected
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
            ("bad", 80, "GET", 503, "503"): 1,
            ("good", 80, "GET", 200, None): 1,
        }


def test_response_that_breaks_off_has_status_and_error() -> None:
    """A response that breaks off is one failure of the destination."""
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


def test_recent_requests_and_refusals_are_those_of_one_to_two_periods() -> None:
    """Refused requests are requests as well."""
    metrics = Metrics("billing")
    exchange = Exchange({}, None, None, b"/", b"")
    found = []
    for failure in (LimitExceeded(""), None, LimitExceeded("")):
        metrics.mark()
        metrics.ended(exchange, failure)
        found.append(metrics.recent())

    assert found == [(1, 1), (2, 1), (2, 1)]


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
        self.transport_exchange = type("Response", (), {"status": status})


def destinations(*urls: str) -> tuple[Destination, ...]:
    """Give destinations with these addresses."""
    return tuple(Destination(DestinationSettings(url=url)) for url in urls)


def one_attempt(metrics: Metrics, destination: Any, status: int = 200) -> None:
    """Count one attempt with a response."""
    exchange: Any = Stub(destination, status)
    metrics.attempt_began(exchange)
    metrics.head(exchange)
    metrics.attempt_ended(exchange, None)


def test_first_byte_is_counted_at_the_head() -> None:
    """A stream that lasts for an hour shows it at once; its duration comes at its end."""
    (one,) = destinations("http://a")
    metrics = Metrics("billing", (one,))
    metrics.instruments = recorder = Recorder()
    exchange: Any = Stub(one)
    metrics.attempt_began(exchange)
    metrics.head(exchange)
    assert [name for name, _ in recorder.seconds] == [FIRST_BYTE]
    assert metrics.of(one).first_byte.count == 1

    metrics.attempt_ended(exchange, None)
    assert [name for name, _ in recorder.seconds] == [FIRST_BYTE, DURATION]


def test_copy_of_a_hedged_request_is_a_retry() -> None:
    """The reason of the retry is `hedge`, no failure."""
    first, second = destinations("http://a", "http://b")
    metrics = Metrics("billing", (first, second))
    exchange: Any = Stub(second)
    exchange.avoid = (first,)
    metrics.attempt_began(exchange)

    assert metrics.of(second).retries == {"hedge": 1}
    assert metrics.of(first).retries == {}


def attempts(metrics: Metrics) -> dict[str, int]:
    """Give the attempts by address."""
    return {counts.url: counts.attempts for counts in metrics.all()}


class Recorder:
    """Keeps the durations that it gets."""

    def __init__(self) -> None:
        self.seconds: list[tuple[str, float]] = []

    def record(self, name: str, seconds: float, durations: Durations) -> None:
        """Keep a duration."""
        self.seconds.append((name, seconds))


def test_wait_in_the_queue_is_counted_and_recorded() -> None:
    """For requests that waited, with or without success."""
    (one,) = destinations("http://a")
    metrics = Metrics("billing", (one,))
    metrics.instruments = recorder = Recorder()
    for queued, failure in ((0.25, None), (None, None), (0.5, ClientDisconnected())):
        exchange: Any = Stub(one)
        exchange.queued, exchange.in_flight = queued, True
        metrics.ended(exchange, failure)

    assert (metrics.queue.count, metrics.queue.seconds) == (2, 0.75)
    assert recorder.seconds == [(QUEUE, 0.25), (QUEUE, 0.5)]


def test_destination_has_counts_from_the_start() -> None:
    """So that the first attempt is an increase from 0."""
    pool = pool_of(2)
    metrics = Metrics("billing", pool.destinations)

    assert attempts(metrics) == dict.fromkeys((one.url for one in pool.destinations), 0)


def test_destination_that_left_moves_to_gone_after_an_hour() -> None:
    """The sum never falls, and the number of series does not grow with addresses."""
    now = 100.0
    metrics = Metrics("billing", clock=lambda: now)
    for turn in range(5):
        left = destinations(f"http://{turn}-a", f"http://{turn}-b")
        metrics.replaced(left, ())
        for one in left:
            one_attempt(metrics, one)
        metrics.replaced((), left)
        metrics.move_gone()
        assert sum(attempts(metrics).values()) == 2 * (turn + 1)
        now += KEEP_SECONDS / 2

    metrics.move_gone()
    counted = attempts(metrics)
    assert sum(counted.values()) == 10
    assert counted == {GONE: 8, "http://4-a": 1, "http://4-b": 1}


def test_series_of_destinations_that_are_gone_stay() -> None:
    """Although those that go next have more series than are kept apart."""
    now = 100.0
    one, other = destinations("http://a", "http://b")
    metrics = Metrics("billing", (one, other), lambda: now)
    metrics.of(one).series("GET", 404, None).observe(0.1)
    metrics.replaced((), (one,))
    now += KEEP_SECONDS
    metrics.move_gone()
    for status in range(200, 220):
        metrics.of(other).series("GET", status, None).observe(0.1)
    metrics.replaced((), (other,))
    now += KEEP_SECONDS
    metrics.move_gone()
    (gone,) = metrics.all()

    assert gone.series("GET", 404, None).count == 1


def test_address_that_comes_back_goes_on_with_its_counts() -> None:
    """No counter falls, neither when the address is back nor an hour after it had left."""
    now = 100.0
    metrics = Metrics("billing", clock=lambda: now)
    for _ in range(3):
        (one,) = destinations("http://a")
        metrics.replaced((one,), ())
        one_attempt(metrics, one)
        metrics.replaced((), (one,))
    metrics.replaced(destinations("http://a"), ())
    now += 2 * KEEP_SECONDS
    metrics.move_gone()

    assert attempts(metrics) == {"http://a": 3}


def test_address_that_comes_back_from_gone_begins_anew() -> None:
    """The old counts stay in the sum."""
    now = 100.0
    (one,) = destinations("http://a")
    metrics = Metrics("billing", (one,), lambda: now)
    one_attempt(metrics, one)
    metrics.replaced((), (one,))
    now += KEEP_SECONDS
    metrics.move_gone()
    metrics.replaced((one,), ())
    one_attempt(metrics, one)

    assert attempts(metrics) == {GONE: 1, "http://a": 1}


def test_destination_with_requests_under_way_is_kept() -> None:
    """A stream may be longer than an hour; its end is counted where it began."""
    now = 100.0
    (one,) = destinations("http://a")
    metrics = Metrics("billing", (one,), lambda: now)
    one_attempt(metrics, one)
    one.in_flight = 1
    metrics.replaced((), (one,))
    now += 2 * KEEP_SECONDS
    metrics.move_gone()

    assert attempts(metrics) == {one.url: 1}
    assert metrics.leaving() == (one,)
    one.in_flight = 0
    metrics.move_gone()
    assert attempts(metrics) == {GONE: 1}
    assert metrics.leaving() == ()


def test_destination_that_is_gone_is_read_as_empty() -> None:
    """A status in another thread may still have it; reading adds no series."""
    metrics = Metrics("billing")
    (one,) = destinations("http://a")

    assert metrics.of(one).attempts == 0
    assert attempts(metrics) == {}


def test_ejection_has_one_of_few_reasons() -> None:
    """A lease may be failed with any text, which is no label."""
    (one,) = destinations("http://a")
    metrics = Metrics("billing", (one,))
    for reason in ("status 503", "retry_after", "disk 7 is full", "disk 8 is full"):
        metrics.listen(DestinationEjected("billing", "http://a", 1.0, reason))

    assert metrics.of(one).ejections == {"status_503": 1, "retry_after": 1, "lease": 2}


def test_ejection_of_an_unknown_destination_is_ignored() -> None:
    """An ejection of another upstream is ignored, too."""
    (one,) = destinations("http://a")
    metrics = Metrics("billing", (one,))
    metrics.listen(DestinationEjected("billing", "http://b", 1.0, "connect"))
    metrics.listen(DestinationEjected("orders", "http://a", 1.0, "connect"))
    metrics.listen(DestinationEjected("billing", "http://a", 1.0, "connect"))

    assert [counts.ejections for counts in metrics.all()] == [{"connect": 1}]


def test_totals_never_fall_for_a_reader_in_another_thread() -> None:
    """Counts move to gone while a scrape reads: in one piece, so without a lock."""
    now = 0.0
    metrics = Metrics("billing", clock=lambda: now)
    totals: list[int] = []
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            totals.append(sum(counts.attempts for counts in metrics.all()))

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(2000):
        (one,) = destinations(f"http://host-{turn}")
        metrics.replaced((one,), ())
        one_attempt(metrics, one)
        metrics.replaced((), (one,))
        now += KEEP_SECONDS / 3
        metrics.move_gone()
    ended.set()
    reader.join()

    assert totals == sorted(totals)
    assert sum(attempts(metrics).values()) == 2000


def test_every_family_has_a_text_and_a_known_kind() -> None:
    """Names are those of the conventions, or begin with ``proxy.``."""
    made: list[Family] = families([])

    assert len({one.name for one in made}) == len(made) == 15
    for one in made:
        assert one.text.endswith(".")
        assert one.name.startswith(("http.client.", "proxy."))
