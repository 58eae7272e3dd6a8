"""Policy ``first``: the first available destination, in the order of the settings.

The other destinations are its reserve.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fastapi_proxy_di.balancing.policy import PickRequest
from fastapi_proxy_di.pools.destination import Destination

__all__ = ["First"]


class First:
    """Picks the first destination, or the next one if it is full or was tried."""

    name = "first"

    def pick(
        self, available: Sequence[Destination], request: PickRequest | None = None
    ) -> Destination | None:
        """Pick the first, ``None`` if there is none. O(1)."""
        return available[0] if available else None

    def order(
        self, available: Sequence[Destination], request: PickRequest | None = None
    ) -> Iterator[Destination]:
        """Give the destinations in the order of the settings."""
        return iter(available)
