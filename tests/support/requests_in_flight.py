"""Counts a request at a destination, as an exchange does."""

from __future__ import annotations

from fastapi_proxy_di.pools.destination import Destination

__all__ = ["begin"]


def begin(destination: Destination) -> None:
    """Count a request that is sent to ``destination``; ``Destination.end`` counts its end."""
    destination.in_flight += 1
    destination.requests_in_window += 1
