"""Pools and destinations for tests of decisions: real settings, made-up addresses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.pools.pool import Pool
from fastapi_proxy_di.settings import DestinationSettings


def settings_of(index: int, **fields: Any) -> DestinationSettings:
    """Settings of the destination at ``http://10.0.0.<index>:80``, two octets wide."""
    return DestinationSettings(url=f"http://10.0.{index // 250}.{index % 250 + 1}", **fields)


def destinations_of(count: int, weights: Sequence[float] = ()) -> tuple[Destination, ...]:
    """That many destinations, with ``weights`` if given."""
    return tuple(
        Destination(settings_of(at, weight=weights[at] if weights else 1)) for at in range(count)
    )


def pool_of(count: int, *, panic: bool = True, **fields: Any) -> Pool:
    """A pool of that many destinations that share ``fields``."""
    return Pool("billing", [settings_of(at, **fields) for at in range(count)], panic=panic)
