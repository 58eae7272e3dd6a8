"""The live destinations of one upstream, and the snapshots that picks read.

Owns: which destinations there are, and the tuples derived from their state. A tuple is replaced
whole on each change, so a reader keeps the one it has and needs no lock. Must not know: clocks,
I/O, policies, events, or the rules by which health changes. Each method that changes something
returns whether it did; its caller emits the event.
"""

from __future__ import annotations

from collections.abc import Iterable
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
        available: Those that may be picked: healthy, not ejected, not draining.
        tiers: The candidates of picks, lowest tier first: the available ones, or in panic
            all that are not draining, in one tier.
        candidates: The first of ``tiers``, ``()`` if there is none.
        panic: Whether panic is on: none is available, so all are used rather than none.

    Args:
        name: The upstream's name.
        settings: One per destination, addresses distinct.
        panic: Whether panic may be turned on when none is available.
    """

    __slots__ = (
        "_by_url",
        "_panic_allowed",
        "available",
        "candidates",
        "destinations",
        "name",
        "panic",
        "tiers",
    )

    def __init__(self, name: str, settings: Iterable[DestinationSettings], *, panic: bool) -> None:
        self.name: str = name
        self.destinations: tuple[Destination, ...] = tuple(map(Destination, settings))
        self._panic_allowed = panic
        self._index()

    def __repr__(self) -> str:
        return f"<Pool {self.name} {len(self.available)}/{len(self.destinations)} available>"

    def find(self, url: str) -> Destination | None:
        """Give the destination at ``url``, written in any equivalent way, or ``None``."""
        found = self._by_url.get(url)
        if found is None:
            try:
                found = self._by_url.get(parse_address(url).url)
            except ValueError:
                return None
        return found

    def set_health(self, destination: Destination, healthy: bool) -> bool:
        """Record the result of probes; true if that is a change."""
        # A probe may end after its destination has left the pool.
        if destination.healthy == healthy or destination.removed:
            return False
        destination.healthy = healthy
        if healthy:
            destination.returns += 1
        self._refresh()
        return True

    def eject(self, destination: Destination, until: float) -> bool:
        """Eject it until ``until`` (monotonic seconds); true unless it was ejected already."""
        if destination.ejected:
            return False
        destination.ejected_until = until
        destination.ejections += 1
        self._refresh()
        return True

    def readmit(self, destination: Destination) -> bool:
        """End its ejection and count its exchanges from zero; true if it was ejected."""
        if not destination.ejected:
            return False
        destination.ejected_until = None
        destination.successes = destination.failures = 0
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
        """Give it new requests again; true if it was draining and is still in the pool."""
        if not destination.draining or destination.removed:
            return False
        destination.draining = False
        self._refresh()
        return True

    def set_weight(self, destination: Destination, weight: float) -> bool:
        """Set its weight until its settings change; true if that is a change."""
        if destination.weight == weight:
            return False
        destination.weight = weight
        self._refresh()
        return True

    def replace(
        self, settings: Iterable[DestinationSettings]
    ) -> tuple[tuple[Destination, ...], tuple[Destination, ...]]:
        """Make ``settings`` the pool's destinations.

        A destination whose address stays is the same object with its counts and health, and
        gets the new weight, limits, tier and metadata. One whose address is gone is marked
        ``removed`` and ``draining`` and finishes its requests.

        Returns:
            The destinations added and those removed.
        """
        kept: list[Destination] = []
        added: list[Destination] = []
        old = self._by_url
        for one in settings:
            known = old.get(one.url)
            if known is None:
                kept.append(fresh := Destination(one))
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

    def turn_window(self) -> None:
        """Begin a new window of ``max_requests`` for every destination."""
        for destination in self.destinations:
            destination.turn_window()

    def _index(self) -> None:
        self._by_url = {destination.url: destination for destination in self.destinations}
        self._refresh()

    def _refresh(self) -> None:
        """Replace the snapshots by new objects: policies notice a change by identity."""
        self.available: tuple[Destination, ...] = tuple(
            [destination for destination in self.destinations if destination.available]
        )
        self.panic: bool = False
        by_tier: dict[int, list[Destination]] = {}
        for destination in self.available:
            by_tier.setdefault(destination.tier, []).append(destination)
        if not by_tier and self._panic_allowed:
            rest = [destination for destination in self.destinations if not destination.draining]
            if rest:
                self.panic = True
                by_tier[0] = rest
        self.tiers: tuple[tuple[Destination, ...], ...] = tuple(
            [tuple(by_tier[tier]) for tier in sorted(by_tier)]
        )
        self.candidates: tuple[Destination, ...] = self.tiers[0] if self.tiers else ()
