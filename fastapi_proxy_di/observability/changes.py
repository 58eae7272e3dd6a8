"""Remembers since when each destination of an upstream is in its state, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from fastapi_proxy_di.pools.destination import Destination, DestinationState
from fastapi_proxy_di.supervision.events import (
    DestinationDown,
    DestinationDraining,
    DestinationEjected,
    DestinationReadmitted,
    DestinationUndrained,
    DestinationUp,
    Event,
)

__all__ = ["Change", "Changes", "now"]

_STATES: Final[dict[type[Event], DestinationState]] = {
    DestinationDown: "unhealthy",
    DestinationDraining: "draining",
    DestinationEjected: "ejected",
    DestinationReadmitted: "available",
    DestinationUndrained: "available",
    DestinationUp: "available",
}
"""The state that an event begins. The destination may be in another one that decides, such as
draining."""


def now() -> datetime:
    """Give the time of day, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Change:
    """The beginning of a state.

    Attributes:
        at: When it began.
        reason: Why it began, ``""`` if there is nothing to say.
    """

    at: datetime
    reason: str = ""


class Changes:
    """The last changes of the destinations of one upstream.

    Args:
        upstream: Name of the upstream.
        clock: Gives the time of day.
    """

    def __init__(self, upstream: str, clock: Callable[[], datetime] = now) -> None:
        self._upstream: Final = upstream
        self._clock: Final = clock
        self._started: Final = Change(clock())
        self._added: dict[str, Change] = {}
        self._last: dict[str, dict[DestinationState, Change]] = {}
        self._removed: dict[Destination, Change] = {}

    def listen(self, event: Event) -> None:
        """Note the change of state that an event reports, if it reports one."""
        state = _STATES.get(type(event))
        if state is not None and event.upstream == self._upstream and event.destination:
            reason = event.reason if isinstance(event, DestinationDown | DestinationEjected) else ""
            last = self._last.setdefault(event.destination, {})
            last[state] = Change(self._clock(), reason)

    def replaced(self, added: Iterable[Destination], removed: Iterable[Destination]) -> None:
        """Note that destinations have joined and left the pool."""
        began = Change(self._clock())
        busy = {one: left for one, left in self._removed.items() if one.in_flight}
        self._removed = busy | dict.fromkeys(removed, Change(began.at, "removed"))
        for one in removed:
            self._last.pop(one.url, None)
            self._added.pop(one.url, None)
        for one in added:
            self._added[one.url] = began

    def of(self, destination: Destination) -> Change:
        """Give the beginning of the state that a destination is in, or when it was removed."""
        if destination.removed:
            return self._removed.get(destination, self._started)
        change = self._last.get(destination.url, {}).get(destination.state)
        return change or self._added.get(destination.url, self._started)
