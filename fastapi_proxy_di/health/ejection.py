"""Passive health: which destinations live traffic ejects, and for how long.

The file decides only: callers say what is a failure, and ``Pool.eject`` and ``Pool.readmit``
change the pool.

- A destination is ejected by ``consecutive`` failures in a row, or by ``failure_rate`` over
  ``window`` after at least ``minimum_requests``.
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

__all__ = ["Ejector"]


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
        self._records: dict[Destination, _Record] = {}

    @property
    def tick_seconds(self) -> float:
        """Seconds between two calls of ``tick``."""
        return self._settings.window / 10

    @staticmethod
    def succeeded(destination: Destination) -> None:
        """Count an exchange that did not fail on the destination's side."""
        destination.successes += 1

    def failed(self, destination: Destination, now: float) -> float | None:
        """Count a failure on the destination's side.

        Args:
            destination: The destination that failed.
            now: Monotonic seconds.

        Returns:
            The end of the ejection, for ``Pool.eject``; ``None`` for no ejection.
        """
        settings = self._settings
        record = self._record(destination)
        record.failures.add(now)
        failures = record.failures.read(now)
        requests = failures + record.successes.read(now, destination.successes)
        destination.failures += 1
        run = record.extend_run(destination.successes)
        if run < settings.consecutive and (
            requests < settings.minimum_requests or failures < settings.failure_rate * requests
        ):
            return None
        if not self._may_eject(destination):
            return None
        level = record.level
        if level:
            good = max(0.0, now - record.ended_at)
            level = max(0, level - int(good / settings.base_time))
        record.level = level + 1
        record.ended_at = now + min(settings.base_time * (level + 1), settings.max_time)
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

    def tick(self, now: float) -> None:
        """Advance the windows to ``now``; must be called every ``tick_seconds``.

        Successes are counted without their time, which is cheap. Without ticks all successes
        before the first failure would count as recent.
        """
        for destination in [one for one in self._records if one.removed]:
            del self._records[destination]
        for destination in self._pool.destinations:
            self._record(destination).successes.read(now, destination.successes)

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

    def _record(self, destination: Destination) -> _Record:
        record = self._records.get(destination)
        if record is None:
            self._records[destination] = record = _Record(self._settings.window)
        return record

    def _may_eject(self, destination: Destination) -> bool:
        pool, settings = self._pool, self._settings
        if not settings.enabled or not destination.available or len(pool.available) < 2:
            return False
        ejected = sum(one.ejected for one in pool.destinations)
        return ejected < max(1, int(settings.max_share * len(pool.destinations)))


class _Record:
    """State of the ejection rules for one destination.

    Attributes:
        successes: Successes of the window.
        failures: Failures of the window.
        level: Factor of the last ejection's length.
        ended_at: Monotonic seconds at which the last ejection was to end.
    """

    __slots__ = (
        "_run",
        "_successes_before_run",
        "ended_at",
        "failures",
        "level",
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
        self._run = 0
        self._successes_before_run = 0

    def extend_run(self, successes: int) -> int:
        """Give the number of failures in a row, this one included.

        Args:
            successes: Number of successes of the destination. If it has grown since the last
                failure, a new run begins; so a success itself needs no further work.
        """
        if successes != self._successes_before_run:
            self._successes_before_run = successes
            self._run = 0
        self._run += 1
        return self._run
