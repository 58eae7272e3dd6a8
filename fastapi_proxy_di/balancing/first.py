"""Policy ``first``: the first available destination, in the order of the settings.

Owns: that choice. The others stand by.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fastapi_proxy_di.balancing.policy import PickRequest
from fastapi_proxy_di.pools.destination import Destination

__all__ = ["First"]


class First:
    """Always the first; the next one when it is full or has been tried."""

    name = "first"

    def pick(
        self, available: Sequence[Destination], request: PickRequest | None = None
    ) -> Destination | None:
        """Give the first, ``None`` if there is none. O(1)."""
        return available[0] if available else None

    def order(
        self, available: Sequence[Destination], request: PickRequest | None = None
    ) -> Iterator[Destination]:
        """Give them in the order of the settings."""
        return iter(available)
