"""The values of OpenTelemetry's attributes that spans and metrics share."""

from __future__ import annotations

from typing import Final

from fastapi_proxy_di.pools.destination import Destination

__all__ = ["OTHER", "method_of", "server_of"]

OTHER: Final = "_OTHER"
"""Stands for every method that the conventions do not know, since a client chooses it."""

_METHODS: Final = {
    name.encode(): name
    for name in (
        "CONNECT",
        "DELETE",
        "GET",
        "HEAD",
        "OPTIONS",
        "PATCH",
        "POST",
        "PUT",
        "QUERY",
        "TRACE",
    )
}


def method_of(method: bytes) -> str:
    """Give ``http.request.method``."""
    return _METHODS.get(method, OTHER)


def server_of(destination: Destination) -> tuple[str, int | None]:
    """Give ``server.address`` and ``server.port`` of a destination."""
    address = destination.address
    if address.app is not None:
        return address.app, None
    if address.socket_path is not None:
        return address.socket_path, None
    return address.host, address.port
