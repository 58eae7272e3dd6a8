"""``DestinationTransport``: the transport, Host header and base path of one destination."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.transport.protocol import Transport

__all__ = ["DestinationTransport"]


@dataclass(slots=True)
class DestinationTransport:
    """Transport, Host header and base path of one destination, made once.

    Attributes:
        transport: The transport to the destination.
        host: The Host header of the destination.
        base_path: The path that is put in front of every request's path.
    """

    transport: Transport
    host: tuple[bytes, bytes]
    base_path: bytes

    @classmethod
    def to(cls, destination: Destination, transport: Transport) -> DestinationTransport:
        """Make the `DestinationTransport` of ``destination``."""
        address = destination.settings.address
        return cls(transport, (b"host", address.authority), address.base_path)
