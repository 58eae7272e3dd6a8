"""Destinations as tests of discovery need them."""

from __future__ import annotations

from fastapi_proxy_di.settings import DestinationSettings

__all__ = ["at", "some"]


def at(url: str, **fields: object) -> DestinationSettings:
    """Give a destination."""
    return DestinationSettings.model_validate({"url": url, **fields})


def some(*hosts: int) -> tuple[DestinationSettings, ...]:
    """Give destinations with addresses that end in the given numbers."""
    return tuple([at(f"http://10.0.0.{host}:80") for host in hosts])
