"""Passive health: which destinations live traffic ejects, and for how long.

The file decides only: callers say what is a failure, and ``Pool.eject`` and ``Pool.readmit``
change the pool.

- A destination is ejected by ``consecutive`` failures in a row, or by ``failure_rate`` over
  ``window`` after at least ``minimum_requests``.
- There are two rows of failures. One counts failures before a response, and ends when a response
  begins: a stream of an hour shows at once that the destination serves. The other one counts
  responses that break off, and ends when a response ends without breaking off: its beginning
  says nothing, as a response that breaks off has begun well, too.
- An ejection lasts n times ``base_time``, at most ``max_time``. n grows with each ejection and
  falls by one for each ``base_time`` since the last ejection ended.
- At most ``max_share`` of the pool is ejected, but one destination always may be; the last
  available destination never is.
- A destination that fails while these limits forbid its ejection is ejected by its next failure
  after they allow it.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from fastapi_proxy_di.health.rolling import RollingCount, RollingTotal
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.pools.pool import Pool

if TYPE_CHECKING:
    from fastapi_proxy_di.settings import EjectionSettings

__all__ = ["EjectionRecord", "Ejector"]


class Ejector:
    """Decides on the ejections of one pool.

    Args:
        pool: The pool, whose destinations count successes and failures.
        settings: The limits. With ``enabled`` off nothing is ever ejected.
    """

    __slots__ = ("_pool", "_records", "_settings")

    def __init__(self, pool: Pool, settings: EjectionSettings) -> None:
        self._pool = pool
        self._settings = settings
        self._records: dict[Destination, EjectionRecord] = {}

    def configure(self, settings: EjectionSettings) -> None:
        """Decide by other settings from now on; a window of another length begins anew."""
        window = self._settings.window
        self._settings = settings
        if settings.window != window:
            for record in self._records.values():
                record.restart(settings.window)

    @property
    def settings(self) -> EjectionSettings:
        """The current settings."""
        return self._settings

    @property
    def tick_seconds(self) -> float:
        """Seconds between two calls of ``tick``."""
        return self._settings.window / 10

    @staticmethod
    def succeeded(destination: Destination) -> None:
        """Count an exchange that did not fail on the destination's side."""
        destination.successes += 1

    def failed(
        self, destination: Destination, now: float, *, broke_off: bool = False
    ) -> float | None:
        """Count a failure on the destination's side.

        Args:
            destination: The destination that failed.
            now: Monotonic seconds.
            broke_off: Whether a response broke off that had been counted as a success, which
                is then counted as a failure only.

        Returns:
            The end of the ejection, for ``Pool.eject``; ``None`` for no ejection.
        """
        settings = self._settings
        record = self._record(destination)
        if broke_off:
            if destination.successes:  # else its success is from before an ejection
                destination.successes -= 1
                record.broken_off += 1
            row = record.broken_row.extend(destination.completed)
        else:
            row = record.row.extend(destination.successes + record.broken_off)
        record.failures.add(now)
        failures = record.failures.read(now)
        # The success may be from before the window.
        record.successes.mark(now, destination.successes)
        successes = max(0.0, record.successes.read(now, destination.successes))
        destination.failures += 1
        if row < settings.consecutive and not self._rate_ejects(failures, successes):
            return None
        if not self._may_eject(destination):
            return None
        self._raise_level(record, now)
        record.ended_at = now + min(settings.base_time * record.level, settings.max_time)
        return record.ended_at

    def failing(self, destination: Destination, now: float) -> bool:
        """Tell whether the failures would eject the destination, if the limits allowed it.

        Args:
            destination: The destination.
            now: Monotonic seconds.
        """
        record = self._records.get(destination)
        if record is None or not self._settings.enabled:
            return False
        row = max(
            record.row.length(destination.successes + record.broken_off),
            record.broken_row.length(destination.completed),
        )
        successes = max(0.0, record.successes.read(now, destination.successes))
        return row >= self._settings.consecutive or self._rate_ejects(
            record.failures.read(now), successes
        )

    def follow(self, destination: Destination, until: float, now: float) -> float | None:
        """Decide on an ejection that other processes have decided on.

        ``max_share`` does not apply, as it was applied to all processes together.

        Args:
            destination: The destination.
            until: The end that they decided on, in monotonic seconds.
            now: Monotonic seconds.

        Returns:
            The end of the ejection, at most ``max_time`` from now; ``None`` for no ejection.
        """
        if not self._settings.enabled or (destination.available and len(self._pool.available) < 2):
            return None
        record = self._record(destination)
        if not destination.ejected:
            self._raise_level(record, now)
        record.ended_at = min(until, now + self._settings.max_time)
        return record.ended_at

    def cool_down(self, seconds: float, now: float) -> float | None:
        """Decide on the ``Retry-After`` of a 429 or 503.

        The destination has asked for it, so ``max_share`` does not apply, nor does the rule
        that the last available destination is never ejected.

        Args:
            seconds: The seconds of the header, more than 0.
            now: Monotonic seconds.

        Returns:
            The end of the time without requests, at most ``max_time`` from now; ``None`` unless
            ``respect_retry_after`` is on.
        """
        settings = self._settings
        if not settings.respect_retry_after or not settings.enabled:
            return None
        return now + min(seconds, settings.max_time)

    @staticmethod
    def ends_with_probe(destination: Destination) -> bool:
        """Tell whether a good probe ends the destination's ejection.

        False if the destination asked for the ejection by ``Retry-After``: it is healthy, but
        wants no requests yet.
        """
        return destination.ejected and not destination.cooling

    def readmitted(self, destination: Destination) -> None:
        """Begin new windows for a destination whose ejection has ended."""
        record = self._records.get(destination)
        if record is not None:
            record.restart(self._settings.window)

    def release(self, destination: Destination) -> EjectionRecord | None:
        """Give up the record of a destination that left the pool; ``None`` if there is none."""
        return self._records.pop(destination, None)

    def inherit(self, destination: Destination, record: EjectionRecord) -> None:
        """Go on with the record of a destination that had the same address."""
        self._records[destination] = record

    def tick(self, now: float) -> None:
        """Advance the windows to ``now``; must be called every ``tick_seconds``.

        Successes are counted without their time, which is cheap. Without ticks all successes
        before the first failure would count as recent.
        """
        for destination in [one for one in self._records if one.removed]:
            del self._records[destination]
        for destination in self._pool.destinations:
            self._record(destination).successes.mark(now, destination.successes)

    def expired(self, now: float) -> list[Destination]:
        """Give the destinations whose ejection is over, for ``Pool.readmit``."""
        return [
            destination
            for destination in self._pool.destinations
            if destination.ejected_until is not None and destination.ejected_until <= now
        ]

    def next_expiry(self) -> float | None:
        """Give the monotonic second at which the next ejection ends, ``None`` if none runs."""
        first = min(
            (
                destination.ejected_until
                for destination in self._pool.destinations
                if destination.ejected_until is not None
            ),
            default=inf,
        )
        return None if first == inf else first

    def _record(self, destination: Destination) -> EjectionRecord:
        record = self._records.get(destination)
        if record is None:
            self._records[destination] = record = EjectionRecord(self._settings.window)
        return record

    def _raise_level(self, record: EjectionRecord, now: float) -> None:
        level = record.level
        if level:
            good = max(0.0, now - record.ended_at)
            level = max(0, level - int(good / self._settings.base_time))
        record.level = level + 1

    def _rate_ejects(self, failures: int, successes: float) -> bool:
        settings, requests = self._settings, failures + successes
        return requests >= settings.minimum_requests and failures >= (
            settings.failure_rate * requests
        )

    def _may_eject(self, destination: Destination) -> bool:
        pool, settings = self._pool, self._settings
        if not settings.enabled or not destination.available or len(pool.available) < 2:
            return False
        ejected = sum(one.ejected for one in pool.destinations)
        return ejected < max(1, int(settings.max_share * len(pool.destinations)))


