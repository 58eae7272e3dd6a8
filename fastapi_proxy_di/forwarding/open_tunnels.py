"""The open tunnels of one upstream, by destination, and how earlier ones ended."""

from __future__ import annotations

from fastapi_proxy_di.forwarding.tunnel import Tunnel, WebSocketEnd
from fastapi_proxy_di.pools.destination import Destination

__all__ = ["OpenTunnels"]


class OpenTunnels:
    """The tunnels of one upstream, those of earlier settings too.

    Attributes:
        ends: Number of tunnels that ended since the start, by reason.
    """

    def __init__(self) -> None:
        self._tunnels: dict[Destination, set[Tunnel]] = {}
        self.ends: dict[WebSocketEnd, int] = dict.fromkeys(WebSocketEnd, 0)

    @property
    def count(self) -> int:
        """Number of open tunnels."""
        # A copy, because a thread may ask while the loop opens the first tunnel to a destination.
        return sum(map(len, tuple(self._tunnels.values())))

    def to(self, destination: Destination) -> frozenset[Tunnel]:
        """The tunnels that are open to ``destination``."""
        return frozenset(self._tunnels.get(destination, ()))

    def add(self, destination: Destination, tunnel: Tunnel) -> None:
        """Note a tunnel that opens."""
        self._tunnels.setdefault(destination, set()).add(tunnel)

    def remove(self, destination: Destination, tunnel: Tunnel) -> None:
        """Note that a tunnel has ended."""
        tunnels = self._tunnels[destination]
        tunnels.discard(tunnel)
        if not tunnels:
            del self._tunnels[destination]
