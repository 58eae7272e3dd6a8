"""The counts of one destination: what they hold, and how many series."""

from __future__ import annotations

from fastapi_proxy_di.errors import Failure
from fastapi_proxy_di.observability.counts import GONE, MAX_SERIES, DestinationCounts


def made(url: str = "http://a") -> DestinationCounts:
    """Give counts that are empty."""
    return DestinationCounts("billing", url, ("a", 80))


def test_destination_cannot_make_series_without_bound() -> None:
    """Results beyond the bound are counted by the class of the status."""
    counts = made()
    for status in range(200, 600):
        counts.series("GET", status, None).observe(0.1)
    for failure in Failure:
        counts.series("POST", 200, failure.value).observe(0.1)
        counts.series("POST", None, failure.value).observe(0.1)

    assert len(counts.durations) <= MAX_SERIES + 6
    assert sum(one.count for one in counts.durations.values()) == 400 + 2 * len(Failure)
    for given, error, first in (
        (599, None, 500),
        (200, "response_body", 200),
        (None, "connect", None),
    ):
        labels = counts.series("GET", given, error).labels
        assert labels == ("billing", "a", 80, "_OTHER", first, "_OTHER")
    assert counts.series("GET", 399, None).labels[-3:] == ("_OTHER", 300, None)


def test_error_of_a_response_is_its_status() -> None:
    """From 400 on, as the conventions have it for clients; a failure has its own name."""
    counts = made()
    results = [(200, None), (404, None), (200, "response_body"), (500, "response_body")]

    assert [counts.series("GET", *result).labels[-1] for result in results] == [
        None,
        "404",
        "response_body",
        "response_body",
    ]


def test_error_statuses_are_counted_over_methods() -> None:
    """Responses from 400 on; attempts without a response have no status."""
    counts = made()
    for method, status in (("GET", 500), ("POST", 500), ("GET", 404), ("GET", 200), ("GET", None)):
        counts.series(method, status, None).observe(0.1)

    assert counts.error_statuses() == {"500": 2, "404": 1}


def test_sum_has_every_count() -> None:
    """The sum has all kinds of counts; its durations have the labels of the sum."""
    counts = made()
    counts.attempts = 1
    counts.retries["connect"] = counts.failures["connect"] = 2
    counts.ejections["connect"] = counts.tunnels["drained"] = 3
    counts.messages[:] = [4, 5]
    counts.first_byte.observe(0.1)
    counts.series("GET", None, Failure.CONNECT.value).observe(0.1)
    gone = DestinationCounts("billing", GONE, (GONE, None))
    gone.add(counts)
    gone.add(counts)

    assert (gone.attempts, gone.first_byte.count) == (2, 2)
    assert (gone.retries, gone.failures) == ({"connect": 4}, {"connect": 4})
    assert (gone.ejections, gone.tunnels) == ({"connect": 6}, {"drained": 6})
    assert gone.messages == [8, 10]
    ((key, durations),) = gone.durations.items()
    assert key == ("GET", None, "connect")
    assert durations.labels == ("billing", GONE, None, *key)
    assert durations.count == 2


def test_recent_durations_are_those_of_one_to_two_periods() -> None:
    """The mark before the last one is their beginning."""
    counts = made()
    for seconds in (1.0, 2.0, 3.0):
        counts.mark()
        counts.first_byte.observe(seconds)
        counts.series("GET", 200, None).observe(seconds)

    first_byte, durations, *_ = counts.recent()
    assert (first_byte.count, first_byte.seconds) == (2, 5.0)
    assert (durations.count, durations.seconds) == (2, 5.0)


def test_recent_durations_are_those_of_whole_responses() -> None:
    """An attempt that failed is quick or slow for other reasons."""
    counts = DestinationCounts("billing", "http://a", ("a", 80))
    for result in ((200, None), (503, None), (None, "connect"), (200, "response_body")):
        counts.series("GET", *result).observe(0.2)

    assert counts.recent().durations.count == 2


def test_recent_attempts_and_failures() -> None:
    """Those of one to two periods; what the client ended is no failure, nor what was sent anew."""
    counts = made()
    for _ in range(3):
        counts.mark()
        counts.attempts += 10
        for name in ("connect", "response_body", "total_timeout"):
            counts.failures[name] = counts.failures.get(name, 0) + 1
        for name in ("cancelled", "client_disconnected", "not_processed", "request_invalid"):
            counts.failures[name] = counts.failures.get(name, 0) + 1

    assert counts.recent()[2:] == (20, 6)