class EjectionRecord:
    """State of the ejection rules for one destination.

    Attributes:
        successes: Successes of the window.
        failures: Failures of the window.
        broken_off: Number of responses that began and broke off.
        row: The failures in a row before a response.
        broken_row: The responses in a row that broke off.
        level: Factor of the last ejection's length.
        ended_at: Monotonic seconds at which the last ejection was to end.
    """

    __slots__ = (
        "broken_off",
        "broken_row",
        "ended_at",
        "failures",
        "level",
        "row",
        "successes",
    )

    def __init__(self, window: float) -> None:
        self.level: int = 0
        self.ended_at: float = 0.0
        self.restart(window)

    def restart(self, window: float) -> None:
        """Forget the exchanges; the level stays."""
        self.successes: RollingTotal = RollingTotal(window)
        self.failures: RollingCount = RollingCount(window)
        self.broken_off: int = 0
        self.row: _Row = _Row()
        self.broken_row: _Row = _Row()


class _Row:
    """Failures in a row."""

    __slots__ = ("_good", "_length")

    def __init__(self) -> None:
        self._good = 0
        self._length = 0

    def extend(self, good: int) -> int:
        """Give the number of failures in a row, this one included.

        Args:
            good: A count that each good result raises. If it has changed since the last
                failure, a new row begins; so a good result needs no further work.
        """
        if good != self._good:
            self._good = good
            self._length = 0
        self._length += 1
        return self._length

    def length(self, good: int) -> int:
        """Give the number of failures in a row; 0 if ``good`` has changed since the last one."""
        return self._length if good == self._good else 0
