"""What the status router gives as JSON."""

from __future__ import annotations

import os
import re
from asyncio import to_thread
from datetime import datetime
from typing import Any, ClassVar, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

from fastapi_proxy_di.integration.balancers import GivesBalancer, balancers_in_use
from fastapi_proxy_di.integration.mentions import overridden_upstreams
from fastapi_proxy_di.integration.runtime import Runtime
from fastapi_proxy_di.integration.shadowed import MountPaths
from fastapi_proxy_di.integration.status_page.process_reports import (
    ProcessReport,
    TotalsReport,
    process_reports,
    totals_report,
)
from fastapi_proxy_di.observability.changes import now
from fastapi_proxy_di.observability.history import History, PastEvent
from fastapi_proxy_di.supervision.events import DestinationDown, DestinationEjected, LimitHit
from fastapi_proxy_di.upstream.status import UpstreamStatus

__all__ = [
    "ActionReport",
    "AppliedReport",
    "EventReport",
    "EventsReport",
    "MountReport",
    "OverrideKind",
    "RouteReport",
    "StatusReport",
    "events_report",
    "position_after",
    "status_report",
    "totals_of",
]

OverrideKind: TypeAlias = Literal["stand_in", "function"]
"""What replaces an upstream in ``app.dependency_overrides``: a stand-in for tests, or another
dependency."""

_POSITION: Final = re.compile(r"(\d{1,20})-(\d{1,15})")


class _Report(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, defer_build=True)


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
        process: Id of the process that responded; each process has its own events only.
        position: What to ask for next, as ``since``.
        events: The events, the oldest first.
    """

    process: int
    position: str
    events: tuple[EventReport, ...]


class AppliedReport(_Report):
    """How many of the processes that share a store have applied a change.

    Attributes:
        applied: Processes that have.
        of: Processes that beat.
        missing: Host and process id of those that have not, within two seconds.
    """

    applied: int
    of: int
    missing: tuple[str, ...]


class ActionReport(UpstreamStatus):
    """The upstream after an action, in the process that responded.

    Attributes:
        processes: Which processes have applied the action; ``None`` if it is one of this process
            alone, or the store is lost.
    """

    processes: AppliedReport | None = None


class RouteReport(_Report):
    """A route of the app.

    Attributes:
        requests: Its methods, or ``HTTP`` for all of them, and ``WebSocket``; empty for a mounted
            application.
        path: Its path, or the host of a ``Host`` route.
    """

    requests: tuple[str, ...]
    path: str


class MountReport(_Report):
    """A mount of an upstream, and the routes of the app that have paths in it.

    Routes are compared by their paths. Routes that decide by something else are left out, and so
    are mounted FastAPI apps, which have upstreams of their own.

    Attributes:
        upstream: Name of the upstream.
        path: The path of the mount, without the app's ``root_path``; ``/`` for everything.
        host: The only host that the mount has requests for, as the ``Host`` route has it;
            ``None`` for all hosts.
        proxied: The methods that go to the upstream, or ``HTTP`` for all of them, and
            ``WebSocket``; empty if what stands before the mount takes everything.
        local: Routes in the mount that the app serves itself, because they stand before it.
        shadowed: Routes that get no requests, because the mount stands before them.
    """

    upstream: str
    path: str
    host: str | None
    proxied: tuple[str, ...]
    local: tuple[RouteReport, ...]
    shadowed: tuple[RouteReport, ...]


class StatusReport(_Report):
    """All upstreams at one moment.

    Attributes:
        process: Id of the process that responded; each process has its own state only.
        started: When the upstreams of this process were started.
        at: The moment.
        actions: Whether the router has actions.
        position: The position of the last event, for ``since``.
        upstreams: The upstreams, by name; a stand-in for tests in place of the upstream that it
            replaces.
        overridden: What replaces upstreams in ``app.dependency_overrides``: ``stand_in``, or
            ``function`` for any other dependency, whose state is not known.
        mounts: The mounts when the app started, in the order of its routes.
        processes: The processes that share ``cluster.store``, those that went missing first; none
            while the store is lost. ``None`` without a store.
    """

    process: int
    started: datetime
    at: datetime
    actions: bool
    position: str
    upstreams: tuple[UpstreamStatus, ...]
    overridden: dict[str, OverrideKind]
    mounts: tuple[MountReport, ...]
    processes: tuple[ProcessReport, ...] | None = None


def position_of(history: History) -> str:
    """Give the position of the last event: the start of the history, and the event's number."""
    return f"{_start_of(history)}-{history.last}"


def _start_of(history: History) -> int:
    # Not the id of the process, which in a container is the same after each restart.
    return int(history.started.timestamp() * 1e6)


def position_after(history: History, since: str) -> int:
    """Read a position; 0 for none, for one of another history, and for what is none."""
    match = _POSITION.fullmatch(since)
    return int(match[2]) if match and int(match[1]) == _start_of(history) else 0


async def status_report(app: Any, runtime: Runtime, *, actions: bool) -> StatusReport:
    """Give the state of all upstreams of an app, sorted by name.

    Args:
        app: The app.
        runtime: The runtime of the app.
        actions: Whether the router has actions.
    """
    balancers = sorted((await balancers_in_use(app)).items())
    cluster = runtime.cluster
    processes = None if cluster is None else process_reports(await cluster.processes())
    position = position_of(runtime.history)  # before the state, so that no event is missed
    # A thousand destinations take tens of milliseconds: other requests go on meanwhile.
    upstreams = await to_thread(lambda: tuple(balancer.status() for _, balancer in balancers))
    return StatusReport(
        process=os.getpid(),
        started=runtime.history.started,
        at=now(),
        actions=actions,
        position=position,
        upstreams=upstreams,
        overridden={
            name: "stand_in" if isinstance(override, GivesBalancer) else "function"
            for name, override in sorted(overridden_upstreams(app).items())
        },
        mounts=tuple(map(_mount_report, runtime.mounts)),
        processes=processes,
    )


async def totals_of(app: Any, runtime: Runtime, upstream: str) -> TotalsReport | None:
    """Give what all processes have counted of an upstream that runs here.

    ``None`` if no store is shared, or it does not have the totals at the moment.

    Args:
        app: The app.
        runtime: The runtime of the app.
        upstream: Name of the upstream.
    """
    balancer = (await balancers_in_use(app)).get(upstream)
    if balancer is None or runtime.cluster is None:
        return None
    rows = await runtime.cluster.rows(upstream)
    if rows is None:
        return None
    order = [one.url for one in balancer.destinations]
    return await to_thread(lambda: totals_report(upstream, rows, order))


def _mount_report(mount: MountPaths) -> MountReport:
    return MountReport(
        upstream=mount.upstream,
        path=mount.path,
        host=mount.host,
        proxied=mount.proxied,
        local=tuple(RouteReport(requests=one.requests, path=one.path) for one in mount.local),
        shadowed=tuple(RouteReport(requests=one.requests, path=one.path) for one in mount.shadowed),
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
