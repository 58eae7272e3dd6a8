"""Pools and destinations for tests of decisions: real settings, made-up addresses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.pools.pool import Pool
from fastapi_proxy_di.settings import DestinationSettings


def settings_of(index: int, **fields: Any) -> DestinationSettings:
    """Give settings of a destination whose address is made of ``index``."""
    return DestinationSettings(url=f"http://10.0.{index // 250}.{index % 250 + 1}", **fields)


def destinations_of(count: int, weights: Sequence[float] = ()) -> tuple[Destination, ...]:
    """Give ``count`` destinations, with ``weights`` if given."""
    return tuple(
        Destination(settings_of(at, weight=weights[at] if weights else 1)) for at in range(count)
    )


def pool_of(count: int, *, panic: bool = True, **fields: Any) -> Pool:
    """Give a pool of ``count`` destinations whose settings have ``fields``."""
    return Pool("billing", [settings_of(at, **fields) for at in range(count)], panic=panic)
