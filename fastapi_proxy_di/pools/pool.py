"""The live destinations of one upstream, and the snapshots that picks read.

A snapshot is a tuple that is replaced whole on each change, so readers need no lock. Each method
that changes something returns whether it did, and its caller emits the event. The file has no
clock and no I/O, and does not decide when health changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.wire.addresses import parse_address

if TYPE_CHECKING:
    from fastapi_proxy_di.settings import DestinationSettings

__all__ = ["Pool"]


class Pool:
    """All destinations of one upstream.

    Attributes:
        name: The upstream's name.
        destinations: All destinations, also draining ones, in the order of the settings.
        available: Destinations that may be picked: healthy, not ejected, not draining, and not
            without their first probe unless there are no others.
        tiers: The candidates of picks, lowest tier first: the available destinations, or in
            panic all that are neither draining nor cooling, in one tier.
        candidates: The first of ``tiers``, ``()`` if there is none.
        panic: Whether panic is on: no destination is available, so all are used.
        panic_allowed: Whether panic may be turned on; changed by ``allow_panic``.

    Args:
        name: The upstream's name.
        settings: The settings of each destination, with distinct addresses.
        panic: Whether panic may be turned on when no destination is available.
    """

    __slots__ = (
        "_by_url",
        "_on_room",
        "_some_probed",
        "available",
        "candidates",
        "destinations",
        "name",
        "panic",
        "panic_allowed",
        "tiers",
    )

    def __init__(self, name: str, settings: Iterable[DestinationSettings], *, panic: bool) -> None:
        self.name: str = name
        self.destinations: tuple[Destination, ...] = tuple(map(Destination, settings))
        self.panic_allowed: bool = panic
        self._on_room: Callable[[], None] | None = None
        self._index()

    def __repr__(self) -> str:
        return f"<Pool {self.name} {len(self.available)}/{len(self.destinations)} available>"

    def find(self, url: str) -> Destination | None:
        """Give the destination at ``url``, in any equivalent spelling, or ``None``."""
        found = self._by_url.get(url)
        if found is None:
            try:
                found = self._by_url.get(parse_address(url).url)
            except ValueError:
                return None
        return found

    def unprobed(self, destination: Destination) -> bool:
        """Whether a destination gets no request before its first probe, as others can be used."""
        return destination.awaits_probe and self._some_probed

    def probed(self, destination: Destination) -> None:
        """Note that a destination that was added has a probe result."""
        if destination.awaits_probe:
            destination.awaits_probe = False
            self._refresh()

    def set_health(self, destination: Destination, healthy: bool) -> bool:
        """Set the health that probes found; return whether that is a change."""
        # A probe may end after its destination has left the pool.
        if destination.healthy == healthy or destination.removed:
            return False
        destination.healthy = healthy
        if healthy:
            destination.returns += 1
        self._refresh()
        return True

    def eject(self, destination: Destination, until: float) -> bool:
        """Eject a destination until ``until`` (monotonic seconds); return whether it changed."""
        if destination.ejected:
            return False
        destination.ejected_until = until
        destination.ejections += 1
        self._refresh()
        return True

    def move_ejection(self, destination: Destination, until: float) -> None:
        """Let an ejection that runs end at ``until`` (monotonic seconds)."""
        if destination.ejected:
            destination.ejected_until = until

    def cool_down(self, destination: Destination, until: float) -> bool:
        """Eject a destination that asked for it until ``until``; return whether it changed.

        It is not used in panic either. An ejection that ends later stays.
        """
        before = destination.ejected_until
        if destination.cooling and before is not None and until <= before:
            return False
        if before is None:
            destination.ejections += 1
        destination.cooling = True
        destination.ejected_until = until if before is None else max(until, before)
        self._refresh()
        return True

    def readmit(self, destination: Destination) -> bool:
        """End an ejection and count exchanges from zero; return whether there was one."""
        if not destination.ejected:
            return False
        destination.ejected_until = None
        destination.cooling = False
        destination.successes = destination.failures = destination.completed = 0
        destination.returns += 1
        self._refresh()
        return True

    def drain(self, destination: Destination) -> bool:
        """Mark a destination as draining; return whether that is a change."""
        if destination.draining:
            return False
        destination.draining = True
        self._refresh()
        return True

    def undrain(self, destination: Destination) -> bool:
        """End the draining of a destination of the pool; return whether that is a change."""
        if not destination.draining or destination.removed:
            return False
        destination.draining = False
        self._refresh()
        return True

    def set_weight(self, destination: Destination, weight: float) -> bool:
        """Set a weight until the settings change; return whether that is a change."""
        if destination.weight == weight:
            return False
        destination.weight = weight
        self._refresh()
        return True

    def replace(
        self,
        settings: Iterable[DestinationSettings],
        *,
        await_probe: bool = False,
        restore: Callable[[Destination], None] | None = None,
    ) -> tuple[tuple[Destination, ...], tuple[Destination, ...]]:
        """Make ``settings`` the pool's destinations.

        A destination whose address stays is the same object with its counts and health, and
        gets the new weight, limits, tier and metadata. With another ``host`` it is another
        destination, as its connections were opened with the old one. A destination whose address
        is gone is marked ``removed`` and ``draining`` and finishes its requests.

        Args:
            settings: The settings of each destination, with distinct addresses.
            await_probe: Whether added destinations get no request before their first probe.
            restore: Called with each added destination before it can be picked.

        Returns:
            The destinations added and those removed.
        """
        kept: list[Destination] = []
        added: list[Destination] = []
        old = self._by_url
        for one in settings:
            known = old.get(one.url)
            if known is None or known.address != one.address:
                kept.append(fresh := Destination(one))
                fresh.awaits_probe = await_probe
                if restore is not None:
                    restore(fresh)
                added.append(fresh)
            else:
                known.configure(one)
                kept.append(known)
        staying = {id(destination) for destination in kept}
        removed = tuple(one for one in self.destinations if id(one) not in staying)
        for destination in removed:
            destination.removed = destination.draining = True
        self.destinations = tuple(kept)
        self._index()
        return tuple(added), removed

    def allow_panic(self, allowed: bool) -> None:
        """Say whether panic may be turned on when no destination is available."""
        self.panic_allowed = allowed
        self._refresh()

    def report_room(self, listener: Callable[[], None] | None) -> None:
        """Call ``listener`` whenever a destination may have got room for a request.

        This is when a request ends, a window turns, or the snapshots change. ``None`` ends the
        reports.
        """
        if listener is None:
            for destination in self.destinations:
                destination.report_room(None)
        self._on_room = listener
        self._index()

    def turn_window(self) -> None:
        """Begin a new window of ``max_requests`` for every destination."""
        for destination in self.destinations:
            destination.turn_window()

    def _index(self) -> None:
        self._by_url = {destination.url: destination for destination in self.destinations}
        if self._on_room is not None:
            for destination in self.destinations:
                destination.report_room(self._on_room)
        self._refresh()

    def _refresh(self) -> None:
        """Replace the snapshots by new objects: policies notice a change by identity."""
        usable = [destination for destination in self.destinations if destination.available]
        probed = [destination for destination in usable if not destination.awaits_probe]
        self._some_probed = bool(probed)
        self.available: tuple[Destination, ...] = tuple(probed or usable)
        self.panic: bool = False
        by_tier: dict[int, list[Destination]] = {}
        for destination in self.available:
            by_tier.setdefault(destination.tier, []).append(destination)
        if not by_tier and self.panic_allowed:
            rest = [one for one in self.destinations if not one.draining and not one.cooling]
            if rest:
                self.panic = True
                by_tier[0] = rest
        self.tiers: tuple[tuple[Destination, ...], ...] = tuple(
            [tuple(by_tier[tier]) for tier in sorted(by_tier)]
        )
        self.candidates: tuple[Destination, ...] = self.tiers[0] if self.tiers else ()
        if self._on_room is not None:
            self._on_room()
