"""Applies what was decided about a pool, and tells it: one event per change of state.

Owns the two timers that change a pool by themselves: the end of an ejection and the turn
of the ``max_requests`` window. The rules are in ``health``, the state in ``pools``; who
observed what is up to the callers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from fastapi_proxy_di.events import (
    DestinationDown,
    DestinationDraining,
    DestinationEjected,
    DestinationReadmitted,
    DestinationUndrained,
    DestinationUp,
    Event,
    Events,
    PanicEnded,
    PanicStarted,
)
from fastapi_proxy_di.health.ejection import Ejector
from fastapi_proxy_di.health.thresholds import Threshold
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.pools.pool import Pool
from fastapi_proxy_di.settings import DestinationSettings


class PoolKeeper:
    """The one who changes a running pool.

    Args:
        pool: The pool.
        ejector: Decides on ejections.
        threshold: Decides on what probes say.
        events: Where changes are told.
        window: Seconds of ``max_requests``; ``None`` when nothing counts by the window.
    """

    def __init__(
        self,
        pool: Pool,
        ejector: Ejector,
        threshold: Threshold,
        events: Events,
        *,
        window: float | None,
    ) -> None:
        self.pool = pool
        self.requests_in_window = 0
        self._ejector = ejector
        self._threshold = threshold
        self._events = events
        self._window = window
        self._loop = asyncio.get_running_loop()
        self._panic = pool.panic
        self._readmission: asyncio.TimerHandle | None = None
        self._turn: asyncio.TimerHandle | None = None
        if window is not None:
            self._turn = self._loop.call_later(window, self._turn_window)

    def failed(self, destination: Destination, reason: str) -> None:
        """Count a failure on the destination's side."""
        now = self._loop.time()
        self._eject(destination, self._ejector.failed(destination, now), now, reason)

    def cool_down(self, destination: Destination, seconds: float) -> None:
        """The destination asked, by Retry-After, to be left alone for ``seconds``."""
        now = self._loop.time()
        self._eject(
            destination, self._ejector.cool_down(destination, seconds, now), now, "retry_after"
        )

    def probed(
        self, destination: Destination, ok: bool, latency_ms: float | None, reason: str
    ) -> None:
        """Take in one probe's result."""
        if latency_ms is not None:
            destination.latency_ms = latency_ms
        if ok and self.pool.readmit(destination):
            self._tell(DestinationReadmitted(self.pool.name, destination.url))
        if self._threshold.observe(destination, ok) and self.pool.set_health(destination, ok):
            name, url = self.pool.name, destination.url
            self._tell(DestinationUp(name, url) if ok else DestinationDown(name, url, reason))

    def drain(self, destination: Destination) -> bool:
        """No new requests for ``destination``; true if that is a change."""
        changed = self.pool.drain(destination)
        if changed:
            self._tell(DestinationDraining(self.pool.name, destination.url))
        return changed

    def undrain(self, destination: Destination) -> bool:
        """Requests for ``destination`` again; true if that is a change."""
        changed = self.pool.undrain(destination)
        if changed:
            self._tell(DestinationUndrained(self.pool.name, destination.url))
        return changed

    def replace(
        self, settings: Iterable[DestinationSettings]
    ) -> tuple[tuple[Destination, ...], tuple[Destination, ...]]:
        """Make ``settings`` the pool's destinations; gives those added and those removed."""
        added, removed = self.pool.replace(settings)
        for destination in removed:
            self._tell(DestinationDraining(self.pool.name, destination.url))
        self._tell_panic()
        return added, removed

    def close(self) -> None:
        """Stop the timers."""
        for timer in (self._readmission, self._turn):
            if timer is not None:
                timer.cancel()
        self._readmission = self._turn = None

    def _eject(
        self, destination: Destination, until: float | None, now: float, reason: str
    ) -> None:
        if until is not None and self.pool.eject(destination, until):
            self._tell(DestinationEjected(self.pool.name, destination.url, until - now, reason))
            self._await_readmission()

    def _await_readmission(self) -> None:
        if self._readmission is not None:
            self._readmission.cancel()
            self._readmission = None
        expiry = self._ejector.next_expiry()
        if expiry is not None:
            self._readmission = self._loop.call_at(expiry, self._readmit)

    def _readmit(self) -> None:
        self._readmission = None
        # The loop's clock may be a hair early; what expires within it is over.
        for destination in self._ejector.expired(self._loop.time() + 0.001):
            self.pool.readmit(destination)
            self._tell(DestinationReadmitted(self.pool.name, destination.url))
        self._await_readmission()

    def _turn_window(self) -> None:
        assert self._window is not None
        self.requests_in_window = 0
        self.pool.turn_window()
        self._turn = self._loop.call_later(self._window, self._turn_window)

    def _tell(self, event: Event) -> None:
        self._events.emit(event)
        self._tell_panic()

    def _tell_panic(self) -> None:
        if self.pool.panic != self._panic:
            self._panic = self.pool.panic
            name = self.pool.name
            self._events.emit(PanicStarted(name) if self._panic else PanicEnded(name))
