"""Refuses routes that anybody may call, because no dependency guards them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from starlette.applications import Starlette

from fastapi_proxy_di.errors import SettingsError
from fastapi_proxy_di.integration.compat import dependant_of
from fastapi_proxy_di.integration.mentions import UpstreamMention, reached_routes

__all__ = ["refuse_open"]


def refuse_open(app: Starlette, endpoints: Collection[Any], what: str) -> None:
    """Refuse routes without a dependency of router, include or app.

    Any dependency counts as a guard, except those that only give an upstream.

    Args:
        app: The app that has the routes.
        endpoints: The functions of the routes.
        what: Name of the router, for the message.

    Raises:
        SettingsError: A route has no dependency, or none of the routes is found.
    """
    guards = list(_guards(app, endpoints))
    paths = sorted(path for path, guarded in guards if not guarded)
    if paths or not guards:
        place = f"{what} {f'at {paths[0]}' if paths else 'inside a mounted middleware'}"
        raise SettingsError(
            f"{place} is open to everybody: it has no login of its own. Give it a "
            f"dependency, e.g. app.include_router({what}(), dependencies=[Depends(require_admin)])"
            ", or say unguarded=True if something in front of the app guards it"
        )


def _guards(app: Starlette, endpoints: Collection[Any]) -> Iterator[tuple[str, bool]]:
    """Give the path of each route, and whether it has a guard."""
    for route in reached_routes(app.routes):
        if getattr(route, "endpoint", None) in endpoints:
            dependant = dependant_of(route)
            guards = () if dependant is None else dependant.dependencies
            yield route.path, not all(isinstance(one.call, UpstreamMention) for one in guards)
