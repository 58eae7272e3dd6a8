"""Events: one per change of an upstream's state, for subscribers and the log.

The log records go to the loggers ``fastapi_proxy_di.health`` (up, down, ejected, readmitted,
panic), ``fastapi_proxy_di.pools`` (draining) and ``fastapi_proxy_di.limits``, with ``upstream``
and ``destination`` as extra attributes. A recovery has the level of its loss, so that a log of
warnings tells of both.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

__all__ = [
    "DestinationDown",
    "DestinationDraining",
    "DestinationEjected",
    "DestinationReadmitted",
    "DestinationUndrained",
    "DestinationUp",
    "EgressSuspected",
    "Event",
    "Events",
    "LimitHit",
    "PanicEnded",
    "PanicStarted",
    "ReloadFailed",
    "Reloaded",
    "StoreBack",
    "StoreLost",
]

_logger = logging.getLogger("fastapi_proxy_di.events")


@dataclass(frozen=True, slots=True)
class Event:
    """A change of state.

    Attributes:
        upstream: Name of the upstream.
        destination: Address of the destination, ``None`` for an event of the whole upstream.
    """

    upstream: str
    destination: str | None = None

    part: ClassVar[str] = "health"
    level: ClassVar[int] = logging.INFO
    text: ClassVar[str] = ""

    def detail(self) -> str:
        """The text that the log record adds in parentheses, ``""`` for none."""
        return ""


class DestinationUp(Event):
    """Probes made a destination healthy."""

    __slots__ = ()

    level: ClassVar[int] = logging.WARNING
    text: ClassVar[str] = "is up"


@dataclass(frozen=True, slots=True)
class DestinationDown(Event):
    """Probes made a destination unhealthy.

    Attributes:
        reason: Why the last probe failed, e.g. ``"status 503"``.
    """

    reason: str = ""
    level: ClassVar[int] = logging.WARNING
    text: ClassVar[str] = "is down"

    def detail(self) -> str:
        """The reason."""
        return self.reason


@dataclass(frozen=True, slots=True)
class DestinationEjected(Event):
    """Live traffic led to the ejection of a destination.

    Attributes:
        seconds: How long the ejection lasts.
        reason: The last failure, e.g. ``"response_head"``.
    """

    seconds: float = 0.0
    reason: str = ""
    level: ClassVar[int] = logging.WARNING
    text: ClassVar[str] = "is ejected"

    def detail(self) -> str:
        """The duration and the reason."""
        return f"for {self.seconds:g} s" + (f": {self.reason}" if self.reason else "")


@dataclass(frozen=True, slots=True)
class DestinationReadmitted(Event):
    """An ejection ended.

    Attributes:
        reason: Why, e.g. ``"a good probe"``.
    """

    reason: str = ""
    level: ClassVar[int] = logging.WARNING
    text: ClassVar[str] = "is readmitted"

    def detail(self) -> str:
        """The reason."""
        return self.reason


class DestinationDraining(Event):
    """A destination takes no new requests."""

    __slots__ = ()

    part: ClassVar[str] = "pools"
    text: ClassVar[str] = "is draining"


class DestinationUndrained(Event):
    """A draining destination takes requests again."""

    __slots__ = ()

    part: ClassVar[str] = "pools"
    text: ClassVar[str] = "takes requests again"


class PanicStarted(Event):
    """No destination is available, so all are used rather than none."""

    __slots__ = ()

    level: ClassVar[int] = logging.WARNING
    text: ClassVar[str] = "has no available destination; all are used"


class PanicEnded(Event):
    """A destination is available again."""

    __slots__ = ()

    level: ClassVar[int] = logging.WARNING
    text: ClassVar[str] = "has an available destination again"


@dataclass(frozen=True, slots=True)
class EgressSuspected(Event):
    """Requests of this process fail at more than half of the destinations.

    Its own network may be broken, so its votes to eject destinations in all processes do not count.

    Attributes:
        process: The process.
    """

    process: str = ""
    part: ClassVar[str] = "cluster"
    level: ClassVar[int] = logging.WARNING
    text: ClassVar[str] = (
        "fails this process at more than half of its destinations;"
        " the votes of this process do not count"
    )

    def detail(self) -> str:
        """The process."""
        return self.process


@dataclass(frozen=True, slots=True)
class LimitHit(Event):
    """A limit of the settings began to refuse requests.

    Attributes:
        limit: The setting, e.g. ``"limits.max_in_flight"``.
    """

    limit: str = ""
    part: ClassVar[str] = "limits"
    level: ClassVar[int] = logging.WARNING
    text: ClassVar[str] = "is at its limit"

    def detail(self) -> str:
        """The setting."""
        return self.limit


@dataclass(frozen=True, slots=True)
class Reloaded(Event):
    """Changed settings are in force.

    Attributes:
        changed: The fields that have changed, e.g. ``"timeouts.connect"``.
        stayed: The fields whose value in a file has changed, each with the source that sets it
            before the file.
    """

    changed: tuple[str, ...] = ()
    stayed: tuple[tuple[str, str], ...] = ()
    part: ClassVar[str] = "reload"
    text: ClassVar[str] = "has reloaded its settings"

    def detail(self) -> str:
        """The fields."""
        stayed = [f"{field}, which {source} sets" for field, source in self.stayed]
        parts = [
            f"changed: {', '.join(self.changed) or 'none'}",
            *([f"not changed: {'; '.join(stayed)}"] if stayed else ()),
        ]
        return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class ReloadFailed(Event):
    """Changed settings have faults, so the last good ones stay in force.

    The faults are in one record of the level ERROR, together for all upstreams of the app.

    Attributes:
        faults: The faults of all upstreams and of the app, as texts.
    """

    faults: tuple[str, ...] = ()
    part: ClassVar[str] = "reload"
    level: ClassVar[int] = logging.DEBUG
    text: ClassVar[str] = "keeps its settings, because the new ones have faults"


@dataclass(frozen=True, slots=True)
class StoreLost(Event):
    """The store that the processes of the app share cannot be reached; each goes on by itself.

    The log has one record of the level WARNING, together for all upstreams of the app.

    Attributes:
        reason: Why, e.g. ``"no response within 0.05 s"``.
    """

    reason: str = ""
    part: ClassVar[str] = "cluster"
    level: ClassVar[int] = logging.DEBUG
    text: ClassVar[str] = "has lost the store"

    def detail(self) -> str:
        """The reason."""
        return self.reason


class StoreBack(Event):
    """The store can be reached again, and the processes agree again."""

    __slots__ = ()

    part: ClassVar[str] = "cluster"
    level: ClassVar[int] = logging.DEBUG
    text: ClassVar[str] = "has the store again"


class Events:
    """Emits events to subscribers and to the log. One per app."""

    __slots__ = ("_listeners",)

    def __init__(self) -> None:
        self._listeners: tuple[Callable[[Event], object], ...] = ()

    def subscribe(self, listener: Callable[[Event], object]) -> Callable[[], None]:
        """Call ``listener`` with each event, in the event loop, so it must not block.

        Returns:
            A function that ends the subscription; calling it again does nothing.
        """

        # A new function for each subscription, so that one listener may subscribe twice.
        def called(event: Event) -> object:
            return listener(event)

        self._listeners = (*self._listeners, called)

        def unsubscribe() -> None:
            self._listeners = tuple(one for one in self._listeners if one is not called)

        return unsubscribe

    def emit(self, event: Event) -> None:
        """Log the event and call all listeners; log the exception of a listener that raises."""
        logger = logging.getLogger(f"fastapi_proxy_di.{event.part}")
        if logger.isEnabledFor(event.level):
            detail = event.detail()
            logger.log(
                event.level,
                "%s %s%s",
                event.upstream
                if event.destination is None
                else f"{event.upstream}: {event.destination}",
                event.text,
                f" ({detail})" if detail else "",
                extra={"upstream": event.upstream, "destination": event.destination},
            )
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                _logger.exception(
                    "a listener failed on %s",
                    type(event).__name__,
                    extra={"upstream": event.upstream, "destination": event.destination},
                )
