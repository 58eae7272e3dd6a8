"""Applies decisions to a pool and emits one event per change of its state.

Long because each change of a pool has its method here, those that other processes decided too.

The supervisor has the timers that change a pool: the end of an ejection, the turn of the
``max_requests`` window, the steps of slow start, the ticks of the ejection windows. They have an
empty context, because a request may start one and end before it. The rules are in ``health``, the
state is in ``pools``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from contextvars import Context
from typing import Final, Protocol

from fastapi_proxy_di.health.departed import Departed
from fastapi_proxy_di.health.ejection import Ejector
from fastapi_proxy_di.health.slow_start import SlowStart
from fastapi_proxy_di.health.thresholds import Threshold
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.pools.pool import Pool
from fastapi_proxy_di.settings import DestinationSettings, EjectionSettings
from fastapi_proxy_di.supervision.events import (
    DestinationDown,
    DestinationDraining,
    DestinationEjected,
    DestinationReadmitted,
    DestinationUndrained,
    DestinationUp,
    Event,
    Events,
    LimitHit,
    PanicEnded,
    PanicStarted,
)

LIMIT_QUIET_SECONDS: Final = 10.0
"""How long a limit must not be hit before its next hit is an event again. At saturation a limit
is hit all the time; an event for each hit would hide all others."""


class EjectionSharing(Protocol):
    """Learns what a process finds out about ejections by itself, to tell other processes."""

    def failing(self, destination: Destination, reason: str) -> None:
        """Take that the failures of a destination are enough to eject it.

        Called at each failure from then on, also if ``max_share`` or another limit forbids the
        ejection.
        """

    def cooling(self, destination: Destination, seconds: float) -> None:
        """Take that a destination has asked for ``seconds`` without requests."""

    def readmitted(self, destination: Destination, reason: str) -> None:
        """Take that a good probe or an operator has ended the ejection of a destination."""


class NotShared:
    """Tells nobody."""

    __slots__ = ()

    def failing(self, destination: Destination, reason: str) -> None:
        """Do nothing."""

    def cooling(self, destination: Destination, seconds: float) -> None:
        """Do nothing."""

    def readmitted(self, destination: Destination, reason: str) -> None:
        """Do nothing."""


class Supervisor:
    """Changes a running pool.

    Args:
        pool: The pool.
        ejector: Decides on ejections.
        threshold: Decides on health from probe results.
        slow_start: Decides on the weights of destinations that become available again.
        events: Emits the events.
        window: Seconds of the window of ``max_requests``.
        keep: Seconds that the health of a removed destination is remembered.

    Attributes:
        pool: The pool.
        threshold: Decides on health from probe results; its limits may be changed.
        requests_in_window: Requests of the whole upstream in the current window.
        sharing: Tells other processes of ejections.
    """

    def __init__(
        self,
        pool: Pool,
        ejector: Ejector,
        threshold: Threshold,
        slow_start: SlowStart,
        events: Events,
        *,
        window: float,
        keep: float = 300.0,
    ) -> None:
        self.pool = pool
        self.threshold = threshold
        self.requests_in_window: int = 0
        self.sharing: EjectionSharing = NotShared()
        self._ejector = ejector
        self._departed = Departed(ejector, keep)
        self._slow_start = slow_start
        self._events = events
        self._window = window
        self._loop = asyncio.get_running_loop()
        self._panic = pool.panic
        self._refused_at: dict[tuple[Destination | None, str], float] = {}
        self._readmission: asyncio.TimerHandle | None = None
        self._ramp: asyncio.TimerHandle | None = None
        self._turn = self._later(window, self._turn_window)
        self._tick = self._later(ejector.tick_seconds, self._mark)

    def failed(self, destination: Destination, reason: str, *, broke_off: bool = False) -> None:
        """Count a failure on the destination's side.

        Args:
            destination: The destination that failed.
            reason: The name of the failure, for the event.
            broke_off: Whether a response broke off whose beginning was counted as a success.
        """
        now = self._loop.time()
        until = self._ejector.failed(destination, now, broke_off=broke_off)
        self._eject(destination, until, now, reason)
        if self._ejector.failing(destination, now):
            self.sharing.failing(destination, reason)

    def failing(self, destination: Destination) -> bool:
        """Tell whether failures would eject the destination, if the limits allowed it."""
        return self._ejector.failing(destination, self._loop.time())

    def cool_down(self, destination: Destination, seconds: float) -> None:
        """Eject a destination whose Retry-After asks for ``seconds`` without requests."""
        if self._cool_down(destination, seconds, "retry_after"):
            self.sharing.cooling(destination, seconds)

    def probed(
        self, destination: Destination, ok: bool, latency_ms: float | None, reason: str
    ) -> None:
        """Apply the result of one probe, unless its destination has left the pool meanwhile.

        Args:
            destination: The destination that was probed.
            ok: Whether the probe was good.
            latency_ms: Milliseconds that the probe took, ``None`` if it failed.
            reason: Why the probe failed, ``""`` if it was good.
        """
        if destination.removed:
            return
        if latency_ms is not None:
            destination.latency_ms = latency_ms
        if ok and self._ejector.ends_with_probe(destination):
            self._readmit(destination, "a good probe")
            self.sharing.readmitted(destination, "a good probe")
        if self.threshold.observe(destination, ok):
            self._set_health(destination, ok, reason)
        self.pool.probed(destination)

    def unprobed(self) -> None:
        """Forget all probe results and mark all destinations healthy, because probes are off."""
        self.threshold.forget(self.pool.destinations)
        for destination in self.pool.destinations:
            self._set_health(destination, True, "")
            self.pool.probed(destination)

    def drain(self, destination: Destination) -> bool:
        """Drain ``destination``; return whether that is a change."""
        changed = self.pool.drain(destination)
        if changed:
            self._emit(DestinationDraining(self.pool.name, destination.url))
        return changed

    def undrain(self, destination: Destination) -> bool:
        """Undrain ``destination``; return whether that is a change."""
        changed = self.pool.undrain(destination)
        if changed:
            self._emit(DestinationUndrained(self.pool.name, destination.url))
        return changed

    def readmit(self, destination: Destination) -> bool:
        """End the ejection of ``destination``; return whether that is a change."""
        changed = destination.ejected
        if changed:
            self._readmit(destination, "asked for")
            self._await_readmission()
        self.sharing.readmitted(destination, "asked for")
        return changed

    def follow_health(
        self, destination: Destination, healthy: bool, latency_ms: float | None, reason: str
    ) -> None:
        """Apply the health that another process has found by probes.

        Args:
            destination: The destination.
            healthy: Whether it is healthy. If that is a change, it ends an ejection as well.
            latency_ms: Milliseconds that the last good probe took, ``None`` if not known.
            reason: Why the last probe failed, ``""`` if it was good.
        """
        if destination.removed:
            return
        if latency_ms is not None:
            destination.latency_ms = latency_ms
        if healthy and not destination.healthy and self._ejector.ends_with_probe(destination):
            self._readmit(destination, "a good probe of another process")
        self.threshold.follow(destination)
        self._set_health(destination, healthy, reason)
        self.pool.probed(destination)

    def follow_ejection(self, destination: Destination, seconds: float, reason: str) -> None:
        """Apply an ejection that several processes have decided on.

        Args:
            destination: The destination.
            seconds: How long it lasts; also if it is ejected for another time already.
            reason: Why, for the event.
        """
        now = self._loop.time()
        if destination.removed or destination.cooling:
            return
        until = self._ejector.follow(destination, now + seconds, now)
        if until is not None and destination.ejected:
            self.pool.move_ejection(destination, until)
            self._await_readmission()
        else:
            self._eject(destination, until, now, reason)

    def follow_cool_down(self, destination: Destination, seconds: float) -> None:
        """Apply that a destination has asked another process for ``seconds`` without requests."""
        self._cool_down(destination, seconds, "retry_after, seen by another process")

    def follow_readmission(self, destination: Destination, reason: str) -> None:
        """Apply that another process has ended the ejection of ``destination``."""
        if destination.ejected:
            self._readmit(destination, reason)
            self._await_readmission()

    def replace(
        self,
        settings: Iterable[DestinationSettings],
        *,
        found: Collection[str] = (),
        await_probe: bool = False,
    ) -> tuple[tuple[Destination, ...], tuple[Destination, ...]]:
        """Make ``settings`` the pool's destinations; return the added and the removed ones.

        An address that was removed not long ago comes back with its ejection and health, and
        drained as it was if a source found it. An address that stays is still drained, also if
        its ``host`` changes and it is another destination therefore.

        Args:
            settings: The settings of each destination.
            found: Addresses of the destinations that sources found.
            await_probe: Whether added destinations get no request before their first probe,
                unless nothing else is available.
        """
        drained = {destination for destination in self.pool.destinations if destination.draining}
        still_drained = {destination.url for destination in drained}
        now = self._loop.time()

        def restore(fresh: Destination) -> None:
            self._departed.restore(fresh, now, found=fresh.url in found)
            fresh.draining |= fresh.url in still_drained

        added, removed = self.pool.replace(settings, await_probe=await_probe, restore=restore)
        self._departed.note(removed, drained, now)
        self._await_readmission()
        for destination in removed:
            if destination not in drained:
                self._emit(DestinationDraining(self.pool.name, destination.url))
        self.threshold.forget(removed)
        for key in [key for key in self._refused_at if key[0] in removed]:
            del self._refused_at[key]
        self._apply_ramp()  # destinations that stay just got the full weight of their settings
        self._emit_panic()
        return added, removed

    def limit_hit(self, limit: str, destination: Destination | None = None) -> bool:
        """Report that a limit refused a request, or that ``destination`` was full at a pick.

        Emits an event once, and again after ``LIMIT_QUIET_SECONDS`` without a hit.

        Args:
            limit: The setting, e.g. ``"limits.max_in_flight"``.
            destination: The destination that has the limit, ``None`` for the upstream.

        Returns:
            Whether the event was emitted.
        """
        now = self._loop.time()
        before = self._refused_at.get((destination, limit))
        self._refused_at[(destination, limit)] = now
        if before is not None and now - before < LIMIT_QUIET_SECONDS:
            return False
        url = None if destination is None else destination.url
        self._emit(LimitHit(self.pool.name, url, limit))
        return True

    def limits_reached(self, full: Iterable[Destination]) -> None:
        """Report the destinations that a pick found full, each with the limit it is at."""
        for destination in full:
            at_once = destination.in_flight >= destination.in_flight_limit
            self.limit_hit("max_in_flight" if at_once else "max_requests", destination)

    @property
    def ejection(self) -> EjectionSettings:
        """The current settings of ejections."""
        return self._ejector.settings

    @property
    def cooling_left(self) -> float | None:
        """Seconds until the first destination wants requests again.

        ``None`` unless every destination that is not draining asked for time without requests.
        """
        asked = [one for one in self.pool.destinations if not one.draining]
        if not asked or not all(one.cooling for one in asked):
            return None
        first = min(one.ejected_until or 0.0 for one in asked)
        return max(0.0, first - self._loop.time())

    def cooling_seconds(self, destination: Destination) -> float | None:
        """Seconds that a destination still wants no requests; ``None`` if it asked for none."""
        if not destination.cooling or destination.ejected_until is None:
            return None
        return max(0.0, destination.ejected_until - self._loop.time())

    @property
    def window(self) -> float:
        """Seconds between two turns of the window of ``max_requests``."""
        return self._window

    @property
    def window_left(self) -> float:
        """Seconds until the window of ``max_requests`` turns."""
        return max(0.0, self._turn.when() - self._loop.time())

    def set_window(self, seconds: float) -> None:
        """Turn the window of ``max_requests`` every ``seconds``, from now on."""
        if seconds != self._window:
            self._window = seconds
            self._turn.cancel()
            self._turn = self._later(seconds, self._turn_window)

    def configure(
        self, ejection: EjectionSettings, slow_start: float, *, panic: bool, keep: float
    ) -> None:
        """Change the pool by other settings from now on.

        Args:
            ejection: When destinations are ejected. If it is off, those that are ejected are
                readmitted.
            slow_start: Seconds until a destination that comes back has its full weight.
            panic: Whether all destinations are used if none is available.
            keep: Seconds that the health of a removed destination is remembered.
        """
        self._departed.keep(keep)
        self._ejector.configure(ejection)
        self._tick.cancel()
        self._mark()
        self._slow_start.configure(slow_start)
        self._apply_ramp()
        if not ejection.enabled:
            for destination in self.pool.destinations:
                if destination.ejected:
                    self._readmit(destination, "ejection is turned off")
            self._await_readmission()
        self.pool.allow_panic(panic)
        self._emit_panic()

    def close(self) -> None:
        """Stop the timers of the pool."""
        for timer in (self._readmission, self._ramp, self._turn, self._tick):
            if timer is not None:
                timer.cancel()
        self._readmission = self._ramp = None

    def _cool_down(self, destination: Destination, seconds: float, reason: str) -> bool:
        """Eject a destination that asks for it; return whether that changes its end."""
        now = self._loop.time()
        until = self._ejector.cool_down(seconds, now)
        was_cooling = destination.cooling
        if until is None or destination.removed or not self.pool.cool_down(destination, until):
            return False
        self._await_readmission()
        if not was_cooling:
            self._emit(DestinationEjected(self.pool.name, destination.url, until - now, reason))
        return True

    def _eject(
        self, destination: Destination, until: float | None, now: float, reason: str
    ) -> None:
        if until is not None and self.pool.eject(destination, until):
            self._emit(DestinationEjected(self.pool.name, destination.url, until - now, reason))
            self._await_readmission()

    def _await_readmission(self) -> None:
        if self._readmission is not None:
            self._readmission.cancel()
            self._readmission = None
        expiry = self._ejector.next_expiry()
        if expiry is not None:
            self._readmission = self._loop.call_at(expiry, self._readmit_expired, context=Context())

    def _readmit_expired(self) -> None:
        self._readmission = None
        # The loop's clock may be a millisecond early.
        for destination in self._ejector.expired(self._loop.time() + 0.001):
            down = "" if destination.healthy else ", but it is still down"
            self._readmit(destination, f"its time is over{down}")
        self._await_readmission()

    def _readmit(self, destination: Destination, reason: str) -> None:
        self.pool.readmit(destination)
        self._ejector.readmitted(destination)
        event = DestinationReadmitted(self.pool.name, destination.url, reason)
        self._came_back(destination, event)

    def _set_health(self, destination: Destination, healthy: bool, reason: str) -> None:
        if self.pool.set_health(destination, healthy):
            name, url = self.pool.name, destination.url
            if healthy:
                self._came_back(destination, DestinationUp(name, url))
            else:
                self._emit(DestinationDown(name, url, reason))

    def _came_back(self, destination: Destination, event: Event) -> None:
        self._slow_start.begin(destination, self._loop.time())
        self._apply_ramp()
        self._emit(event)

    def _apply_ramp(self) -> None:
        """Set the due weights, and repeat this at each step while a destination warms up."""
        for destination, weight in self._slow_start.due(self._loop.time()):
            self.pool.set_weight(destination, weight)
        step = self._slow_start.step_seconds
        if step is not None and self._ramp is None:
            self._ramp = self._later(step, self._step_ramp)

    def _step_ramp(self) -> None:
        self._ramp = None
        self._apply_ramp()

    def _mark(self) -> None:
        self._ejector.tick(self._loop.time())
        self._tick = self._later(self._ejector.tick_seconds, self._mark)

    def _turn_window(self) -> None:
        self.requests_in_window = 0
        self.pool.turn_window()
        self._turn = self._later(self._window, self._turn_window)

    def _later(self, seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        return self._loop.call_later(seconds, call, context=Context())

    def _emit(self, event: Event) -> None:
        self._events.emit(event)
        self._emit_panic()

    def _emit_panic(self) -> None:
        if self.pool.panic != self._panic:
            self._panic = self.pool.panic
            name = self.pool.name
            self._events.emit(PanicStarted(name) if self._panic else PanicEnded(name))
