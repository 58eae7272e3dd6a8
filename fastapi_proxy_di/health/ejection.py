"""Passive health: which destinations live traffic takes out, and for how long.

Owns: the rules. Must not know: what a failure is (the forwarder tells), timers, logs.
It decides and counts; ``Pool.eject`` and ``Pool.readmit`` act.

- Out by ``consecutive`` failures in a row, or by ``failure_rate`` over ``window`` once there
  were ``minimum_requests``.
- Out for n times ``base_time``, at most ``max_time``. n grows with each ejection and falls by
  one for each ``base_time`` that the destination stayed in since.
- At most ``max_share`` of the pool, though one may always go; never the last one available.
- What fails while it cannot be ejected is ejected by its next failure that finds room.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.pools.pool import Pool
from fastapi_proxy_di.pools.rolling import RollingCount, RollingTotal

if TYPE_CHECKING:
    from fastapi_proxy_di.settings import EjectionSettings

__all__ = ["Ejector"]


class Ejector:
    """Decides on the ejections of one pool.

    Args:
        pool: The pool, whose destinations carry the counts.
        settings: The limits. With ``enabled`` off nothing is ever ejected.
    """

    __slots__ = ("_pool", "_settings")

    def __init__(self, pool: Pool, settings: EjectionSettings) -> None:
        self._pool = pool
        self._settings = settings

    @property
    def tick_seconds(self) -> float:
        """Seconds between two calls of ``tick``."""
        return self._settings.window / 10

    @staticmethod
    def succeeded(destination: Destination) -> None:
        """Count an exchange that went well."""
        destination.successes += 1
        destination.consecutive_failures = 0

    def failed(self, destination: Destination, now: float) -> float | None:
        """Count a failure on the destination's side.

        Args:
            destination: Where it happened.
            now: Monotonic seconds.

        Returns:
            Until when to eject it, for ``Pool.eject``; ``None`` to leave it in.
        """
        settings = self._settings
        successes, recent = self._history(destination)
        recent.add(now)
        failures = recent.read(now)
        requests = failures + successes.read(now, destination.successes)
        destination.failures += 1
        destination.consecutive_failures += 1
        if destination.consecutive_failures < settings.consecutive and (
            requests < settings.minimum_requests or failures < settings.failure_rate * requests
        ):
            return None
        if not self._may_go(destination):
            return None
        level = destination.ejection_level
        if level:
            good = max(0.0, now - destination.ejection_ended_at)
            level = max(0, level - int(good / settings.base_time))
        destination.ejection_level = level + 1
        return now + min(settings.base_time * (level + 1), settings.max_time)

    def tick(self, now: float) -> None:
        """Tell the windows the time. Call it every ``tick_seconds``.

        Successes carry no time, so that counting them costs next to nothing. Without ticks
        those before the first failure are taken to have happened just then.
        """
        for destination in self._pool.destinations:
            self._history(destination)[0].read(now, destination.successes)

    def cool_down(self, destination: Destination, seconds: float, now: float) -> float | None:
        """Honour the ``Retry-After`` of a 429 or 503 as a wish to be left alone.

        Returns:
            Until when to eject it, at most ``max_time`` from now; ``None`` to leave it in,
            always so unless ``respect_retry_after`` is on.
        """
        if not self._settings.respect_retry_after or seconds <= 0 or not self._may_go(destination):
            return None
        return now + min(seconds, self._settings.max_time)

    def expired(self, now: float) -> list[Destination]:
        """Give those whose ejection is over, for ``Pool.readmit``."""
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

    def _history(self, destination: Destination) -> tuple[RollingTotal, RollingCount]:
        history = destination.history
        if history is None:
            window = self._settings.window
            destination.history = history = (RollingTotal(window), RollingCount(window))
        return history

    def _may_go(self, destination: Destination) -> bool:
        pool, settings = self._pool, self._settings
        if not settings.enabled or not destination.available or len(pool.available) < 2:
            return False
        out = sum(one.ejected_until is not None for one in pool.destinations)
        return out < max(1, int(settings.max_share * len(pool.destinations)))
