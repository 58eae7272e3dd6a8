"""Events: one log record each, and listeners whose exceptions do no harm."""

import logging

import pytest

from fastapi_proxy_di.supervision.events import (
    DestinationDown,
    DestinationDraining,
    DestinationEjected,
    DestinationReadmitted,
    DestinationUndrained,
    DestinationUp,
    Event,
    Events,
    LimitHit,
    PanicEnded,
    PanicStarted,
)

URL = "http://10.0.0.1"


@pytest.mark.parametrize(
    ("event", "part", "level", "message"),
    [
        (DestinationUp("billing", URL), "health", "WARNING", f"billing: {URL} is up"),
        (DestinationDown("billing", URL), "health", "WARNING", f"billing: {URL} is down"),
        (
            DestinationDown("billing", URL, "status 503"),
            "health",
            "WARNING",
            f"billing: {URL} is down (status 503)",
        ),
        (
            DestinationEjected("billing", URL, 30.0),
            "health",
            "WARNING",
            f"billing: {URL} is ejected (for 30 s)",
        ),
        (
            DestinationEjected("billing", URL, 30.0, "connect"),
            "health",
            "WARNING",
            f"billing: {URL} is ejected (for 30 s: connect)",
        ),
        (
            DestinationReadmitted("billing", URL, "a good probe"),
            "health",
            "WARNING",
            f"billing: {URL} is readmitted (a good probe)",
        ),
        (DestinationDraining("billing", URL), "pools", "INFO", f"billing: {URL} is draining"),
        (
            DestinationUndrained("billing", URL),
            "pools",
            "INFO",
            f"billing: {URL} takes requests again",
        ),
        (
            PanicStarted("billing"),
            "health",
            "WARNING",
            "billing has no available destination; all are used",
        ),
        (
            PanicEnded("billing"),
            "health",
            "WARNING",
            "billing has an available destination again",
        ),
        (
            LimitHit("billing", URL, "max_requests"),
            "limits",
            "WARNING",
            f"billing: {URL} is at its limit (max_requests)",
        ),
    ],
)
def test_event_is_logged_once_with_its_attributes(
    event: Event, part: str, level: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    """On the logger of its part, with upstream and destination as extra attributes."""
    with caplog.at_level(logging.INFO, "fastapi_proxy_di"):
        Events().emit(event)
    (record,) = caplog.records

    assert record.name == f"fastapi_proxy_di.{part}"
    assert record.levelname == level
    assert record.getMessage() == message
    assert record.__dict__["upstream"] == "billing"
    assert record.__dict__["destination"] == event.destination


def test_event_is_not_logged_below_the_level(caplog: pytest.LogCaptureFixture) -> None:
    """An INFO event makes no record at level WARNING."""
    with caplog.at_level(logging.WARNING, "fastapi_proxy_di"):
        Events().emit(DestinationDraining("billing", URL))

    assert caplog.records == []


def test_events_reach_each_subscription_until_it_ends() -> None:
    """A listener that subscribes twice is called twice; ending one leaves the other."""
    events = Events()
    heard: list[Event] = []
    end = events.subscribe(heard.append)
    events.subscribe(heard.append)
    up, down = DestinationUp("billing", URL), DestinationDown("billing", URL)
    events.emit(up)
    end()
    end()
    events.emit(down)

    assert heard == [up, up, down]


def test_events_survive_a_failing_listener(caplog: pytest.LogCaptureFixture) -> None:
    """The exception is logged, and the next listener is called."""
    events = Events()
    heard: list[Event] = []

    def fail(event: Event) -> None:
        raise RuntimeError("broken")

    events.subscribe(fail)
    events.subscribe(heard.append)
    event = PanicEnded("billing")
    events.emit(event)
    record = caplog.records[-1]

    assert heard == [event]
    assert (record.name, record.levelname) == ("fastapi_proxy_di.events", "ERROR")
    assert "broken" in caplog.text
