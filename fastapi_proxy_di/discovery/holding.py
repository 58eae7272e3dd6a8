"""Which list of destinations of one source is in use. Pure: callers pass the time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from fastapi_proxy_di.settings import DestinationSettings

__all__ = ["NOTHING_FOUND", "Holding"]

NOTHING_FOUND = "it has no destinations"


class Holding:
    """The list in use of one source, and its failures.

    - A list that is not empty is used until the next one.
    - While the source fails, the last list is used for ``keep`` seconds from the first failure.
    - An empty list is a failure; with ``on_empty="drop"`` the list is dropped at once.

    Attributes:
        destinations: The list in use.
        reason: Why the source fails, ``""`` while it does not.
        failures: Failures in a row that were exceptions.
        expires: Monotonic seconds at which the list is dropped, ``None`` while the source
            does not fail, or if there is no list.

    Args:
        keep: The setting ``discovery.keep``.
        on_empty: The setting ``discovery.on_empty``.
    """

    __slots__ = ("_failing_since", "_keep", "_on_empty", "destinations", "failures", "reason")

    def __init__(self, keep: float, on_empty: Literal["keep", "drop"]) -> None:
        self.destinations: tuple[DestinationSettings, ...] = ()
        self.reason: str = ""
        self.failures: int = 0
        self._keep = keep
        self._on_empty = on_empty
        self._failing_since = 0.0

    @property
    def expires(self) -> float | None:
        """Monotonic seconds at which the list is dropped."""
        return self._failing_since + self._keep if self.reason and self.destinations else None

    def found(self, destinations: Sequence[DestinationSettings], now: float) -> None:
        """Take a list that the source gave."""
        self.failures = 0
        if destinations:
            self.reason = ""
            self.destinations = tuple(destinations)
            return
        self._fail(NOTHING_FOUND, now)
        if self._on_empty == "drop":
            self.destinations = ()

    def failed(self, reason: str, now: float) -> None:
        """Take a failure of the source."""
        self.failures += 1
        self._fail(reason, now)

    def expire(self, now: float) -> bool:
        """Drop the list if its time is over; return whether it was dropped."""
        expires = self.expires
        if expires is None or now < expires:
            return False
        self.destinations = ()
        return True

    def _fail(self, reason: str, now: float) -> None:
        if not self.reason:
            self._failing_since = now
        self.reason = reason
        self.expire(now)
