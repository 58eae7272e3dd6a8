"""The open tunnels of one upstream, by destination, and how earlier ones ended."""

from __future__ import annotations

import asyncio
from typing import Final

from fastapi_proxy_di.forwarding.tunnel import Tunnel, WebSocketEnd
from fastapi_proxy_di.pools.destination import Destination

__all__ = ["OpenTunnels"]

_END_SECONDS: Final = 2.0
"""Seconds for tunnels to end, each of which takes about one."""

_LOOK_SECONDS: Final = 0.05
"""Seconds between two checks whether tunnels are open."""


class OpenTunnels:
    """The tunnels of one upstream, those of earlier settings too.

    Attributes:
        ends: Number of tunnels that ended since the start, by reason.
    """

    def __init__(self) -> None:
        self._tunnels: dict[Destination, set[Tunnel]] = {}
        self.ends: dict[WebSocketEnd, int] = dict.fromkeys(WebSocketEnd, 0)
        self._closed_for: str | None = None

    @property
    def count(self) -> int:
        """Number of open tunnels."""
        # A copy, because a thread may ask while the loop opens the first tunnel to a destination.
        return sum(map(len, tuple(self._tunnels.values())))

    def to(self, destination: Destination) -> frozenset[Tunnel]:
        """The tunnels that are open to ``destination``."""
        return frozenset(self._tunnels.get(destination, ()))

    def add(self, destination: Destination, tunnel: Tunnel) -> None:
        """Note a tunnel that opens; after ``aclose`` it is closed at once."""
        self._tunnels.setdefault(destination, set()).add(tunnel)
        if self._closed_for is not None:
            tunnel.close(1001, self._closed_for)

    def remove(self, destination: Destination, tunnel: Tunnel) -> None:
        """Note that a tunnel has ended."""
        tunnels = self._tunnels[destination]
        tunnels.discard(tunnel)
        if not tunnels:
            del self._tunnels[destination]

    async def aclose(self, reason: str) -> None:
        """Close all tunnels with 1001, and wait for their ends for about a second.

        Args:
            reason: The close reason for both sides.
        """
        self._closed_for = reason
        for tunnels in tuple(self._tunnels.values()):
            for tunnel in tuple(tunnels):
                tunnel.close(1001, reason)
        try:
            async with asyncio.timeout(_END_SECONDS):
                while self._tunnels:  # noqa: ASYNC110  # no event tells that there are none
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            pass
