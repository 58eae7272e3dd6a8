"""One live destination: its address, load, health and counts.

Weight, health, ejection and draining change only through the ``Pool``; load and counts change
with each exchange. Policies and the rules of health keep their own numbers elsewhere. The file
has no clock and no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from fastapi_proxy_di.settings import DestinationSettings
    from fastapi_proxy_di.wire.addresses import Address

__all__ = ["Destination", "DestinationState", "DynamicDestination"]

DestinationState: TypeAlias = Literal["available", "unhealthy", "ejected", "draining", "unprobed"]


class Destination:
    """One address of an upstream, with its live state.

    Attributes:
        settings: The settings of the destination.
        url: The normalised address.
        weight: Share of the traffic, relative to the other destinations; the weight of the
            settings, or less during slow start.
        tier: Lower tiers are used first.
        max_in_flight: Requests at once, ``None`` for no limit.
        max_requests: Requests per window, ``None`` for no limit.
        in_flight_limit: ``max_in_flight``, with infinity for no limit.
        window_limit: ``max_requests``, with infinity for no limit.
        metadata: The texts of the setting ``metadata``.
        in_flight: Requests and tunnels under way.
        requests_in_window: Requests begun in the current window of ``max_requests``.
        healthy: The result of active probes; true until one fails.
        latency_ms: Milliseconds the last good probe took, ``None`` before the first.
        ejected_until: Monotonic seconds at which the ejection ends, ``None`` if not ejected.
        awaits_probe: Whether the destination was added while the pool ran and has no probe result
            yet; it is used only if nothing else is available.
        cooling: Whether the destination asked for its ejection by ``Retry-After``; it is then not
            used in panic either.
        draining: Whether the destination takes no new requests and finishes the old ones.
        removed: Whether the destination has left its pool; it finishes its requests.
        successes: Exchanges since the last ejection that did not fail on the destination's side,
            counted when the response begins; a response that breaks off is taken out again.
        failures: Exchanges since the last ejection that failed on the destination's side.
        completed: Responses and tunnels since the last ejection that ended without a failure on
            the destination's side, also by the client.
        ejections: How often the destination was ejected.
        returns: How often the destination became healthy again or was readmitted.
    """

    __slots__ = (
        "_fallen",
        "_on_fall",
        "_on_room",
        "awaits_probe",
        "completed",
        "cooling",
        "draining",
        "ejected_until",
        "ejections",
        "failures",
        "healthy",
        "in_flight",
        "in_flight_limit",
        "latency_ms",
        "max_in_flight",
        "max_requests",
        "metadata",
        "removed",
        "requests_in_window",
        "returns",
        "settings",
        "successes",
        "tier",
        "url",
        "weight",
        "window_limit",
    )

    def __init__(self, settings: DestinationSettings) -> None:
        self.configure(settings)
        self.in_flight: int = 0
        self.requests_in_window: int = 0
        self.healthy: bool = True
        self.latency_ms: float | None = None
        self.ejected_until: float | None = None
        self.awaits_probe: bool = False
        self.cooling: bool = False
        self.draining: bool = False
        self.removed: bool = False
        self.successes: int = 0
        self.failures: int = 0
        self.completed: int = 0
        self.ejections: int = 0
        self.returns: int = 0
        self._fallen: set[Destination] | None = None
        self._on_room: Callable[[], None] | None = None
        self._on_fall: Callable[[Destination], None] | None = None

    def configure(self, settings: DestinationSettings) -> None:
        """Apply settings for the same address; counts and health stay."""
        self.settings: DestinationSettings = settings
        self.url: str = settings.url
        self.weight: float = settings.weight
        self.tier: int = settings.tier
        self.max_in_flight: int | None = settings.max_in_flight
        self.max_requests: int | None = settings.max_requests
        self.metadata: Mapping[str, str] = settings.metadata
        # Infinity instead of None, so that the check at the pick is one comparison.
        self.in_flight_limit: float = inf if self.max_in_flight is None else self.max_in_flight
        self.window_limit: float = inf if self.max_requests is None else self.max_requests

    def __repr__(self) -> str:
        flags = "".join(
            f" {word}"
            for word, on in (
                ("unhealthy", not self.healthy),
                ("ejected", self.ejected),
                ("draining", self.draining),
                ("removed", self.removed),
            )
            if on
        )
        return f"<Destination {self.url} in_flight={self.in_flight}{flags}>"

    @property
    def address(self) -> Address:
        """The parsed address, as the settings give it."""
        return self.settings.address

    @property
    def ejected(self) -> bool:
        """Whether the destination is ejected because of failures in live traffic."""
        return self.ejected_until is not None

    @property
    def available(self) -> bool:
        """Whether the destination may be picked: healthy, not ejected, not draining."""
        return self.healthy and self.ejected_until is None and not self.draining

    @property
    def state(self) -> DestinationState:
        """The state of the destination, the one that decides if it is in several."""
        if self.draining:
            return "draining"
        if self.ejected_until is not None:
            return "ejected"
        if not self.healthy:
            return "unhealthy"
        return "unprobed" if self.awaits_probe else "available"

    @property
    def full(self) -> bool:
        """Whether a limit of the destination leaves no room for another request now."""
        return (
            self.in_flight >= self.in_flight_limit or self.requests_in_window >= self.window_limit
        )

    def end(self) -> None:
        """Count the end of a request, whatever its outcome; ``Exchange`` counts its beginning."""
        self.in_flight -= 1
        if self._on_fall is not None:
            self._on_fall(self)

    def turn_window(self) -> None:
        """Begin a new window of ``max_requests``."""
        self.requests_in_window = 0
        if self._on_fall is not None:
            self._on_fall(self)

    def report_falls(self, fallen: set[Destination]) -> None:
        """Add this destination to ``fallen`` each time its load or its window falls.

        This is for a policy that keeps destinations ordered by load. Only the last given set
        is used.
        """
        self._fallen = fallen
        self._listen()

    def report_room(self, listener: Callable[[], None] | None) -> None:
        """Call ``listener`` each time the load or the window falls; for the queue."""
        self._on_room = listener
        self._listen()

    def _listen(self) -> None:
        """Make one callable of both reports, so that ``end`` has one check."""
        fallen, on_room = self._fallen, self._on_room
        if on_room is None:
            self._on_fall = None if fallen is None else fallen.add
            return

        def report(destination: Destination) -> None:
            if fallen is not None:
                fallen.add(destination)
            on_room()

        self._on_fall = report


class DynamicDestination(Destination):
    """A destination outside of any pool, at an address that code gave for a request.

    Its address may be one of many, so that no number that is kept for long is named by it.
    """

    __slots__ = ()
