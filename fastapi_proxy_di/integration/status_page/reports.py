"""What the status router gives as JSON."""

from __future__ import annotations

import os
import re
from datetime import datetime
from typing import ClassVar, Final

from pydantic import BaseModel, ConfigDict

from fastapi_proxy_di.integration.runtime import Runtime
from fastapi_proxy_di.observability.changes import now
from fastapi_proxy_di.observability.history import History, PastEvent
from fastapi_proxy_di.supervision.events import DestinationDown, DestinationEjected, LimitHit
from fastapi_proxy_di.upstream.status import UpstreamStatus

__all__ = [
    "EventReport",
    "EventsReport",
    "StatusReport",
    "events_report",
    "position_after",
    "status_report",
]

_POSITION: Final = re.compile(r"(\d{1,10})-(\d{1,15})")


class _Report(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)


class EventReport(_Report):
    """One past event.

    Attributes:
        at: When it happened.
        kind: The class of the event, e.g. ``"DestinationDown"``.
        upstream: Name of the upstream.
        destination: Address of the destination, ``None`` for an event of the whole upstream.
        text: What happened, e.g. ``"is down (status 503)"``.
        reason: Why, ``""`` if there is nothing to say.
    """

    at: datetime
    kind: str
    upstream: str
    destination: str | None
    text: str
    reason: str


class EventsReport(_Report):
    """The events after a position.

    Attributes:
        process: The process that speaks; each process knows its own events only.
        position: What to ask for next, as ``since``.
        events: The events, the oldest first.
    """

    process: int
    position: str
    events: tuple[EventReport, ...]


class StatusReport(_Report):
    """All upstreams at one moment.

    Attributes:
        process: The process that speaks; each process knows its own state only.
        at: The moment.
        actions: Whether the router has actions.
        position: The position of the last event, for ``since``.
        upstreams: The upstreams, by name.
    """

    process: int
    at: datetime
    actions: bool
    position: str
    upstreams: tuple[UpstreamStatus, ...]


def position_of(history: History) -> str:
    """Give the position of the last event: the process and the number of the event."""
    return f"{os.getpid()}-{history.last}"


def position_after(since: str) -> int:
    """Read a position; 0 for none, for one of another process, and for what is none."""
    match = _POSITION.fullmatch(since)
    return int(match[2]) if match and int(match[1]) == os.getpid() else 0


def status_report(runtime: Runtime, *, actions: bool) -> StatusReport:
    """Give the state of all upstreams of an app, sorted by name."""
    return StatusReport(
        process=os.getpid(),
        at=now(),
        actions=actions,
        position=position_of(runtime.history),
        upstreams=tuple(balancer.status() for _, balancer in sorted(runtime.balancers.items())),
    )


def events_report(history: History, number: int) -> EventsReport:
    """Give the events after the one with ``number``."""
    return EventsReport(
        process=os.getpid(),
        position=position_of(history),
        events=tuple(map(_event_report, history.after(number))),
    )


def _event_report(past: PastEvent) -> EventReport:
    event = past.event
    detail = event.detail()
    reason = event.reason if isinstance(event, DestinationDown | DestinationEjected) else ""
    return EventReport(
        at=past.at,
        kind=type(event).__name__,
        upstream=event.upstream,
        destination=event.destination,
        text=f"{event.text} ({detail})" if detail else event.text,
        reason=event.limit if isinstance(event, LimitHit) else reason,
    )
