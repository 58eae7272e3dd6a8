"""What can be changed on a running upstream, as keyword arguments, and how it is checked.

Owns: the names, and that a change passes the same validation as the setting it replaces.
Must not know: what becomes of it.
"""

from __future__ import annotations

from typing import Any, TypedDict

from pydantic import BaseModel

from fastapi_proxy_di.settings import DestinationSettings, HealthSettings


class HealthChanges(TypedDict, total=False):
    """Arguments of ``Balancer.configure_health``; see ``HealthSettings`` for their meaning."""

    path: str | None
    interval: float | str
    timeout: float | str
    unhealthy_interval: float | str | None
    fall: int
    rise: int


class DestinationChanges(TypedDict, total=False):
    """Arguments of ``Balancer.configure_destination``; see ``DestinationSettings``."""

    max_requests: int | None
    max_in_flight: int | None
    weight: float
    tier: int
    health_path: str | None


def changed_health(settings: HealthSettings, changes: HealthChanges) -> HealthSettings:
    """Give the settings with the changes.

    Raises:
        ValueError: One of them is not valid.
    """
    return HealthSettings.model_validate({**_fields(settings), **changes})


def changed_destination(
    settings: DestinationSettings, changes: DestinationChanges
) -> DestinationSettings:
    """Give the settings with the changes.

    Raises:
        ValueError: One of them is not valid.
    """
    return DestinationSettings.model_validate({**_fields(settings), **changes})


def _fields(settings: BaseModel) -> dict[str, Any]:
    # Not `dict(settings)`, which has the cached properties as well.
    return {name: getattr(settings, name) for name in type(settings).model_fields}
